//! `wasmplane plugins`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::admin_client::{ServerArgs, block_on};
use super::{Format, Outcome, table};
use crate::protobuf::admin::watch_rollout_response::Event;
use crate::protobuf::admin::{
    Counts, ListPluginsRequest, ListPluginsResponse, ModuleFailure, Plugin, WatchRolloutRequest,
};

/// Plugins of a running control plane, and how far each has been rolled out.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Go on printing each plugin whenever its state changes.
    #[arg(short, long)]
    watch: bool,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    block_on(async {
        if args.watch {
            return watch(&args).await;
        }
        let mut client = args.server.connect().await?;
        let ListPluginsResponse { plugins, faults, module_store_fault: store } =
            client.list_plugins(ListPluginsRequest {}).await?.into_inner();
        let plugins_json = || plugins.iter().map(view).collect::<Vec<_>>();
        match args.format {
            Format::Text => print!("{}{}{}", text(&plugins), refused(&faults), unstored(&store)),
            Format::Json => {
                println!("{:#}", json!({"plugins": plugins_json(), "faults": faults, "moduleStoreFault": store}))
            }
        }
        Ok(Outcome::Fine)
    })
}

/// One line per event, until the server or the reader goes.
async fn watch(args: &Args) -> anyhow::Result<Outcome> {
    let mut events = args.server.connect().await?.watch_rollout(WatchRolloutRequest {}).await?.into_inner();
    let mut told = Told::default();
    while let Some(response) = events.message().await? {
        let line = match (response.event, args.format) {
            (Some(Event::Plugin(plugin)), Format::Text) => told.news(&plugin),
            (Some(Event::Removed(id)), Format::Text) => {
                told.0.remove(&id);
                format!("{id}: removed")
            }
            (Some(Event::Plugin(plugin)), Format::Json) => view(&plugin).to_string(),
            (Some(Event::Removed(id)), Format::Json) => json!({"removed": id}).to_string(),
            (None, _) => continue,
        };
        println!("{line}");
    }
    Ok(Outcome::Fine)
}

/// What was said of each plugin, so that a remark is made once and not with every step of a rollout.
#[derive(Default)]
struct Told(BTreeMap<String, Vec<String>>);

impl Told {
    /// The plugin's state, and what is new of its remarks.
    fn news(&mut self, plugin: &Plugin) -> String {
        let remarks = remarks(plugin);
        let before = self.0.insert(plugin.id.clone(), remarks.clone()).unwrap_or_default();
        let news: Vec<_> = remarks.into_iter().filter(|remark| !before.contains(remark)).collect();
        summary(plugin, news)
    }
}

fn text(plugins: &[Plugin]) -> String {
    if plugins.is_empty() {
        return "no plugin is known\n".into();
    }
    let head = ["ID", "PROGRAMMED", "OTHER STATES", "REVISION", "MODULE", "IMAGE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut said = String::new();
    for plugin in plugins {
        let counts = plugin.counts.unwrap_or_default();
        rows.push(vec![
            plugin.id.clone(),
            format!("{}/{}", counts.programmed, counts.total),
            other_states(&counts).join(", "),
            plugin.running_revision.clone(),
            plugin.module_digest.chars().take(12).collect(),
            plugin.image_digest.chars().take(12).collect(),
        ]);
        for line in remarks(plugin) {
            said.push_str(&format!("{}: {line}\n", plugin.id));
        }
    }
    let separator = if said.is_empty() { "" } else { "\n" };
    table::render(&rows) + separator + &said
}

/// Manifests that were refused: a plugin that never was good is in no table.
fn refused(faults: &[String]) -> String {
    let lines: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
    if faults.is_empty() { lines } else { format!("\nrefused:\n{lines}") }
}

/// What is run all the same, until the next restart.
fn unstored(fault: &str) -> String {
    if fault.is_empty() {
        return String::new();
    }
    format!("\nmodules cannot be stored, and are kept in memory only: {fault}\n")
}

fn summary(plugin: &Plugin, remarks: Vec<String>) -> String {
    let counts = plugin.counts.unwrap_or_default();
    let programmed = format!("programmed on {} of {}", counts.programmed, counts.total);
    let parts = [vec![programmed], other_states(&counts), remarks].concat();
    format!("{} {}: {}", plugin.id, plugin.running_revision, parts.join("; "))
}

fn other_states(counts: &Counts) -> Vec<String> {
    let states = [
        ("not loaded", counts.not_loaded),
        ("pending", counts.pending),
        ("rejected", counts.rejected),
        ("stand-in", counts.stand_in),
        ("unsupported", counts.unsupported),
    ];
    states.iter().filter(|(_, count)| *count > 0).map(|(state, count)| format!("{count} {state}")).collect()
}

fn remarks(plugin: &Plugin) -> Vec<String> {
    let module = (!plugin.module_error.is_empty()).then(|| format!("module not loaded: {}", plugin.module_error));
    let failure = plugin.module_failure.as_ref().map(failure);
    let answers = plugin.messages.iter().filter(|message| **message != plugin.module_error).cloned();
    let warnings = plugin.warnings.iter().map(|warning| format!("warning: {warning}"));
    module.into_iter().chain(failure).chain(answers).chain(warnings).collect()
}

/// How long the module has been failing, and what comes next. Why is said elsewhere.
fn failure(failure: &ModuleFailure) -> String {
    let ModuleFailure { since, attempts, next_try, tried_again, .. } = failure;
    let times = if *attempts == 1 { format!("at {since}") } else { format!("{attempts} times since {since}") };
    let next = if next_try.is_empty() { tried_again.clone() } else { format!("at {next_try}") };
    format!("the module failed {times}; tried again {next}")
}

fn view(plugin: &Plugin) -> Value {
    let counts = plugin.counts.unwrap_or_default();
    let conditions: Vec<_> = plugin
        .conditions
        .iter()
        .map(|condition| {
            json!({
                "type": condition.r#type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
            })
        })
        .collect();
    json!({
        "id": plugin.id,
        "kind": plugin.kind,
        "namespace": plugin.namespace,
        "name": plugin.name,
        "url": plugin.url,
        "desiredRevision": plugin.desired_revision,
        "runningRevision": plugin.running_revision,
        "moduleDigest": plugin.module_digest,
        "imageDigest": plugin.image_digest,
        "moduleError": plugin.module_error,
        "moduleFailure": plugin.module_failure.as_ref().map(|failure| json!({
            "reason": failure.reason,
            "since": failure.since,
            "attempts": failure.attempts,
            "nextTry": Some(&failure.next_try).filter(|time| !time.is_empty()),
            "triedAgain": Some(&failure.tried_again).filter(|condition| !condition.is_empty()),
        })),
        "proxies": {
            "total": counts.total,
            "notLoaded": counts.not_loaded,
            "pending": counts.pending,
            "programmed": counts.programmed,
            "rejected": counts.rejected,
            "standIn": counts.stand_in,
            "unsupported": counts.unsupported,
        },
        "messages": plugin.messages,
        "warnings": plugin.warnings,
        "conditions": conditions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_plugin_is_warned_of_once_and_not_with_every_step() {
        let plugin = |programmed, warnings: &[&str]| Plugin {
            id: "shop/a".into(),
            running_revision: "r1".into(),
            counts: Some(Counts { total: 2, programmed, ..Counts::default() }),
            warnings: warnings.iter().map(|it| (*it).to_owned()).collect(),
            ..Plugin::default()
        };
        let mut told = Told::default();
        let steps = [plugin(0, &["w"]), plugin(1, &["w"]), plugin(2, &["w", "x"]), plugin(2, &[]), plugin(2, &["w"])];
        assert_eq!(
            steps.map(|plugin| told.news(&plugin)),
            [
                "shop/a r1: programmed on 0 of 2; warning: w",
                "shop/a r1: programmed on 1 of 2",
                "shop/a r1: programmed on 2 of 2; warning: x",
                "shop/a r1: programmed on 2 of 2",
                "shop/a r1: programmed on 2 of 2; warning: w",
            ]
        );
    }

    #[test]
    fn a_module_that_is_not_to_be_had_says_since_when_and_when_it_is_tried_again() {
        let failing = |attempts, next_try: &str, tried_again: &str| {
            failure(&ModuleFailure {
                reason: "GET http://m/a.wasm: 404 Not Found".into(),
                since: "2026-05-01T10:00:00Z".into(),
                attempts,
                next_try: next_try.into(),
                tried_again: tried_again.into(),
            })
        };
        assert_eq!(
            failing(3, "2026-05-01T10:05:00Z", ""),
            "the module failed 3 times since 2026-05-01T10:00:00Z; tried again at 2026-05-01T10:05:00Z"
        );
        assert_eq!(
            failing(1, "", "when the file changes"),
            "the module failed at 2026-05-01T10:00:00Z; tried again when the file changes"
        );
    }
}
