//! Whatever happens in whatever order, the client ends with the snapshot, and the session knows it.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const TYPES: [ResourceType; 5] = [Cluster, Endpoint, Listener, Route, ExtensionConfig];
const NAMES: [&str; 4] = ["a", "b", "c", "foreign"];
const DRAIN: Duration = Duration::from_secs(600);

/// One resource of a random snapshot: its type, name, version, and the resource that it uses.
type Sketch = (usize, usize, u8, usize, usize);

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<Sketch>),
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    Ack,
    Nack,
    Reconnect,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sketch = (0..TYPES.len(), 0..NAMES.len(), 1..4u8, 0..TYPES.len(), 0..NAMES.len());
    let step = prop_oneof![
        3 => prop::collection::vec(sketch, 0..12).prop_map(Step::Publish),
        2 => (0..TYPES.len(), 0..NAMES.len()).prop_map(|(of, name)| Step::Subscribe(of, name)),
        1 => (0..TYPES.len(), 0..NAMES.len()).prop_map(|(of, name)| Step::Unsubscribe(of, name)),
        6 => Just(Step::Ack),
        1 => Just(Step::Nack),
        1 => Just(Step::Reconnect),
        1 => (1..700u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a resource of that type may refer to.
fn uses(resource_type: ResourceType) -> &'static [ResourceType] {
    match resource_type {
        Cluster => &[Endpoint],
        Listener => &[Cluster, Route, ExtensionConfig],
        Route => &[Cluster],
        Endpoint | ExtensionConfig => &[],
    }
}

fn drawn(sketches: &[Sketch]) -> Snapshot {
    snapshot(sketches.iter().map(|&(of, name, version, used_type, used)| {
        let version = version.to_string();
        match TYPES[of] {
            ExtensionConfig if version == "3" => plugin(NAMES[name], &version),
            ExtensionConfig => plugin(NAMES[name], &version).with_stand_in(),
            other => match uses(other) {
                [] => resource(other, NAMES[name], &version),
                uses => {
                    let (used_type, used) = (uses[used_type % uses.len()], NAMES[used]);
                    let version = format!("{version} with {used_type:?} {used}");
                    resource(other, NAMES[name], &version).using(used_type, used)
                }
            },
        }
    }))
}

/// Names that the client refused, and has not been sent anything else for since it was asked for.
type Refused = BTreeSet<String>;

fn apply(step: &Step, client: &mut Client, refused: &mut Refused) {
    match step {
        Step::Publish(sketches) => client.publish(drawn(sketches)),
        Step::Subscribe(of, name) => client.subscribe(TYPES[*of], &[NAMES[*name]]),
        Step::Unsubscribe(of, name) => client.unsubscribe(TYPES[*of], &[NAMES[*name]]),
        Step::Ack if !client.inbox.is_empty() => client.ack(),
        Step::Nack if !client.inbox.is_empty() => {
            if client.inbox[0].resource_type == ExtensionConfig {
                refused.extend(client.inbox[0].resources.iter().map(|resource| resource.name.to_string()));
            }
            client.nack("no");
        }
        Step::Ack | Step::Nack => {}
        Step::Reconnect => {
            // Between an unsubscription and the next response, a state-of-the-world client's version counts what it
            // has forgotten: a weakness of the protocol.
            if client.session.protocol == Protocol::Sotw {
                client.settle();
            }
            client.reconnect();
        }
        Step::Wait(seconds) => client.wait(Duration::from_secs(*seconds)),
    }
}

/// Answers everything until nothing is due any more, now or later.
fn finish(client: &mut Client) {
    client.settle();
    // A listener, its route, the cluster of that, and its endpoints drain one after the other.
    for _ in 0..6 {
        client.wait(DRAIN);
        client.settle();
    }
}

fn expected(snapshot: &Snapshot, client: &Client, resource_type: ResourceType) -> BTreeMap<String, Version> {
    let side = client.side(resource_type);
    let covered = |name: &&String| side.is_wildcard || side.names.contains(*name);
    match snapshot.all(resource_type) {
        Some(all) => {
            let used = all.iter().filter(|(name, _)| covered(name));
            used.map(|(name, resource)| (name.clone(), resource.version.clone())).collect()
        }
        None => {
            let version = |name: &String| match snapshot.extensions.resolve(name)? {
                Extension::Known(resource) | Extension::PassThrough(resource) => Some(resource.version.clone()),
            };
            side.names.iter().filter_map(|name| Some((name.clone(), version(name)?))).collect()
        }
    }
}

fn held(client: &Client, resource_type: ResourceType) -> BTreeMap<String, Version> {
    let held = &client.side(resource_type).held;
    held.iter().map(|(name, resource)| (name.clone(), resource.version.clone())).collect()
}

/// After a refused set the session cannot know what was applied of it.
fn is_certain(client: &Client, resource_type: ResourceType, name: &str) -> bool {
    let accepted = client.session.types[&resource_type].held.get(name).and_then(|held| held.accepted.as_ref());
    accepted.is_none_or(|accepted| accepted.is_certain)
}

fn believed(client: &Client, resource_type: ResourceType) -> BTreeMap<String, Version> {
    let held = &client.session.types[&resource_type].held;
    let accepted =
        held.iter().filter_map(|(name, held)| Some((name.to_string(), held.accepted.as_ref()?.version.clone())));
    accepted.filter(|(name, _)| is_certain(client, resource_type, name)).collect()
}

fn opened(protocol: Protocol) -> Client {
    let mut client = Client::new(protocol);
    client.subscribe(Cluster, &[]);
    client.subscribe(Listener, &[]);
    for resource_type in [Endpoint, Route, ExtensionConfig] {
        client.subscribe(resource_type, &["a"]);
    }
    client
}

fn check(protocol: Protocol, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut client = opened(protocol);
    let mut refused = Refused::new();
    for step in steps {
        apply(step, &mut client, &mut refused);
    }
    finish(&mut client);

    for resource_type in TYPES {
        let mut held = held(&client, resource_type);
        held.retain(|name, _| is_certain(&client, resource_type, name));
        let believed = believed(&client, resource_type);
        if protocol == Protocol::Sotw && !client.side(resource_type).is_wildcard {
            // A client that came back with named resources that are gone has not said so.
            held.retain(|name, _| believed.contains_key(name));
        }
        prop_assert_eq!(believed, held, "{:?}", resource_type);
    }
    // The last word: nothing references anything any more, and every name has new content.
    let everything = NAMES.map(|name| TYPES.map(|resource_type| resource(resource_type, name, "last")));
    let last = snapshot(everything.into_iter().flatten());
    client.publish(last.clone());
    finish(&mut client);
    for resource_type in TYPES {
        let held = held(&client, resource_type);
        prop_assert_eq!(&held, &expected(&last, &client, resource_type), "{:?}", resource_type);
        prop_assert_eq!(&held, &believed(&client, resource_type), "{:?}", resource_type);
    }
    // Each step causes at most one response for each resource, and one more to come back from a refusal.
    let bound = 2 * (steps.len() + 10) * TYPES.len() * NAMES.len();
    prop_assert!(client.responses <= bound, "{} responses", client.responses);

    let before = client.responses;
    client.reconnect();
    client.settle();
    prop_assert_eq!(client.responses, before, "a reconnect with matching versions");
    Ok(())
}

/// A random snapshot at the end, with all that was not refused.
fn check_last(protocol: Protocol, steps: &[Step], sketches: &[Sketch]) -> Result<(), TestCaseError> {
    let mut client = opened(protocol);
    let mut refused = Refused::new();
    for step in steps {
        apply(step, &mut client, &mut refused);
    }
    let last = drawn(sketches);
    client.publish(last.clone());
    finish(&mut client);
    for resource_type in TYPES {
        let mut expected = expected(&last, &client, resource_type);
        let mut held = held(&client, resource_type);
        if resource_type == ExtensionConfig {
            // A name that our listener used keeps what it has; one that was refused may have its last good content.
            let keeps = |name: &String| refused.contains(name) || client.session.named.contains(name.as_str());
            expected.retain(|name, _| !keeps(name));
            held.retain(|name, _| !keeps(name));
        } else if resource_type != Listener {
            // What something uses stays, and in the state of the world a named one cannot be removed.
            let side = client.side(resource_type);
            let is_left = |name: &String| protocol == Protocol::Sotw && !side.is_wildcard && side.names.contains(name);
            held.retain(|name, _| {
                expected.contains_key(name) || !(is_left(name) || is_used(&client, resource_type, name))
            });
        }
        prop_assert_eq!(held, expected, "{:?}", resource_type);
    }
    Ok(())
}

/// Whether only the names that change are looked at, or all, is nothing that a client could tell.
fn check_changed(protocol: Protocol, steps: &[Step], is_by_digest: bool) -> Result<(), TestCaseError> {
    let (mut client, mut other) = (opened(protocol), opened(protocol));
    other.now = client.now;
    let drawn = |sketches: &[Sketch]| if is_by_digest { by_digest(drawn(sketches)) } else { drawn(sketches) };
    for client in [&mut client, &mut other].into_iter().filter(|_| is_by_digest) {
        client.subscribe(ExtensionConfig, &[STAGING]);
    }
    for step in steps {
        match step {
            Step::Publish(sketches) => {
                client.publish(drawn(sketches));
                other.publish(unaccounted(drawn(sketches)));
            }
            step => {
                apply(step, &mut client, &mut Refused::new());
                apply(step, &mut other, &mut Refused::new());
            }
        }
        prop_assert_eq!(client.received(), other.received());
        prop_assert_eq!(client.reported(), other.reported());
        prop_assert_eq!(&client.unanswered, &other.unanswered);
        prop_assert_eq!((client.wake_at, client.fell_back), (other.wake_at, other.fell_back));
    }
    Ok(())
}

/// The same with plugins that name modules by digest, each version another one.
fn by_digest(mut snapshot: Snapshot) -> Snapshot {
    let extensions = NAMES.iter().filter_map(|name| match snapshot.extensions.resolve(name)? {
        Extension::Known(known) => Some(plugin(name, known.version.as_str()).fetching(&[known.version.as_str()])),
        Extension::PassThrough(_) => None,
    });
    let extensions = extensions.map(|it| if it.version.as_str() == "3" { it } else { it.with_stand_in() });
    let known = extensions.map(|it| (it.name.to_string(), Arc::new(it))).collect();
    snapshot.extensions = Arc::new(Names(known));
    snapshot
}

fn is_used(client: &Client, resource_type: ResourceType, name: &str) -> bool {
    let all = client.session.types.values().flat_map(|state| state.accepted());
    all.flat_map(|resource| &resource.references)
        .any(|(used_type, used)| *used_type == resource_type && **used == *name)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn at_the_end_the_client_holds_the_snapshot_and_the_session_knows_it(steps in steps()) {
        for protocol in BOTH {
            check(protocol, &steps)?;
        }
    }

    #[test]
    fn the_same_is_sent_whether_all_names_are_looked_at_or_those_that_change(steps in steps()) {
        for protocol in BOTH {
            check_changed(protocol, &steps, false)?;
            check_changed(protocol, &steps, true)?;
        }
    }

    #[test]
    fn what_was_not_refused_arrives(
        steps in steps(),
        last in prop::collection::vec((0..TYPES.len(), 0..NAMES.len(), 1..4u8, 0..TYPES.len(), 0..NAMES.len()), 0..12),
    ) {
        for protocol in BOTH {
            check_last(protocol, &steps, &last)?;
        }
    }
}
