//! Modules by digest: fetched under a name of their own before anything in the traffic's way names them (design, section
//! 5, rules 13 and 14). A star marks a resource that names modules by digest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::xds::transfers::Transfer;

const MOMENT: Duration = Duration::from_millis(50);

/// An Envoy that keeps what it has fetched.
struct Envoy {
    client: Client,
    cache: BTreeSet<String>,
    transfers: BTreeMap<Digest, Transfer>,
    /// Its requests reach the module server.
    has_server: bool,
    /// What the module server has sent is on its way for long.
    is_far: bool,
    /// Modules whose plugin says no to its configuration.
    faulty: BTreeSet<String>,
    /// ECDS names that its listeners make it ask for.
    asks_for: Vec<&'static str>,
}

/// How a module's digest begins.
fn short(module: &str) -> String {
    format!("{:.4}", Digest::of(module.as_bytes()).to_string())
}

impl Envoy {
    fn new(client: Client) -> Self {
        Self {
            client,
            cache: BTreeSet::new(),
            transfers: BTreeMap::new(),
            has_server: true,
            is_far: false,
            faulty: BTreeSet::new(),
            asks_for: Vec::new(),
        }
    }

    /// Settled on `p@1` without modules, with the staging listener in its bootstrap.
    fn settled(protocol: Protocol) -> Self {
        let mut client = Client::new(protocol);
        client.publish(snapshot([listener("l", "1").using(ExtensionConfig, "p"), plugin("p", "1")]));
        client.subscribe(ExtensionConfig, &[STAGING]);
        client.subscribe(Listener, &[]);
        client.subscribe(ExtensionConfig, &["p"]);
        client.settle();
        client.received();
        client.reported();
        Self::new(client)
    }

    fn edit(&mut self, version: &str, modules: &[&str]) {
        let p = plugin("p", version).fetching(modules).with_stand_in();
        self.client.publish(snapshot([listener("l", "1").using(ExtensionConfig, "p"), p]));
    }

    /// Answers as an Envoy does, until nothing comes any more; what it was sent.
    fn play(&mut self) -> Vec<String> {
        for _ in 0..200 {
            let Some(response) = self.client.inbox.front() else { return self.client.received() };
            if response.resource_type == Listener && !self.asks_for.is_empty() {
                // Before it acknowledges.
                let names = std::mem::take(&mut self.asks_for);
                self.client.subscribe(ExtensionConfig, &names);
            }
            let Some(response) = self.client.inbox.front() else { unreachable!("it was not answered") };
            let version = response.resources.first().map(|resource| (resource.name.clone(), resource.version.clone()));
            let attempt = version.as_ref().filter(|(name, _)| &**name == STAGING);
            match attempt.and_then(|(_, version)| version.as_str().split_once('#')) {
                Some((digest, _)) => self.attempt(&digest.to_owned()),
                None => {
                    let fetched: Vec<_> = response.resources.iter().flat_map(|it| it.fetched.iter()).collect();
                    let is_in = |modules: &BTreeSet<String>, digest: &Digest| {
                        modules.contains(&format!("{:.4}", digest.to_string()))
                    };
                    assert!(
                        fetched.iter().all(|it| is_in(&self.cache, it)),
                        "a miss in the traffic's way: {version:?}"
                    );
                    match fetched.iter().any(|it| is_in(&self.faulty, it)) {
                        true => self.client.nack("no"),
                        false => self.client.ack(),
                    }
                }
            }
        }
        panic!("responses without end: {:?}", self.client.received());
    }

    fn attempt(&mut self, digest: &String) {
        if self.cache.contains(digest) && !self.faulty.contains(digest) {
            return self.client.ack();
        }
        self.client.nack("Unable to create Wasm plugin p");
        if self.has_server && (self.is_far || self.cache.insert(digest.clone())) {
            self.answer(digest);
        }
    }

    /// The module server answers a request for this module.
    fn answer(&mut self, digest: &str) {
        let modules = ["one", "two", "three", "four"].map(|module| Digest::of(module.as_bytes()));
        let whole = modules.into_iter().find(|it| it.to_string().starts_with(digest)).expect("a module of the tests");
        let transfer = self.transfers.entry(whole).or_default();
        (transfer.began, transfer.whole) = (transfer.began + 1, transfer.whole + 1);
        self.client.fetches(Arc::new(self.transfers.clone()));
    }

    fn wait(&mut self, duration: Duration) -> Vec<String> {
        self.client.wait(duration);
        self.play()
    }
}

fn staging(version: &str) -> String {
    format!("ecds {STAGING}@{version}")
}

#[test]
fn an_edit_waits_until_its_module_is_held_and_the_next_one_does_not() {
    for protocol in BOTH {
        let mut envoy = Envoy::settled(protocol);
        envoy.edit("2", &["one"]);
        let one = short("one");
        assert_eq!(envoy.play()[..2], [staging(&format!("{one}#1")), staging("nothing")]);
        let taken_over = [staging(&format!("{one}#2")), "ecds p@2*".into(), staging("nothing")];
        assert_eq!(envoy.wait(MOMENT), taken_over, "{protocol:?}");
        envoy.edit("3", &["one"]);
        assert_eq!(envoy.play(), ["ecds p@3*"]);
        assert_eq!(envoy.client.reported(), ["p@2", "p@3"], "nobody is told of a miss");
    }
}

#[test]
fn an_envoy_that_starts_gets_its_listeners_when_it_holds_their_modules() {
    for protocol in BOTH {
        let mut client = Client::new(protocol);
        let p = plugin("p", "1").fetching(&["one", "two"]);
        client.publish(snapshot([listener("l", "1").using(ExtensionConfig, "p"), p]));
        client.subscribe(ExtensionConfig, &[STAGING]);
        client.subscribe(Listener, &[]);
        let mut envoy = Envoy::new(client);
        envoy.asks_for = vec!["p"];
        assert!(envoy.play().iter().all(|it| it.starts_with("ecds")));
        let received = envoy.wait(MOMENT);
        let begun = received.iter().position(|it| it == "lds l@1").expect("it holds all modules");
        assert!(received[..begun].iter().all(|it| it.contains(STAGING)), "{protocol:?} {received:?}");
        assert_eq!(received[begun + 1..], ["ecds p@1*".to_owned(), staging("nothing")], "{protocol:?}");
    }
}

#[test]
fn an_envoy_without_the_listener_in_its_bootstrap_starts_inline_and_is_moved_over() {
    for protocol in BOTH {
        let mut client = Client::new(protocol);
        let l = || listener("l", "1").using(ExtensionConfig, "p");
        let staged = || listener(STAGING, "1").using(ExtensionConfig, STAGING);
        client.publish(snapshot([l(), staged(), plugin("p", "1").fetching(&["one"])]));
        client.subscribe(Listener, &[]);
        client.subscribe(ExtensionConfig, &["p", STAGING]);
        let mut envoy = Envoy::new(client);
        let received = envoy.play();
        assert_eq!(received[..3], [format!("lds l@1 {STAGING}@1"), staging("nothing"), "ecds p@1".into()]);
        // When nothing warms any more; what the traffic runs is not sent again.
        assert_eq!(received[3], staging(&format!("{}#1", short("one"))));
        let received = envoy.wait(MOMENT);
        assert_eq!(received, [staging(&format!("{}#2", short("one"))), staging("nothing")]);
        envoy.client.publish(snapshot([l(), staged(), plugin("p", "2").fetching(&["one"])]));
        assert_eq!(envoy.play(), ["ecds p@2*"]);
    }
}

#[test]
fn a_proxy_whose_fetch_never_comes_gets_its_module_inline_within_ten_seconds() {
    for protocol in BOTH {
        let mut envoy = Envoy::settled(protocol);
        envoy.has_server = false;
        envoy.edit("2", &["one"]);
        envoy.play();
        for _ in 0..99 {
            assert_eq!(envoy.client.fell_back, None);
            envoy.wait(Duration::from_millis(100));
        }
        let received = envoy.wait(Duration::from_secs(1));
        assert_eq!(received.last(), Some(&"ecds p@2".to_owned()), "{protocol:?}");
        assert!(envoy.client.fell_back.is_some_and(|reason| reason.starts_with("the proxy did not ask")));
        envoy.edit("3", &["two"]);
        assert_eq!(envoy.play(), ["ecds p@3"]);
    }
}

#[test]
fn a_plugin_too_large_to_travel_inline_goes_on_while_the_module_server_is_out_of_reach() {
    for protocol in BOTH {
        let mut envoy = Envoy::settled(protocol);
        let publish = |envoy: &mut Envoy, chain: Resource| {
            envoy.client.publish(snapshot([listener("l", "1").using(ExtensionConfig, "p"), chain]));
        };
        publish(&mut envoy, chain("p", "2", &["large"]).fetching(&["one"]));
        envoy.play();
        envoy.wait(MOMENT);
        envoy.has_server = false;
        publish(&mut envoy, chain("p", "3", &["large", "new"]).fetching(&["one", "two"]));
        envoy.play();
        for _ in 0..60 {
            let received = envoy.wait(Duration::from_secs(1));
            assert!(received.iter().all(|it| it.contains(STAGING) || it == "ecds"), "{protocol:?} {received:?}");
        }
        assert!(envoy.client.stuck.starts_with("the proxy did not ask"), "{}", envoy.client.stuck);
        envoy.has_server = true;
        let mut received = Vec::new();
        for _ in 0..60 {
            received.extend(envoy.wait(Duration::from_secs(1)));
        }
        assert!(received.contains(&"ecds p@3*".to_owned()), "{protocol:?} {received:?}");
        assert_eq!((envoy.client.fell_back, envoy.client.stuck), (None, ""));
    }
}

#[test]
fn a_module_that_another_replica_served_is_held_all_the_same() {
    for protocol in BOTH {
        let mut envoy = Envoy::settled(protocol);
        envoy.has_server = false;
        envoy.edit("2", &["one"]);
        envoy.play();
        envoy.cache.insert(short("one"));
        let received = envoy.wait(Duration::from_millis(300));
        assert_eq!(received[1], "ecds p@2*", "{protocol:?}");
        assert_eq!(envoy.client.fell_back, None);
    }
}

#[test]
fn a_transfer_that_takes_long_is_waited_for() {
    let mut envoy = Envoy::settled(Protocol::Delta);
    envoy.has_server = false;
    envoy.edit("2", &["one"]);
    envoy.play();
    let digest = Digest::of(b"one");
    envoy.client.fetches(Arc::new(BTreeMap::from([(digest, Transfer { began: 1, running: 1, whole: 0 })])));
    assert_eq!(envoy.wait(Duration::from_secs(300)), [] as [&str; 0]);
    envoy.cache.insert(short("one"));
    envoy.client.fetches(Arc::new(BTreeMap::from([(digest, Transfer { began: 1, running: 0, whole: 1 })])));
    assert_eq!(envoy.wait(MOMENT)[1], "ecds p@2*");
}

#[test]
fn a_module_on_a_slow_line_is_waited_for_and_is_not_sent_again_and_again() {
    for protocol in BOTH {
        let mut envoy = Envoy::settled(protocol);
        envoy.is_far = true;
        envoy.edit("2", &["one"]);
        envoy.play();
        for _ in 0..200 {
            envoy.wait(Duration::from_millis(100));
        }
        let Transfer { began, .. } = envoy.transfers[&Digest::of(b"one")];
        assert!((envoy.client.fell_back, began <= 6) == (None, true), "{:?} {began}", envoy.client.fell_back);
        envoy.cache.insert(short("one"));
        let received: Vec<_> = (0..20).flat_map(|_| envoy.wait(Duration::from_secs(1))).collect();
        assert!(received.contains(&"ecds p@2*".to_owned()), "{protocol:?} {received:?}");
    }
}

#[test]
fn a_module_that_is_never_kept_travels_inline_in_the_end() {
    for protocol in BOTH {
        let mut envoy = Envoy::settled(protocol);
        envoy.is_far = true;
        envoy.edit("2", &["one"]);
        envoy.play();
        let received: Vec<_> = (0..120).flat_map(|_| envoy.wait(Duration::from_secs(1))).collect();
        assert_eq!(received.last(), Some(&"ecds p@2".to_owned()), "{protocol:?}");
        assert!(envoy.client.fell_back.is_some_and(|reason| reason.contains("did not keep it")));
    }
}

/// Runs `p@2*`, whose module it has shown to hold half a day ago.
fn half_a_day_later(protocol: Protocol) -> Envoy {
    let mut envoy = Envoy::settled(protocol);
    envoy.edit("2", &["one"]);
    envoy.play();
    envoy.wait(MOMENT);
    envoy.client.reported();
    envoy.client.wait(Duration::from_secs(13 * 3600));
    envoy
}

#[test]
fn a_good_edit_after_half_a_day_is_not_refused_as_another_replica_serves_its_module() {
    for protocol in BOTH {
        let mut envoy = half_a_day_later(protocol);
        envoy.cache.clear();
        envoy.has_server = false;
        envoy.edit("3", &["one"]);
        // A module in the traffic's way that is not held fails the test.
        envoy.play();
        envoy.wait(Duration::from_secs(2));
        envoy.cache.insert(short("one"));
        let received: Vec<_> = (0..10).flat_map(|_| envoy.wait(Duration::from_secs(1))).collect();
        assert!(received.contains(&"ecds p@3*".to_owned()), "{protocol:?} {received:?}");
        assert_eq!((envoy.client.fell_back, envoy.client.reported()), (None, vec!["p@3".to_owned()]));
    }
}

#[test]
fn a_module_that_goes_inline_half_a_day_after_its_proof_is_fetched_again() {
    let mut envoy = half_a_day_later(Protocol::Delta);
    envoy.client.subscribe(ExtensionConfig, &["p"]);
    let fetched = [staging(&format!("{}#3", short("one"))), staging("nothing")];
    assert_eq!(envoy.play(), [vec!["ecds p@2".to_owned()], fetched.into()].concat());
}

#[test]
fn a_bad_edit_after_half_a_day_is_refused_when_it_was_tried_twice() {
    for protocol in BOTH {
        let Envoy { mut client, .. } = half_a_day_later(protocol);
        let p = plugin("p", "3").fetching(&["one"]).with_stand_in();
        client.publish(snapshot([listener("l", "1").using(ExtensionConfig, "p"), p]));
        for _ in 0..60 {
            while let Some(response) = client.inbox.front() {
                let is_bad = |it: &Arc<Resource>| it.version.as_str() == "3" || it.version.as_str().contains('#');
                match response.resources.iter().any(is_bad) {
                    // It is held, so that nothing is fetched.
                    true => client.nack("no"),
                    false => client.ack(),
                }
            }
            client.wait(Duration::from_secs(1));
        }
        let received = client.received();
        let traffic: Vec<_> = received.iter().filter(|it| !it.contains(STAGING) && *it != "ecds").collect();
        assert_eq!(traffic, ["ecds p@3*", "ecds p@2*", "ecds p@3*", "ecds p@2*"], "{protocol:?}: {received:?}");
        let reported = client.reported();
        assert_eq!(reported.iter().filter(|it| *it == "p@3: no").count(), 1, "{reported:?}");
        assert_eq!(client.fell_back, None);
    }
}

#[test]
fn a_plugin_that_says_no_is_refused_under_the_traffics_name_and_once() {
    for protocol in BOTH {
        let mut envoy = Envoy::settled(protocol);
        envoy.faulty.insert(short("one"));
        envoy.edit("2", &["one"]);
        envoy.play();
        let mut received = Vec::new();
        for _ in 0..20 {
            received.extend(envoy.wait(Duration::from_millis(500)));
        }
        received.extend(envoy.wait(Duration::from_secs(1000)));
        let traffic: Vec<_> = received.iter().filter(|it| !it.contains(STAGING) && *it != "ecds").collect();
        assert_eq!(traffic, ["ecds p@2*", "ecds p@1"], "{protocol:?}: {received:?}");
        assert_eq!(envoy.client.reported(), ["p@2: no", "p@1"]);
        assert_eq!(envoy.client.fell_back, None);
    }
}

#[test]
fn a_refusal_long_after_the_proof_is_tried_once_more_before_it_counts() {
    let mut envoy = Envoy::settled(Protocol::Delta);
    envoy.edit("2", &["one"]);
    envoy.play();
    envoy.wait(MOMENT);
    envoy.client.reported();
    envoy.client.wait(Duration::from_secs(3600));
    envoy.edit("3", &["one"]);
    // The code cache has lost it, whatever the reason.
    envoy.cache.clear();
    assert_eq!(envoy.client.received(), ["ecds p@3*"]);
    envoy.client.nack("Unable to create Wasm plugin p");
    assert_eq!(envoy.client.reported(), [] as [&str; 0]);
    let mut received = envoy.client.received();
    assert_eq!(received[0], "ecds p@2*", "what it runs, so that the same bytes are news again");
    envoy.client.ack();
    received = envoy.play();
    received.extend(envoy.wait(MOMENT));
    assert!(received.contains(&"ecds p@3*".to_owned()), "{received:?}");
    assert_eq!(envoy.client.reported(), ["p@2", "p@3"]);
}

#[test]
fn nothing_is_fetched_while_a_listener_warms() {
    let mut envoy = Envoy::settled(Protocol::Delta);
    let l = || listener("l", "1").using(ExtensionConfig, "p");
    let m = || listener("m", "1").using(ExtensionConfig, "q");
    let resources = |p| snapshot([l(), m(), p, plugin("q", "1")]);
    envoy.client.publish(resources(plugin("p", "1")));
    envoy.client.subscribe(ExtensionConfig, &["q"]);
    assert_eq!(envoy.client.received(), ["lds m@1", "ecds q@1"]);
    envoy.client.publish(resources(plugin("p", "2").fetching(&["one"])));
    envoy.client.ack();
    assert_eq!(envoy.client.received(), [] as [&str; 0], "m waits for q");
    envoy.client.ack();
    assert_eq!(envoy.client.received(), [staging(&format!("{}#1", short("one")))]);
}

#[test]
fn an_envoy_that_never_asks_for_the_staging_name_gets_modules_inline() {
    // Listeners of its own bootstrap, and no LDS.
    let mut client = Client::new(Protocol::Delta);
    client.publish(snapshot([plugin("p", "1").fetching(&["one"])]));
    client.subscribe(ExtensionConfig, &["p"]);
    assert_eq!(client.received(), ["ecds p@1"]);
    client.settle();
    client.wait(Duration::from_secs(2));
    assert!(client.fell_back.is_some_and(|reason| reason.contains("wasmplane/staging")));
    client.publish(snapshot([plugin("p", "2").fetching(&["one"])]));
    assert_eq!(client.received(), ["ecds p@2"]);
}

#[test]
fn a_separate_ecds_stream_of_a_proxy_that_fetches_gets_its_modules_inside_and_gives_nothing_up() {
    for protocol in BOTH {
        let mut client = Client::new(protocol);
        client.session.stay_inline();
        let publish = |client: &mut Client, version: &str| {
            client.publish(snapshot([plugin("p", version).fetching(&["one"]).with_stand_in()]));
        };
        publish(&mut client, "1");
        client.subscribe(ExtensionConfig, &["p"]);
        client.settle();
        publish(&mut client, "2");
        client.nack("no");
        client.settle();
        client.wait(Duration::from_secs(60));
        assert_eq!(client.received(), ["ecds p@1", "ecds p@2", "ecds p@1"], "{protocol:?}");
        assert_eq!(client.reported(), ["p@1", "p@2: no", "p@1"]);
        assert_eq!(client.fell_back, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// [`Envoy::play`] fails on a module in the traffic's way that is not held.
    #[test]
    fn whatever_is_edited_no_module_is_missing_in_the_traffics_way(
        edits in prop::collection::vec((0..4usize, 0..4usize, 0..3u8, 0..2000u64), 1..20),
    ) {
        let modules = ["one", "two", "three", "four"];
        for protocol in BOTH {
            let mut envoy = Envoy::settled(protocol);
            for (number, (one, other, event, millis)) in edits.iter().enumerate() {
                let version = format!("{}", number + 2);
                let listeners = [listener("l", &version).using(ExtensionConfig, "p")];
                let p = plugin("p", &version).fetching(&[modules[*one], modules[*other]]).with_stand_in();
                match event {
                    0 => envoy.edit(&version, &[modules[*one]]),
                    1 => envoy.client.publish(snapshot(listeners.into_iter().chain([p]))),
                    _ => {
                        envoy.play();
                        envoy.client.reconnect();
                    }
                }
                envoy.client.wait(Duration::from_millis(*millis));
                if millis % 2 == 0 {
                    envoy.play();
                }
            }
            envoy.play();
            envoy.edit("last", &["one"]);
            envoy.play();
            for _ in 0..20 {
                envoy.wait(Duration::from_secs(1));
            }
            prop_assert_eq!(envoy.client.fell_back, None);
            prop_assert_eq!(envoy.client.holds(ExtensionConfig), format!("p@last {STAGING}@nothing"), "{:?}", protocol);
        }
    }
}

#[test]
fn a_client_that_comes_back_with_its_modules_is_sent_nothing() {
    for protocol in BOTH {
        let mut envoy = Envoy::settled(protocol);
        envoy.edit("2", &["one"]);
        for _ in 0..4 {
            envoy.play();
            envoy.client.wait(MOMENT);
        }
        assert_eq!(envoy.client.holds(ExtensionConfig), format!("p@2 {STAGING}@nothing"), "{protocol:?}");
        envoy.client.received();
        envoy.client.reconnect();
        assert_eq!(envoy.play(), [""; 0], "{protocol:?}");
    }
}
