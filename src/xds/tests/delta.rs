//! The incremental protocol. The numbers are those of the protocol's assertions.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::*;

fn client(resources: impl IntoIterator<Item = Resource>) -> Client {
    let mut client = Client::new(Protocol::Delta);
    client.publish(snapshot(resources));
    client
}

fn request(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: subscribe.iter().map(ToString::to_string).collect(),
        resource_names_unsubscribe: unsubscribe.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

#[test]
fn naming_nothing_at_first_is_a_wildcard_where_the_type_permits_it() {
    let mut client = client([cluster("a", "1"), route("r", "1"), plugin("p", "1")]);
    client.subscribe(Cluster, &[]); // D1
    client.subscribe(Route, &[]);
    client.subscribe(ExtensionConfig, &["*"]); // rule 8
    assert_eq!(client.received(), ["cds a@1"]);
}

#[test]
fn a_wildcard_that_ends_leaves_the_explicit_names() {
    let mut client = client([cluster("a", "1"), cluster("b", "1")]);
    client.subscribe(Cluster, &["*", "a"]);
    client.settle();
    client.unsubscribe(Cluster, &["*"]); // D2
    client.publish(snapshot([cluster("a", "2"), cluster("b", "2")]));
    assert_eq!(client.received(), ["cds a@1 b@1", "cds a@2"]);
}

#[test]
fn a_name_beside_a_legacy_wildcard_leaves_the_wildcard() {
    let mut client = client([cluster("a", "1"), cluster("b", "1")]);
    client.subscribe(Cluster, &[]);
    client.subscribe(Cluster, &["a"]); // D3
    client.settle();
    client.publish(snapshot([cluster("a", "1"), cluster("b", "2")]));
    assert_eq!(client.received(), ["cds a@1 b@1", "cds a@1", "cds b@2"]);
}

#[test]
fn a_name_unsubscribed_under_a_wildcard_is_sent_again_or_said_to_be_gone() {
    let mut client = client([cluster("a", "1"), cluster("b", "1")]);
    client.subscribe(Cluster, &["*", "a", "gone"]);
    client.settle();
    client.received();
    client.unsubscribe(Cluster, &["a"]); // D4
    client.settle();
    client.unsubscribe(Cluster, &["gone"]);
    client.settle();
    assert_eq!(client.received(), ["cds a@1", "cds -gone"]);
}

#[test]
fn only_what_changed_is_sent() {
    let mut client = client([cluster("a", "1"), cluster("b", "1")]);
    client.subscribe(Cluster, &["a", "b"]);
    client.settle();
    client.publish(snapshot([cluster("a", "1"), cluster("b", "2")])); // D5, D20
    client.settle();
    client.publish(snapshot([cluster("a", "1"), cluster("b", "2")])); // D21
    assert_eq!(client.received(), ["cds a@1 b@1", "cds b@2"]);
}

#[test]
fn what_is_deleted_is_removed_once() {
    let mut client = client([listener("a", "1"), listener("b", "1"), route("r", "1")]);
    client.subscribe(Listener, &[]);
    client.subscribe(Route, &["r"]);
    client.settle();
    client.received();
    client.publish(snapshot([listener("b", "1")])); // D6
    client.settle();
    client.publish(snapshot([listener("b", "1")]));
    client.settle();
    assert_eq!(client.received(), ["lds -a", "rds -r"]);
}

#[test]
fn what_was_removed_is_sent_when_it_comes_back() {
    let mut client = client([route("r", "1")]);
    client.subscribe(Route, &["r"]);
    client.settle();
    client.publish(snapshot([]));
    client.settle();
    client.publish(snapshot([route("r", "1")]));
    client.settle();
    client.publish(snapshot([]));
    client.settle();
    assert_eq!(client.received(), ["rds r@1", "rds -r", "rds r@1", "rds -r"]);
}

#[test]
fn what_was_never_sent_is_not_removed() {
    let mut client = client([listener("a", "1")]);
    client.subscribe(Listener, &[]);
    client.publish(snapshot([listener("a", "1"), listener("b", "1")]));
    client.publish(snapshot([listener("a", "1")])); // D7
    client.settle();
    assert_eq!(client.received(), ["lds a@1"]);
}

#[test]
fn a_missing_name_is_said_once_and_sent_when_it_appears() {
    let mut client = client([route("r", "1")]);
    client.subscribe(Route, &["r", "later"]); // D8
    client.settle();
    client.publish(snapshot([route("r", "1")]));
    client.publish(snapshot([route("r", "1"), route("later", "1")]));
    assert_eq!(client.received(), ["rds r@1 -later", "rds later@1"]);
}

#[test]
fn a_name_that_gets_silence_is_reported_once() {
    let mut client = client([plugin("a", "1")]);
    client.subscribe(ExtensionConfig, &["a", "foreign"]);
    client.settle();
    client.publish(snapshot([plugin("a", "2")]));
    client.settle();
    assert_eq!(client.unanswered, ["foreign"]);
}

#[test]
fn an_extension_is_never_removed() {
    let mut client = client([plugin("a", "1")]);
    client.subscribe(ExtensionConfig, &["a", "foreign"]); // D8, rule 7
    client.settle();
    client.publish(snapshot([])); // D6, D28
    client.settle();
    assert_eq!(client.received(), ["ecds a@1", "ecds a@pass"]);
}

#[test]
fn initial_versions_in_a_later_request_are_ignored() {
    let mut client = client([plugin("a", "1"), plugin("b", "1")]);
    client.subscribe(ExtensionConfig, &["a"]);
    client.settle();
    let versions = [("b".to_owned(), "1".to_owned())].into();
    client
        .delta(ExtensionConfig, &DeltaDiscoveryRequest { initial_resource_versions: versions, ..request(&["b"], &[]) });
    assert_eq!(client.received(), ["ecds a@1", "ecds b@1"]); // D12
}

#[test]
fn an_ack_is_not_answered() {
    let mut client = client([cluster("a", "1"), plugin("p", "1")]);
    client.subscribe(Cluster, &[]);
    client.subscribe(ExtensionConfig, &["p"]);
    client.settle(); // D13
    assert_eq!(client.responses, 2);
}

#[test]
fn an_empty_wildcard_set_is_answered_once() {
    let mut client = client([]);
    client.subscribe(Cluster, &[]);
    client.settle();
    client.publish(snapshot([])); // S26
    assert_eq!(client.received(), ["cds"]);
}

#[test]
fn a_subscription_in_mid_stream_is_served_although_responses_are_out() {
    let mut client = client([plugin("a", "1"), plugin("b", "1")]);
    client.subscribe(ExtensionConfig, &["a"]);
    client.subscribe(ExtensionConfig, &["b"]); // D17
    assert_eq!(client.received(), ["ecds a@1", "ecds b@1"]);
}

#[test]
fn an_old_nonce_counts_for_its_response_and_its_subscriptions_count_too() {
    let mut client = client([plugin("a", "1"), plugin("b", "1"), plugin("c", "1")]);
    client.subscribe(ExtensionConfig, &["a", "b"]);
    let late = DeltaDiscoveryRequest { response_nonce: "1".into(), ..request(&["c"], &[]) };
    client.delta(ExtensionConfig, &late); // D18, D19
    assert_eq!(client.reported(), ["a@1"]);
    assert_eq!(client.received(), ["ecds a@1", "ecds b@1", "ecds c@1"]);
}

#[test]
fn a_name_dropped_and_asked_for_again_is_sent_again() {
    let mut client = client([plugin("a", "1"), cluster("c", "1")]);
    client.subscribe(ExtensionConfig, &["a"]);
    client.subscribe(Cluster, &["c"]);
    client.settle();
    for (resource_type, name) in [(ExtensionConfig, "a"), (Cluster, "c")] {
        client.unsubscribe(resource_type, &[name]);
        client.subscribe(resource_type, &[name]); // D25
    }
    assert_eq!(client.received()[2..], ["ecds a@1", "cds c@1"]);
}

#[test]
fn a_name_asked_for_again_while_its_content_is_on_its_way_is_sent_again_after_the_answer() {
    let mut client = client([plugin("a", "1")]);
    client.subscribe(ExtensionConfig, &["a"]);
    client.unsubscribe(ExtensionConfig, &["a"]);
    client.subscribe(ExtensionConfig, &["a"]); // D25, rule 3
    assert_eq!(client.received(), ["ecds a@1"]);
    client.settle();
    assert_eq!((client.received(), client.reported()), (vec!["ecds a@1".into()], vec!["a@1".to_owned()]));
}

#[test]
fn an_answer_to_what_was_dropped_meanwhile_proves_nothing() {
    let mut client = client([plugin("a", "1")]);
    client.subscribe(ExtensionConfig, &["a"]);
    client.unsubscribe(ExtensionConfig, &["a"]);
    client.settle(); // Envoy acknowledges and ignores it (lab, exp15).
    assert_eq!(client.reported(), [""; 0]);
}

#[test]
fn unsubscription_is_applied_after_subscription() {
    let mut client = client([plugin("a", "1")]);
    client.subscribe(ExtensionConfig, &[]);
    client.delta(ExtensionConfig, &request(&["a"], &["a"])); // D26
    assert_eq!(client.received(), [""; 0]);
}

#[test]
fn a_large_answer_is_split_and_waits_for_every_part() {
    let mut client = client([]);
    client.session.limits.max_response_bytes = 256 + 150;
    client.publish(snapshot(["a", "b", "c"].map(|name| cluster(name, "1"))));
    client.subscribe(Cluster, &[]); // D30
    assert_eq!(client.received(), ["cds a@1 b@1", "cds c@1"]);
    client.publish(snapshot(["a", "b", "c"].map(|name| cluster(name, "2"))));
    client.ack();
    assert_eq!(client.received(), [""; 0]);
    client.settle();
    assert_eq!(client.received(), ["cds a@2 b@2", "cds c@2"]);
}

#[test]
fn a_client_that_stalls_gets_one_merged_response() {
    let mut client = client([cluster("a", "1"), cluster("b", "1")]);
    client.subscribe(Cluster, &[]);
    for version in ["2", "3", "4"] {
        client.publish(snapshot([cluster("a", version), cluster("c", version)])); // D31, D32
    }
    client.settle();
    assert_eq!(client.received(), ["cds a@1 b@1", "cds a@4 c@4 -b"]);
}
