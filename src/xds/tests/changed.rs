//! A change costs what it changes: the names beside it are not looked at.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Names, and how often one of them was asked for.
#[derive(Clone, Debug)]
struct Counting {
    names: Arc<Names>,
    count: Arc<AtomicUsize>,
}

impl Extensions for Counting {
    fn resolve(&self, name: &str) -> Option<Extension> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.names.resolve(name)
    }

    fn changed(&self, now: &Arc<dyn Extensions>) -> Option<Arc<[Arc<str>]>> {
        self.names.changed(now)
    }
}

/// To find what changes: all plugins, and the name of attempts.
const ONCE_PER_KIND: usize = 101;

/// A hundred plugins, one of them edited, and how often one is looked up.
fn edited(edited: usize) -> (Snapshot, Arc<AtomicUsize>) {
    let version = |number| if number == edited { "2" } else { "1" };
    let plugins = (0..100).map(|number| Arc::new(plugin(&format!("p/{number}"), version(number))));
    let names = Names(plugins.map(|plugin| (plugin.name.to_string(), plugin)).collect());
    let count = Arc::new(AtomicUsize::new(0));
    let extensions = Arc::new(Counting { names: Arc::new(names), count: count.clone() });
    (Snapshot { extensions, ..snapshot([]) }, count)
}

/// Returns what it was sent, and how often something was looked up for that.
fn publish(client: &mut Client, snapshot: Snapshot, count: &AtomicUsize) -> (Vec<String>, usize) {
    client.received();
    client.publish(snapshot);
    client.settle();
    (client.received(), count.load(Ordering::Relaxed))
}

fn holding_all(protocol: Protocol) -> Client {
    let mut client = Client::new(protocol);
    client.publish(edited(100).0);
    let names: Vec<_> = (0..100).map(|number| format!("p/{number}")).collect();
    client.subscribe(ExtensionConfig, &names.iter().map(String::as_str).collect::<Vec<_>>());
    client.settle();
    client
}

#[test]
fn an_edit_of_one_of_a_hundred_plugins_has_only_that_one_looked_at() {
    for protocol in BOTH {
        let mut client = holding_all(protocol);
        let (snapshot, count) = edited(7);
        let (received, looks) = publish(&mut client, snapshot, &count);
        assert_eq!(received, ["ecds p/7@2"], "{protocol:?}");
        assert_eq!(looks, ONCE_PER_KIND + 1, "{protocol:?}");
    }
}

#[test]
fn a_name_that_is_nothing_any_more_has_all_looked_at_until_the_client_lets_go_of_it() {
    for protocol in BOTH {
        let mut client = holding_all(protocol);
        client.subscribe(ExtensionConfig, &["p/gone"]);
        client.settle();
        let (snapshot, count) = edited(7);
        assert_eq!(publish(&mut client, snapshot, &count), (vec!["ecds p/7@2".to_owned()], 101), "{protocol:?}");
        client.unsubscribe(ExtensionConfig, &["p/gone"]);
        client.settle();
        let (snapshot, count) = edited(8);
        let (_, looks) = publish(&mut client, snapshot, &count);
        assert_eq!(looks, ONCE_PER_KIND + 2, "{protocol:?}");
    }
}
