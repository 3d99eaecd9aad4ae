//! Plugins that move between the gaps of a listener, while the client is slow to answer: never a moment without one.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::xds::transfers::Transfer;

const GAPS: [&str; 3] = ["l/a", "l/b", "l/c"];
const PLUGINS: [&str; 3] = ["p", "q", "r"];

/// The revision in which `p` has a module by digest.
const FETCHED: u8 = 9;

/// The gap that each plugin stands in, and the revision that all of them have.
type Placement = ([usize; 3], u8);

/// Chains that can keep what leaves them, as compiled ones can.
#[derive(Debug)]
struct Placed(Placement);

impl Placed {
    fn chain(&self, name: &str, also: &[&str]) -> Resource {
        let Placed((gaps, revision)) = self;
        let stands_here = |index: &usize| GAPS[gaps[*index]] == name || also.contains(&PLUGINS[*index]);
        let plugins: Vec<_> = (0..PLUGINS.len()).filter(stands_here).map(|index| PLUGINS[index]).collect();
        let is_fetched = *revision == FETCHED && plugins.contains(&"p");
        chain(name, &format!("{revision} {plugins:?}"), &plugins).fetching(if is_fetched { &["one"] } else { &[] })
    }
}

impl Extensions for Placed {
    fn resolve(&self, name: &str) -> Option<Extension> {
        Some(Extension::Known(Arc::new(self.chain(name, &[]))))
    }

    fn changed(&self, now: &Arc<dyn Extensions>) -> Option<Arc<[Arc<str>]>> {
        Some(changed(GAPS, self, &**now))
    }

    fn resolve_with(&self, name: &str, leaving: &[&str]) -> Option<Arc<Resource>> {
        Some(Arc::new(self.chain(name, leaving)))
    }

    fn staged(&self, attempt: &Attempt) -> Option<Arc<Resource>> {
        Some(Arc::new(resource(ExtensionConfig, STAGING, &format!("#{}", attempt.number))))
    }
}

fn placed(gaps: [usize; 3], revision: u8) -> Snapshot {
    Snapshot { extensions: Arc::new(Placed((gaps, revision))), ..snapshot([]) }
}

fn running(client: &Client) -> BTreeMap<String, usize> {
    let mut running = BTreeMap::new();
    for part in client.side(ExtensionConfig).held.values().flat_map(|chain| chain.parts.iter()) {
        *running.entry(part.owner.to_string()).or_default() += 1;
    }
    running
}

fn settled(protocol: Protocol) -> Client {
    let mut client = Client::new(protocol);
    client.publish(placed([0, 1, 2], 0));
    client.subscribe(ExtensionConfig, &GAPS);
    client.settle();
    client
}

#[test]
fn a_plugin_that_moves_back_before_it_has_left_is_never_missing() {
    for protocol in BOTH {
        let mut client = settled(protocol);
        client.publish(placed([1, 1, 2], 1));
        client.ack(); // `p` has joined the second gap, and is on its way out of the first one.
        client.publish(placed([0, 1, 2], 2));
        while !client.inbox.is_empty() {
            client.ack();
            assert!(running(&client).contains_key("p"), "{:?}", client.received());
        }
        assert_eq!(running(&client), PLUGINS.map(|plugin| (plugin.to_owned(), 1)).into());
    }
}

#[test]
fn plugins_that_change_places_in_a_ring_wait_for_a_new_module_of_one_of_them() {
    for protocol in BOTH {
        let mut client = settled(protocol);
        client.subscribe(ExtensionConfig, &[STAGING]);
        client.settle();
        client.publish(placed([1, 2, 0], FETCHED));
        let (module, mut has_fetched) = (Digest::of(b"one"), false);
        for round in 0..30 {
            while let Some(response) = client.inbox.front() {
                let resource = response.resources.first().cloned();
                match resource {
                    Some(attempt) if attempt.version.as_str().starts_with('#') && !has_fetched => {
                        client.nack("Unable to create Wasm plugin p");
                    }
                    other => {
                        let is_miss = other.is_some_and(|it| !it.fetched.is_empty()) && !has_fetched;
                        assert!(!is_miss, "{protocol:?} a miss in the traffic's way: {:?}", client.received());
                        client.ack();
                    }
                }
                assert_eq!(running(&client).len(), PLUGINS.len(), "{:?}", client.received());
            }
            client.wait(Duration::from_millis(100));
            if round == 20 {
                has_fetched = true;
                let transfer = Transfer { began: 1, running: 0, whole: 1 };
                client.fetches(Arc::new(BTreeMap::from([(module, transfer)])));
            }
        }
        assert!(client.holds(ExtensionConfig).contains(r#"l/b@9 ["p"]"#), "{:?}", client.received());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_plugin_is_missing_for_a_moment_however_they_move(
        steps in prop::collection::vec(prop_oneof![
            2 => ([0..3usize, 0..3usize, 0..3usize], 1..4u8).prop_map(Some),
            3 => Just(None),
        ], 1..40),
    ) {
        for protocol in BOTH {
            let mut client = settled(protocol);
            for step in &steps {
                match step {
                    Some((gaps, revision)) => client.publish(placed(*gaps, *revision)),
                    None if !client.inbox.is_empty() => client.ack(),
                    None => {}
                }
                prop_assert_eq!(running(&client).len(), PLUGINS.len(), "{:?}", client.received());
            }
            client.settle();
            client.wait(Duration::from_secs(600));
            client.settle();
            prop_assert_eq!(running(&client), PLUGINS.map(|plugin| (plugin.to_owned(), 1)).into());
        }
    }

    #[test]
    fn plugins_move_the_same_way_whether_all_gaps_are_looked_at_or_those_that_change(
        steps in prop::collection::vec(prop_oneof![
            2 => ([0..3usize, 0..3usize, 0..3usize], 1..4u8).prop_map(Some),
            3 => Just(None),
        ], 1..40),
    ) {
        for protocol in BOTH {
            let (mut client, mut other) = (settled(protocol), settled(protocol));
            for step in &steps {
                match step {
                    Some((gaps, revision)) => {
                        client.publish(placed(*gaps, *revision));
                        other.publish(unaccounted(placed(*gaps, *revision)));
                    }
                    None if !client.inbox.is_empty() => {
                        client.ack();
                        other.ack();
                    }
                    None => {}
                }
                prop_assert_eq!(client.received(), other.received());
            }
        }
    }
}
