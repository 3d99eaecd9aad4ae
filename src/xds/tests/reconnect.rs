//! A client that comes back to a new session, as after a restart of the control plane.

use std::time::Duration;

use super::*;

const DRAIN: Duration = Duration::from_secs(600);

fn all() -> Vec<Resource> {
    let l = listener("l", "1").using(Cluster, "c").using(ExtensionConfig, "p");
    vec![cluster("c", "1"), l, route("r", "1"), plugin("p", "1"), plugin("q", "1")]
}

fn settled(protocol: Protocol) -> Client {
    let mut client = Client::new(protocol);
    client.publish(snapshot(all()));
    client.subscribe(Cluster, &[]);
    client.subscribe(Listener, &[]);
    client.subscribe(Route, &["r"]);
    client.subscribe(ExtensionConfig, &["p", "q"]);
    client.settle();
    client.received();
    client.reported();
    client
}

#[test]
fn matching_versions_cost_no_bytes_and_are_reported_as_accepted() {
    for protocol in BOTH {
        let mut client = settled(protocol);
        client.reconnect(); // S13, S14, D11, section 7
        assert_eq!(client.received(), [""; 0]);
        assert_eq!(client.reported(), ["c@1", "p@1", "q@1", "l@1", "r@1"]);
        client.publish(snapshot(all()));
        assert_eq!((client.received(), client.reported()), (vec![], vec![]));
    }
}

#[test]
fn what_was_recognised_has_bytes_to_roll_back_to() {
    for protocol in BOTH {
        let mut client = settled(protocol);
        client.reconnect();
        client.publish(snapshot(all().into_iter().chain([plugin("p", "2")])));
        client.nack("bad");
        client.settle();
        assert_eq!(client.received(), ["ecds p@2", "ecds p@1"]);
    }
}

#[test]
fn in_delta_only_the_difference_is_sent() {
    let mut client = settled(Protocol::Delta);
    client.publish(snapshot(all()));
    client.session = Client::new(Protocol::Delta).session; // Away while this changes:
    client.publish(snapshot(all().into_iter().chain([cluster("d", "1"), plugin("q", "2")])));
    client.reconnect(); // D9
    client.settle();
    assert_eq!(client.received(), ["cds d@1", "ecds q@2"]);
}

#[test]
fn in_the_state_of_the_world_a_different_version_brings_everything_of_the_type() {
    let mut client = settled(Protocol::Sotw);
    client.session = Client::new(Protocol::Sotw).session;
    client.publish(snapshot(all().into_iter().chain([plugin("q", "2")])));
    client.reconnect(); // S13
    client.settle();
    assert_eq!(client.received(), ["ecds p@1", "ecds q@2"]);
}

#[test]
fn a_set_that_has_become_empty_is_said_to_be_empty() {
    for (protocol, expected) in [(Protocol::Sotw, "lds"), (Protocol::Delta, "lds -l")] {
        let mut client = Client::new(protocol);
        client.publish(snapshot([listener("l", "1")]));
        client.subscribe(Listener, &[]);
        client.settle();
        client.received();
        client.session = Client::new(protocol).session;
        client.publish(snapshot([]));
        client.reconnect(); // S14, D10
        client.settle();
        assert_eq!(client.received(), [expected]);
    }
}

#[test]
fn a_cluster_that_is_gone_stays_until_the_listeners_have_drained() {
    let mut client = settled(Protocol::Delta);
    client.session = Client::new(Protocol::Delta).session;
    client.publish(snapshot([listener("l", "2"), route("r", "1"), plugin("p", "1"), plugin("q", "1")]));
    client.reconnect(); // rule 2, D10
    client.settle();
    assert_eq!(client.received(), ["lds l@2"]);
    client.wait(DRAIN);
    assert_eq!(client.received(), ["cds -c"]);
}

#[test]
fn a_cluster_that_is_gone_does_not_stay_for_a_client_without_listeners() {
    let mut client = Client::new(Protocol::Delta);
    client.publish(snapshot([cluster("c", "1")]));
    client.subscribe(Cluster, &[]);
    client.settle();
    client.received();
    client.session = Client::new(Protocol::Delta).session;
    client.publish(snapshot([]));
    client.reconnect();
    client.wait(Duration::from_secs(1));
    assert_eq!(client.received(), ["cds -c"]); // D10
}

#[test]
fn an_extension_that_is_gone_stays_for_what_may_still_drain_through_it() {
    let mut client = settled(Protocol::Delta);
    client.session = Client::new(Protocol::Delta).session;
    client.publish(snapshot(all().into_iter().filter(|resource| &*resource.name != "q")));
    client.reconnect(); // rules 2 and 7
    client.wait(DRAIN - Duration::from_secs(1));
    assert_eq!(client.received(), [""; 0]);
    client.wait(Duration::from_secs(1));
    assert_eq!(client.received(), ["ecds q@pass"]);
}

#[test]
fn an_extension_that_is_gone_does_not_stay_for_a_client_without_listeners() {
    let mut client = Client::new(Protocol::Delta);
    client.publish(snapshot([plugin("q", "1")]));
    client.subscribe(ExtensionConfig, &["q"]);
    client.settle();
    client.session = Client::new(Protocol::Delta).session;
    client.publish(snapshot([]));
    client.reconnect(); // rule 7, section 1.4
    client.wait(Duration::from_secs(1));
    assert_eq!(client.received()[1..], ["ecds q@pass"]);
}

#[test]
fn a_client_that_comes_back_before_the_sources_are_loaded_is_recognised_later() {
    for protocol in BOTH {
        let mut client = settled(protocol);
        client.unpublish();
        client.reconnect(); // S34, rule 9
        assert_eq!((client.received(), client.reported()), (vec![], vec![]));
        client.publish(snapshot(all()));
        assert_eq!(client.received(), [""; 0]);
        assert_eq!(client.reported(), ["l@1", "c@1", "p@1", "q@1", "r@1"]);
    }
}

#[test]
fn bytes_that_this_process_never_saw_are_put_back_as_soon_as_it_has_them() {
    let mut client = settled(Protocol::Delta);
    client.session = Client::new(Protocol::Delta).session;
    client.publish(snapshot(all().into_iter().chain([plugin("p", "2")])));
    client.reconnect();
    client.nack("bad");
    client.publish(snapshot(all())); // Envoy's last received content is the bad one (lab, rv6): rule 12.
    client.settle();
    assert_eq!(client.received(), ["ecds p@2", "ecds p@1"]);
}

#[test]
fn an_envoy_that_comes_back_keeps_what_it_has_while_a_plugin_of_it_is_not_to_be_had() {
    for protocol in BOTH {
        let whole = |version| chain("c", version, &["auth", "b"]);
        let partial = |version| chain("c", version, &["b"]).partial();
        let l = |version| listener("l", version).using(ExtensionConfig, "c");
        let mut client = Client::new(protocol);
        client.publish(snapshot([l("1"), whole("1")]));
        client.subscribe(Listener, &[]);
        client.subscribe(ExtensionConfig, &["c"]);
        client.settle();
        client.received();
        client.unpublish();
        client.reconnect();
        client.publish(snapshot([l("1"), partial("2")]));
        client.publish(snapshot([l("1"), partial("3")]));
        client.settle();
        assert_eq!(client.holds(ExtensionConfig), "c@1", "{protocol:?}");
        client.publish(snapshot([l("1"), whole("4")]));
        client.settle();
        assert_eq!(client.holds(ExtensionConfig), "c@4", "{protocol:?}");
        // What is known to lack it may go on without it.
        client.publish(snapshot([l("1"), partial("5")]));
        client.settle();
        assert_eq!(client.holds(ExtensionConfig), "c@5", "{protocol:?}");
    }
}

/// Came back with `l@1` to a control plane that lacks a part of `l@2`.
fn back_to_a_partial_listener(protocol: Protocol) -> Client {
    let mut client = Client::new(protocol);
    client.publish(snapshot([listener("l", "1")]));
    client.subscribe(Listener, &[]);
    client.settle();
    client.unpublish();
    client.reconnect();
    client.publish(snapshot([listener("l", "2").partial()]));
    client.settle();
    assert_eq!(client.holds(Listener), "l@1", "{protocol:?}");
    client
}

#[test]
fn an_envoy_that_comes_back_keeps_a_listener_whose_filter_is_not_to_be_had() {
    for protocol in BOTH {
        let mut client = back_to_a_partial_listener(protocol);
        client.publish(snapshot([listener("l", "3")]));
        client.settle();
        assert_eq!(client.holds(Listener), "l@3", "{protocol:?}");
    }
}

#[test]
fn a_listener_that_was_kept_for_a_filter_is_replaced_when_the_plugin_is_deleted() {
    for protocol in BOTH {
        let mut client = back_to_a_partial_listener(protocol);
        // The same content, and now it is all that there is to be.
        client.publish(snapshot([listener("l", "2")]));
        client.settle();
        assert_eq!(client.holds(Listener), "l@2", "{protocol:?}");
    }
}
