//! What each kind of change costs traffic: short requests over HTTP/1.1 and HTTP/2, and requests that take longer than the
//! change. `hitless_report` makes a table of many of them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};
use wasmplane::commands::bootstrap::Protocol;

use crate::support::envoy::{CHAIN, Envoy, FILTER, envoy};
use crate::support::http::{Connection, Version};
use crate::support::load::{Load, LoadReport};
use crate::support::scene::{Scene, native, native_chain, native_cluster, native_listener, plugin};
use crate::support::upstream::Upstream;
use crate::support::{by_digest, modules, wait_until};

const CONNECTIONS: u64 = 3;
const BOTH: [Version; 2] = [Version::One, Version::Two];

/// A kind of change, as operators make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    EditConfiguration,
    AddAndRemove,
    Reorder,
    MoveToAnotherGap,
    ReplaceModule,
    RefusedRevision,
    /// As many as can be written in a while, without waiting for any.
    Flap,
    UpstreamMoves,
    AnchorComesAndGoes,
    ListenerIsRenamed,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::EditConfiguration,
        Self::AddAndRemove,
        Self::Reorder,
        Self::MoveToAnotherGap,
        Self::ReplaceModule,
        Self::RefusedRevision,
        Self::Flap,
        Self::UpstreamMoves,
        Self::AnchorComesAndGoes,
        Self::ListenerIsRenamed,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::EditConfiguration => "a plugin's configuration is edited",
            Self::AddAndRemove => "a plugin is added, or removed",
            Self::Reorder => "two plugins change their order",
            Self::MoveToAnotherGap => "a plugin moves to another phase",
            Self::ReplaceModule => "a module is replaced",
            Self::RefusedRevision => "Envoy refuses a revision, and the next is good",
            Self::Flap => "moved between two phases, 50 times a second, waiting for none",
            Self::UpstreamMoves => "template: the upstream moves",
            Self::AnchorComesAndGoes => "template: an anchor comes, or goes",
            Self::ListenerIsRenamed => "template: a listener is renamed",
        }
    }

    /// Changes of HTTP plugins alone: in chain mode they must touch no listener.
    pub fn is_of_plugins(self) -> bool {
        !matches!(self, Self::UpstreamMoves | Self::AnchorComesAndGoes | Self::ListenerIsRenamed)
    }
}

/// One Envoy that runs the plugin `hello`, and a second upstream to move to.
struct Stage {
    scene: Scene,
    other: Upstream,
    envoy: Envoy,
    /// Written by the change before; the next differs.
    number: usize,
    /// Of edits that nothing is waited for between.
    pace: Interval,
}

/// What a kind of change did.
#[derive(Debug, Default)]
struct Outcome {
    changes: usize,
    short: LoadReport,
    held: u64,
    held_failed: u64,
    /// Listeners that Envoy changed, and so drained.
    drained: u64,
}

impl Stage {
    async fn set(version: &str, protocol: Protocol) -> Option<Self> {
        // What is drained lives on for longer than any request here.
        let setup = envoy(version).await?.protocol(protocol).drain_seconds(600);
        let mut scene = Scene::new().await;
        let other = Upstream::start().await;
        scene.control.module("hello.wasm", &modules::hello());
        scene.control.module("a.wasm", &modules::order("a"));
        scene.control.module("refused.wasm", &modules::refuses_its_configuration());
        scene.control.write("template.yaml", &template(&scene, "in", scene.upstream.port(), true));
        scene.control.start().await;
        let envoy = scene.envoy(setup).await;
        let mut pace = interval(Duration::from_millis(20));
        // Also on a machine that cannot keep it, no two edits are closer.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stage = Self { scene, other, envoy, number: 0, pace };
        stage.edit("AUTHN").await;
        Some(stage)
    }

    fn url(&self, module: &str) -> String {
        format!("file://{}", self.scene.control.modules().join(format!("{module}.wasm")).display())
    }

    fn write_hello(&self, phase: &str) {
        let spec = json!({"pluginConfig": {"n": self.number}, "phase": phase, "priority": 10});
        self.scene.plugin("hello", &self.url("hello"), spec);
    }

    /// Edits the plugin `hello` and waits until the edit is seen in traffic.
    async fn edit(&mut self, phase: &str) {
        self.number += 1;
        self.write_hello(phase);
        self.scene.until_header("x-hello", Some(&format!(r#"{{"n":{}}}"#, self.number))).await;
    }

    fn write_other(&self, module: &str, spec: Value) {
        self.scene.control.write("other.yaml", &plugin("other", &self.url(module), spec));
    }

    async fn until_order(&self, order: &str) {
        self.scene.until(&format!("order {order:?}"), |answer| answer.order() == order).await;
    }

    async fn change(&mut self, kind: Kind, number: usize) {
        let is_even = number.is_multiple_of(2);
        match kind {
            Kind::EditConfiguration => self.edit("AUTHN").await,
            Kind::MoveToAnotherGap => self.edit(if is_even { "STATS" } else { "AUTHN" }).await,
            Kind::AddAndRemove if is_even => {
                self.write_other("a", json!({}));
                self.until_order("a").await;
            }
            Kind::AddAndRemove => {
                self.scene.control.delete("other.yaml");
                self.until_order("").await;
            }
            Kind::Reorder => {
                // Behind or in front of `hello`; another edit shows that it has come.
                self.write_other("a", json!({"phase": "AUTHN", "priority": if is_even { 20 } else { 5 }}));
                self.edit("AUTHN").await;
            }
            Kind::ReplaceModule => {
                let letter = if is_even { "b" } else { "a" };
                self.scene.control.module("a.wasm", &modules::order(letter));
                self.write_other("a", json!({}));
                self.until_order(letter).await;
            }
            Kind::RefusedRevision => {
                let refused = self.scene.metric(r#"wasmplane_xds_nacks_total{type="ecds"}"#).await;
                self.write_other("refused", json!({"pluginConfig": {"n": number}}));
                wait_until("the refusal", async || {
                    let now = self.scene.metric(r#"wasmplane_xds_nacks_total{type="ecds"}"#).await;
                    (now > refused).then_some(())
                })
                .await;
                self.write_other("a", json!({}));
                self.until_order("a").await;
            }
            Kind::Flap => {
                self.number += 1;
                self.write_hello(if is_even { "STATS" } else { "AUTHN" });
                // The pace is the change itself; nothing is waited for.
                self.pace.tick().await;
            }
            Kind::UpstreamMoves | Kind::AnchorComesAndGoes | Kind::ListenerIsRenamed => {
                let updates = self.updates().await;
                let template = match kind {
                    Kind::UpstreamMoves if is_even => template(&self.scene, "in", self.other.port(), true),
                    Kind::AnchorComesAndGoes if is_even => {
                        template(&self.scene, "in", self.scene.upstream.port(), false)
                    }
                    Kind::ListenerIsRenamed if is_even => {
                        template(&self.scene, "renamed", self.scene.upstream.port(), true)
                    }
                    _ => template(&self.scene, "in", self.scene.upstream.port(), true),
                };
                self.scene.control.write("template.yaml", &template);
                wait_until("the update", async || (self.updates().await > updates).then_some(())).await;
            }
        }
    }

    /// Updates of listeners and clusters that Envoy has taken.
    async fn updates(&self) -> u64 {
        self.envoy.stat("listener_manager.lds.update_success").await
            + self.envoy.stat("cluster_manager.cds.update_success").await
    }

    async fn changed_listeners(&self) -> u64 {
        let mut changed = 0;
        for change in ["listener_modified", "listener_removed"] {
            changed += self.envoy.stat(&format!("listener_manager.{change}")).await;
        }
        changed
    }

    /// So many changes, under load, and a few requests that began before the first and end after the last.
    async fn run(&mut self, kind: Kind, changes: usize) -> Outcome {
        if matches!(kind, Kind::ReplaceModule | Kind::RefusedRevision | Kind::Reorder) {
            self.write_other("a", json!({}));
            self.until_order("a").await;
        }
        let port = self.scene.port;
        let before = self.changed_listeners().await;
        let loads = BOTH.map(|version| Load::speaking(version, port, CONNECTIONS as usize, "x-hello"));
        let mut held = JoinSet::new();
        for version in BOTH {
            held.spawn(async move {
                let mut connection = Connection::speaking(port, version).await?;
                connection.get("/held", &[]).await
            });
        }
        let upstream_held = self.scene.upstream.held() + held.len() as u64;
        wait_until("the held requests", async || (self.scene.upstream.held() >= upstream_held).then_some(())).await;

        for number in 0..changes {
            self.change(kind, number).await;
        }
        if kind == Kind::Flap {
            self.edit("AUTHN").await;
        }
        let mut outcome = Outcome { changes, held: held.len() as u64, ..Outcome::default() };
        for load in loads {
            outcome.short.merge(load.stop().await);
        }
        self.scene.upstream.release();
        for answer in held.join_all().await {
            let is_good = answer.is_ok_and(|answer| answer.status == 200);
            outcome.held_failed += u64::from(!is_good);
        }
        outcome.drained = self.changed_listeners().await - before;
        outcome
    }
}

/// A listener with anchors; without the first one its gaps have other names.
fn template(scene: &Scene, name: &str, upstream: u16, has_authentication: bool) -> String {
    let mut chain = native_chain("in", "upstream");
    // Held requests last as long as the changes do.
    let config = &mut chain["filters"][0]["typed_config"]["route_config"];
    config["virtual_hosts"][0]["routes"][0]["route"]["timeout"] = json!("0s");
    if !has_authentication {
        let filters = chain["filters"][0]["typed_config"]["http_filters"].as_array_mut().expect("it has filters");
        filters.remove(0);
    }
    let listeners = json!([native_listener(name, scene.port, &[chain])]);
    native("web", listeners, json!([native_cluster("upstream", upstream)]))
}

pub async fn nothing_fails(version: &str, protocol: Protocol, kinds: &[Kind], changes: usize) {
    for kind in kinds {
        let Some(mut stage) = Stage::set(version, protocol).await else { return };
        let outcome = stage.run(*kind, changes).await;
        assert!(outcome.short.requests > 0 && outcome.short.failed == 0, "{kind:?}: {outcome:#?}");
        assert_eq!(outcome.held_failed, 0, "{kind:?}: {outcome:#?}");
        assert_eq!(outcome.short.seen.get(""), None, "{kind:?}: requests went past the plugin: {outcome:#?}");
        if version == CHAIN && kind.is_of_plugins() {
            assert_eq!((outcome.short.closed, outcome.drained), (0, 0), "{kind:?}: {outcome:#?}");
        }
    }
}

#[tokio::test]
async fn changes_of_plugins_in_chains_fail_no_short_and_no_long_request() {
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.is_of_plugins()).collect();
    nothing_fails(CHAIN, Protocol::Delta, &kinds, 6).await;
}

#[tokio::test]
async fn changes_of_templates_fail_no_short_and_no_long_request() {
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(|kind| !kind.is_of_plugins()).collect();
    nothing_fails(CHAIN, Protocol::Delta, &kinds, 4).await;
}

#[tokio::test]
async fn changes_of_filters_fail_no_short_and_no_long_request() {
    nothing_fails(FILTER, Protocol::Delta, &Kind::ALL, 4).await;
}

/// Prints a table of what each kind of change costs.
#[tokio::test]
#[ignore = "a report, which takes some minutes"]
async fn hitless_report() {
    let mut table = String::from(
        "| mode | protocol | change | changes | requests | failed | long requests failed | connections closed | listeners drained |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for (version, mode) in [(CHAIN, "chain"), (FILTER, "filter")] {
        for (protocol, words) in [(Protocol::Delta, "delta"), (Protocol::Sotw, "state of the world")] {
            for kind in Kind::ALL {
                table += &row(version, protocol, kind, &format!("{mode} ({version}), inline"), words).await;
                by_digest(async {
                    table += &row(version, protocol, kind, &format!("{mode} ({version}), by digest"), words).await;
                })
                .await;
            }
        }
    }
    println!("{table}");
}

async fn row(version: &str, protocol: Protocol, kind: Kind, mode: &str, words: &str) -> String {
    let Some(mut stage) = Stage::set(version, protocol).await else { return String::new() };
    let Outcome { changes, short, held, held_failed, drained } =
        stage.run(kind, if kind == Kind::Flap { 500 } else { 30 }).await;
    format!(
        "| {mode} | {words} | {} | {changes} | {} | {} | {held_failed} of {held} | {} | {drained} |\n",
        kind.words(),
        short.requests,
        short.failed,
        short.closed,
    )
}
