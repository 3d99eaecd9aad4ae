//! The order in which a change reaches a client without harm (design, section 5, rules 2, 3, 11, 12).

use std::time::Duration;

use super::*;
use crate::xds::Proofs;

const DRAIN: Duration = Duration::from_secs(600);
const MOMENT: Duration = Duration::from_secs(1);

/// A client of everything that the listener `l` may use, settled on these resources.
fn settled(protocol: Protocol, names: &[&str], resources: impl IntoIterator<Item = Resource>) -> Client {
    let mut client = Client::new(protocol);
    client.publish(snapshot(resources));
    client.subscribe(Cluster, &[]);
    client.subscribe(Listener, &[]);
    client.subscribe(ExtensionConfig, names);
    client.settle();
    client.received();
    client.reported();
    client
}

/// Proofs that another client of the fleet has given for these resources.
fn proven(resources: impl IntoIterator<Item = Resource>) -> Arc<Proofs> {
    let proofs = Proofs::default();
    resources.into_iter().for_each(|resource| proofs.record(None, &resource));
    Arc::new(proofs)
}

#[test]
fn a_listener_follows_its_new_cluster_and_the_clusters_ack() {
    for protocol in BOTH {
        let mut client = settled(protocol, &["p"], [listener("l", "1")]);
        client.publish(snapshot([listener("l", "2").using(Cluster, "c"), cluster("c", "1")])); // S28, rule 2
        assert_eq!(client.received(), ["cds c@1"]);
        client.ack();
        assert_eq!(client.received(), ["lds l@2"]);
    }
}

#[test]
fn a_listener_that_only_leaves_waits_for_nothing() {
    for (protocol, expected) in [(Protocol::Sotw, "lds"), (Protocol::Delta, "lds -l")] {
        let mut client = settled(protocol, &["p"], [listener("l", "1")]);
        client.publish(snapshot([cluster("c", "1")]));
        assert_eq!(client.received(), ["cds c@1", expected]);
    }
}

#[test]
fn at_the_start_extensions_do_not_wait_for_the_listeners_ack() {
    for protocol in BOTH {
        let mut client = Client::new(protocol);
        client.publish(snapshot([listener("l", "1").using(ExtensionConfig, "p"), plugin("p", "1")]));
        client.subscribe(Listener, &[]);
        client.subscribe(ExtensionConfig, &["p"]); // D27
        assert_eq!(client.received(), ["lds l@1", "ecds p@1"]);
    }
}

#[test]
fn the_next_content_of_a_name_waits_for_the_answer_and_skips_what_was_between() {
    for protocol in BOTH {
        let mut client = settled(protocol, &["p"], [plugin("p", "1")]);
        for version in ["2", "3", "4"] {
            client.publish(snapshot([plugin("p", version)]));
        }
        client.settle();
        assert_eq!(client.received(), ["ecds p@2", "ecds p@4"]);
    }
}

#[test]
fn a_listener_waits_while_a_name_that_it_uses_has_no_answer() {
    for protocol in BOTH {
        let l = |version| listener("l", version).using(ExtensionConfig, "p");
        let mut client = settled(protocol, &["p"], [l("1"), plugin("p", "1")]);
        client.publish(snapshot([l("2"), plugin("p", "2")])); // rule 12
        assert_eq!(client.received(), ["ecds p@2"]);
        client.nack("bad abi");
        assert_eq!(client.received(), ["ecds p@1"]);
        client.ack();
        assert_eq!(client.received(), ["lds l@2"]);
    }
}

#[test]
fn a_plugin_that_moves_is_accepted_at_its_new_place_before_it_leaves_the_old_one() {
    for protocol in BOTH {
        let mut client = settled(protocol, &["l/a", "l/b"], [chain("l/a", "1", &["p"]), chain("l/b", "1", &[])]);
        client.publish(snapshot([chain("l/a", "2", &[]), chain("l/b", "2", &["p"])]));
        assert_eq!(client.received(), ["ecds l/b@2"]);
        client.ack();
        assert_eq!(client.received(), ["ecds l/a@2"]);
    }
}

#[test]
fn a_plugin_does_not_leave_for_a_place_that_refuses_it() {
    for protocol in BOTH {
        let mut client = settled(protocol, &["l/a", "l/b"], [chain("l/a", "1", &["p"]), chain("l/b", "1", &[])]);
        client.publish(snapshot([chain("l/a", "2", &[]), chain("l/b", "2", &["p"])]));
        client.nack("bad");
        client.settle();
        assert_eq!(client.holds(ExtensionConfig), "l/a@1 l/b@1");
        client.publish(snapshot([chain("l/a", "2", &[]), chain("l/b", "3", &["p"])]));
        client.settle();
        assert_eq!(client.received(), ["ecds l/b@2", "ecds l/b@1", "ecds l/b@3", "ecds l/a@2"]);
    }
}

#[test]
fn a_plugin_does_not_leave_for_a_place_that_is_still_empty_handed() {
    for protocol in BOTH {
        let mut client = settled(protocol, &["l/a"], [chain("l/a", "1", &["p"])]);
        client.publish(snapshot([chain("l/a", "1", &["p"]), chain("l/b", "1", &["p"])]));
        client.subscribe(ExtensionConfig, &["l/b"]);
        client.publish(snapshot([chain("l/a", "2", &[]), chain("l/b", "1", &["p"])]));
        assert_eq!(client.received(), ["ecds l/b@1"]);
        client.settle();
        assert_eq!(client.received(), ["ecds l/a@2"]);
    }
}

#[test]
fn plugins_that_change_places_go_all_at_once() {
    for protocol in BOTH {
        let names = &["l/a", "l/b"];
        let mut client = settled(protocol, names, [chain("l/a", "1", &["p"]), chain("l/b", "1", &["q"])]);
        client.publish(snapshot([chain("l/a", "2", &["q"]), chain("l/b", "2", &["p"])]));
        client.settle();
        assert_eq!(client.received(), ["ecds l/a@2", "ecds l/b@2"]);
    }
}

#[test]
fn the_same_plugin_on_another_listener_is_no_move() {
    for protocol in BOTH {
        let mut client = settled(protocol, &["l/a", "m/a"], [chain("l/a", "1", &["p"]), chain("m/a", "1", &[])]);
        client.publish(snapshot([chain("l/a", "2", &[]), chain("m/a", "2", &["p"])]));
        assert_eq!(client.received(), ["ecds l/a@2", "ecds m/a@2"]);
    }
}

#[test]
fn while_a_listener_warms_the_proven_go_first_and_the_unproven_wait_for_their_acks() {
    for protocol in BOTH {
        let l = listener("l", "1").using(ExtensionConfig, "a").using(ExtensionConfig, "b");
        let mut client = Client::of_fleet(protocol, proven([plugin("b", "1")]));
        client.publish(snapshot([l, plugin("a", "1"), plugin("b", "1")]));
        client.subscribe(Listener, &[]);
        client.subscribe(ExtensionConfig, &["a", "b"]); // rule 11
        assert_eq!(client.received(), ["lds l@1", "ecds b@1"]);
        client.ack();
        client.ack();
        assert_eq!(client.received(), ["ecds a@1"]);
    }
}

#[test]
fn an_edit_of_what_works_waits_until_nothing_warms() {
    for protocol in BOTH {
        let mut client = settled(protocol, &["a"], [plugin("a", "1")]);
        client.publish(snapshot([plugin("a", "1"), plugin("b", "1")]));
        client.subscribe(ExtensionConfig, &["b"]);
        client.publish(snapshot([plugin("a", "2"), plugin("b", "1")])); // rule 11
        assert_eq!(client.received(), ["ecds b@1"]);
        client.ack();
        assert_eq!(client.received(), ["ecds a@2"]);
    }
}

#[test]
fn an_unproven_name_waits_for_the_names_that_the_listener_is_about_to_ask_for() {
    for protocol in BOTH {
        let l = listener("l", "1").using(ExtensionConfig, "a").using(ExtensionConfig, "b");
        let mut client = Client::of_fleet(protocol, proven([plugin("b", "1")]));
        client.publish(snapshot([l, plugin("a", "1"), plugin("b", "1")]));
        client.subscribe(Listener, &[]);
        client.subscribe(ExtensionConfig, &["a"]);
        assert_eq!(client.received(), ["lds l@1"]);
        client.subscribe(ExtensionConfig, &["b"]);
        client.settle();
        assert_eq!(client.received(), ["ecds b@1", "ecds a@1"]);
    }
}

#[test]
fn a_client_that_never_asks_or_answers_is_not_waited_for() {
    for protocol in BOTH {
        let l = listener("l", "1").using(ExtensionConfig, "a").using(ExtensionConfig, "b");
        let mut client = Client::of_fleet(protocol, proven([plugin("c", "1")]));
        client.publish(snapshot([l, plugin("a", "1"), plugin("b", "1"), plugin("c", "1")]));
        client.subscribe(Listener, &[]);
        client.subscribe(ExtensionConfig, &["a", "c"]);
        assert_eq!(client.received(), ["lds l@1", "ecds c@1"]);
        client.wait(MOMENT);
        assert_eq!(client.received(), [""; 0]);
        client.wait(9 * MOMENT);
        assert_eq!(client.received(), ["ecds a@1"]);
    }
}

#[test]
fn a_cluster_stays_until_the_listener_that_used_it_has_drained() {
    for (protocol, last) in [(Protocol::Sotw, "cds new@1"), (Protocol::Delta, "cds -old")] {
        let l = |version, cluster| listener("l", version).using(Cluster, cluster);
        let mut client = settled(protocol, &["p"], [l("1", "old"), cluster("old", "1")]);
        client.publish(snapshot([l("2", "new"), cluster("new", "1")])); // rule 2
        client.settle();
        client.wait(DRAIN - MOMENT);
        assert_eq!(client.holds(Cluster), "new@1 old@1");
        client.received();
        client.wait(MOMENT);
        assert_eq!(client.received(), [last]);
    }
}

#[test]
fn in_the_state_of_the_world_the_set_is_the_union_until_the_drain() {
    let l = |version, cluster| listener("l", version).using(Cluster, cluster);
    let mut client = settled(Protocol::Sotw, &["p"], [l("1", "old"), cluster("old", "1")]);
    client.publish(snapshot([l("2", "new"), cluster("new", "1")]));
    assert_eq!(client.received(), ["cds new@1 old@1"]);
}

#[test]
fn a_listener_that_was_acknowledged_again_unchanged_keeps_nothing_alive() {
    let mut client = settled(Protocol::Sotw, &["p"], [listener("l", "1").using(Cluster, "c"), cluster("c", "1")]);
    let m = || listener("m", "1");
    client.publish(snapshot([listener("l", "1").using(Cluster, "c"), m(), cluster("c", "1")]));
    client.settle();
    assert!(client.session.spared_until.is_empty());
}

#[test]
fn a_cluster_that_nothing_used_leaves_at_once() {
    for protocol in BOTH {
        let mut client = settled(protocol, &["p"], [cluster("c", "1")]);
        client.publish(snapshot([]));
        client.settle();
        assert_eq!(client.holds(Cluster), "");
    }
}

#[test]
fn a_cluster_whose_listener_was_removed_stays_for_the_drain() {
    for protocol in BOTH {
        let mut client = settled(protocol, &["p"], [listener("l", "1").using(Cluster, "c"), cluster("c", "1")]);
        client.publish(snapshot([]));
        client.settle();
        assert_eq!((client.holds(Listener).as_str(), client.holds(Cluster).as_str()), ("", "c@1"));
        client.wait(DRAIN);
        client.settle();
        assert_eq!(client.holds(Cluster), "");
    }
}

#[test]
fn a_cluster_of_a_listener_that_nobody_acknowledged_stays() {
    for protocol in BOTH {
        let l = |version, cluster| listener("l", version).using(Cluster, cluster);
        let mut client = settled(protocol, &["p"], [l("1", "old"), cluster("old", "1")]);
        client.publish(snapshot([l("2", "new"), cluster("new", "1")]));
        client.ack();
        client.wait(2 * DRAIN); // The listener is not acknowledged.
        assert_eq!(client.holds(Cluster), "new@1 old@1");
    }
}

#[test]
fn a_renamed_listener_rides_with_the_one_whose_address_it_takes() {
    for (protocol, expected) in [(Protocol::Sotw, "lds new@1"), (Protocol::Delta, "lds new@1 -old")] {
        let mut client = settled(protocol, &["p"], [listener("old", "1")]);
        client.publish(snapshot([listener("new", "1").using(Cluster, "c"), cluster("c", "1")]));
        assert_eq!(client.received(), ["cds c@1"]);
        client.ack();
        assert_eq!(client.received(), [expected]);
    }
}

#[test]
fn a_name_that_our_listener_used_keeps_its_content_until_it_is_unsubscribed() {
    for protocol in BOTH {
        let l = listener("l", "1").using(ExtensionConfig, "p");
        let mut client = settled(protocol, &["p", "static"], [l, plugin("p", "1"), plugin("static", "1")]);
        client.publish(snapshot([listener("l", "2")])); // rules 2 and 7
        client.settle();
        assert_eq!(client.holds(ExtensionConfig), "p@1 static@pass");
        client.unsubscribe(ExtensionConfig, &["p"]);
        client.subscribe(ExtensionConfig, &["p"]);
        client.settle();
        assert_eq!(client.holds(ExtensionConfig), "p@pass static@pass");
    }
}

#[test]
fn an_edit_that_is_taken_back_before_its_answer_is_taken_back_at_the_client_too() {
    for protocol in BOTH {
        let mut client = settled(protocol, &["p"], [plugin("p", "1")]);
        client.publish(snapshot([plugin("p", "2")]));
        client.publish(snapshot([plugin("p", "1")]));
        assert_eq!(client.received(), ["ecds p@2"]);
        client.ack();
        assert_eq!(client.received(), ["ecds p@1"]);
        client.ack();
        assert_eq!(client.received(), [""; 0]);
    }
}
