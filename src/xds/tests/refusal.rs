//! What a client refuses (design, section 5, rules 4 and 5).

use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn client(protocol: Protocol, resources: impl IntoIterator<Item = Resource>) -> Client {
    let mut client = Client::new(protocol);
    client.publish(snapshot(resources));
    client.subscribe(Cluster, &[]);
    client.subscribe(Listener, &[]);
    client.subscribe(ExtensionConfig, &["p", "q"]);
    client
}

/// As [`client`], settled on these resources.
fn settled(protocol: Protocol, resources: impl IntoIterator<Item = Resource>) -> Client {
    let mut client = client(protocol, resources);
    client.settle();
    client.received();
    client.reported();
    client
}

#[test]
fn a_refused_extension_is_rolled_back_to_the_last_accepted_bytes() {
    for protocol in BOTH {
        let mut client = settled(protocol, [plugin("p", "1"), plugin("q", "1")]);
        client.publish(snapshot([plugin("p", "2"), plugin("q", "1")]));
        client.nack("Unable to create Wasm plugin p");
        client.settle(); // D14, D15, D29, rule 4
        assert_eq!(client.received(), ["ecds p@2", "ecds p@1"]);
        assert_eq!(client.reported(), ["p@2: Unable to create Wasm plugin p", "p@1"]);
    }
}

#[test]
fn an_extension_refused_at_first_gets_its_stand_in() {
    for protocol in BOTH {
        let mut client = settled(protocol, []);
        client.unsubscribe(ExtensionConfig, &["p"]);
        client.publish(snapshot([plugin("p", "1").with_stand_in()]));
        client.subscribe(ExtensionConfig, &["p"]);
        client.nack("bad");
        client.settle();
        client.publish(snapshot([plugin("p", "1").with_stand_in()]));
        assert_eq!(client.received()[..], ["ecds p@1", "ecds p@stand-in"]);
    }
}

#[test]
fn a_refused_extension_is_not_sent_again() {
    for protocol in BOTH {
        let mut client = client(protocol, [plugin("p", "1"), plugin("q", "1")]);
        let lists = client.inbox.len() - 2;
        (0..lists).for_each(|_| client.ack());
        client.received();
        client.nack("bad abi"); // S8
        client.ack();
        client.publish(snapshot([plugin("p", "1"), plugin("q", "2")])); // S10, D16
        client.settle();
        client.wait(3600 * SECOND);
        let sent = client.received();
        assert!(sent.iter().all(|response| !response.contains("p@")), "{sent:?}");
        assert_eq!(client.holds(ExtensionConfig), "q@2");
    }
}

#[test]
fn a_refused_extension_that_changes_is_sent_at_once() {
    for protocol in BOTH {
        let mut client = settled(protocol, [plugin("p", "1"), plugin("q", "1")]);
        client.publish(snapshot([plugin("p", "2"), plugin("q", "1")]));
        client.nack("bad");
        client.settle();
        client.publish(snapshot([plugin("p", "3"), plugin("q", "1")])); // S9
        assert_eq!(client.received(), ["ecds p@2", "ecds p@1", "ecds p@3"]);
    }
}

#[test]
fn back_to_what_was_last_accepted_is_in_sync_at_once() {
    for protocol in BOTH {
        let mut client = settled(protocol, [plugin("p", "1"), plugin("q", "1")]);
        client.publish(snapshot([plugin("p", "2"), plugin("q", "1")]));
        client.nack("bad");
        client.settle();
        client.publish(snapshot([plugin("p", "1"), plugin("q", "1")])); // D15
        client.publish(snapshot([plugin("p", "2"), plugin("q", "1")]));
        assert_eq!(client.received(), ["ecds p@2", "ecds p@1"]);
    }
}

#[test]
fn a_refused_roll_back_ends_there() {
    for protocol in BOTH {
        let mut client = settled(protocol, [plugin("p", "1"), plugin("q", "1")]);
        client.publish(snapshot([plugin("p", "2"), plugin("q", "1")]));
        client.nack("bad");
        client.nack("bad too");
        client.settle();
        assert_eq!(client.received(), ["ecds p@2", "ecds p@1"]);
    }
}

#[test]
fn a_refused_extension_does_not_hold_up_its_neighbours() {
    for protocol in BOTH {
        let mut client = settled(protocol, [plugin("p", "1"), plugin("q", "1")]);
        client.publish(snapshot([plugin("p", "2"), plugin("q", "2"), listener("l", "1")]));
        client.nack("bad"); // S10
        client.settle();
        assert_eq!(client.holds(ExtensionConfig), "p@1 q@2");
        assert_eq!(client.holds(Listener), "l@1");
    }
}

#[test]
fn a_name_asked_for_again_is_sent_what_was_refused_before() {
    for protocol in BOTH {
        let mut client = settled(protocol, [plugin("p", "1"), plugin("q", "1")]);
        client.publish(snapshot([plugin("p", "2"), plugin("q", "1")]));
        client.nack("bad");
        client.settle();
        client.unsubscribe(ExtensionConfig, &["p"]);
        client.subscribe(ExtensionConfig, &["p"]); // Its subscription is new, and has nothing to serve.
        assert_eq!(client.received(), ["ecds p@2", "ecds p@1", "ecds p@2"]);
    }
}

#[test]
fn a_version_never_counts_what_was_refused_while_it_was_on_its_way() {
    let mut client = settled(Protocol::Sotw, [plugin("p", "1"), plugin("q", "1")]);
    client.publish(snapshot([plugin("p", "2"), plugin("q", "2")]));
    client.nack("bad");
    client.settle();
    client.received();
    client.publish(snapshot([plugin("p", "1"), plugin("q", "2")]));
    client.reconnect(); // S13: what it says is what it holds.
    assert_eq!(client.received(), [""; 0]);
}

#[test]
fn a_version_is_set_right_where_there_is_no_way_back() {
    let mut client = Client::new(Protocol::Sotw);
    client.publish(snapshot([plugin("p", "1"), plugin("q", "1")]));
    client.subscribe(ExtensionConfig, &["p", "q"]);
    client.nack("bad");
    client.settle();
    assert_eq!(client.received(), ["ecds p@1", "ecds q@1", "ecds"]);
    client.reconnect();
    client.settle();
    assert_eq!(client.received(), ["ecds q@1", "ecds p@1"]);
}

#[test]
fn a_refused_listener_is_tried_again_ever_more_slowly() {
    for protocol in BOTH {
        let mut client = settled(protocol, [listener("l", "1")]);
        client.publish(snapshot([listener("l", "2")]));
        let mut tries = vec![client.now];
        while tries.len() < 12 {
            client.nack("Address already in use");
            assert!(client.inbox.is_empty());
            client.wait(client.wake_at.unwrap() - client.now);
            tries.push(client.now);
        }
        let waits: Vec<_> = tries.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]); // rule 4
        client.ack();
        assert_eq!(client.wake_at, None);
    }
}

#[test]
fn a_refused_set_is_tried_again_when_anything_of_its_type_changes() {
    for protocol in BOTH {
        let mut client = settled(protocol, [cluster("a", "1"), cluster("b", "1")]);
        client.publish(snapshot([cluster("a", "2"), cluster("b", "1")]));
        client.nack("bad");
        client.publish(snapshot([cluster("a", "2"), cluster("b", "2")])); // rule 4
        assert_eq!(client.received()[1..], ["cds a@2 b@2"]);
    }
}

#[test]
fn a_refused_set_does_not_loop_when_something_was_removed_with_it() {
    for protocol in BOTH {
        let mut client = settled(protocol, [listener("a", "1"), listener("b", "1")]);
        client.publish(snapshot([listener("b", "2")]));
        client.nack("bad");
        assert_eq!(client.responses, 5);
        client.publish(snapshot([]));
        client.settle();
        assert_eq!(client.holds(Listener), "");
    }
}

#[test]
fn a_refused_listener_is_still_tried_again_after_another_one_was_removed() {
    for protocol in BOTH {
        let mut client = settled(protocol, [listener("a", "1"), listener("b", "1")]);
        client.publish(snapshot([listener("a", "2"), listener("b", "1")]));
        client.nack("Address already in use");
        client.publish(snapshot([listener("a", "2")]));
        client.nack("Address already in use");
        client.wait(SECOND);
        client.settle();
        assert_eq!(client.holds(Listener), "a@2");
    }
}

#[test]
fn a_refused_listener_that_goes_back_to_its_old_content_is_sent() {
    for protocol in BOTH {
        let mut client = settled(protocol, [listener("l", "1")]);
        client.publish(snapshot([listener("l", "2")]));
        client.nack("bad");
        client.publish(snapshot([listener("l", "1")])); // D15: it may have been applied in part.
        client.settle();
        client.publish(snapshot([listener("l", "2")]));
        assert_eq!(client.received(), ["lds l@2", "lds l@1", "lds l@2"]);
    }
}

#[test]
fn a_listener_that_was_refused_beside_others_is_removed_when_it_goes() {
    let mut client = settled(Protocol::Delta, []);
    client.publish(snapshot([listener("a", "1"), listener("b", "1")]));
    client.nack("b: bad"); // Envoy has applied `a`.
    client.publish(snapshot([]));
    assert_eq!(client.received(), ["lds a@1 b@1", "lds -a -b"]);
}

#[test]
fn a_refusal_of_a_set_is_reported_for_what_was_new_in_it() {
    for protocol in BOTH {
        let mut client = settled(protocol, [listener("a", "1"), listener("b", "1")]);
        client.publish(snapshot([listener("a", "1"), listener("b", "2")]));
        client.nack("bad");
        assert_eq!(client.reported(), ["b@2: bad"]);
    }
}

#[test]
fn a_refused_cluster_does_not_hold_up_listeners() {
    for protocol in BOTH {
        let mut client = settled(protocol, []);
        client.publish(snapshot([cluster("c", "1"), listener("l", "1")]));
        client.nack("bad"); // S10
        client.settle();
        assert_eq!(client.holds(Listener), "l@1");
    }
}
