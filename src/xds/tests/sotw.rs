//! State of the world: requests, nonces, versions. The numbers are those of the protocol's assertions.

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

use super::*;

fn client(resources: impl IntoIterator<Item = Resource>) -> Client {
    let mut client = Client::new(Protocol::Sotw);
    client.publish(snapshot(resources));
    client
}

fn request(nonce: u64, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        response_nonce: nonce.to_string(),
        resource_names: names.iter().map(ToString::to_string).collect(),
        ..DiscoveryRequest::default()
    }
}

#[test]
fn a_new_subscription_gets_all_of_a_set_in_one_response() {
    let mut client = client([cluster("a", "1"), cluster("b", "1")]);
    client.subscribe(Cluster, &[]); // S5, S15
    let response = &client.inbox[0];
    assert!(response.nonce > 0 && response.version_info.is_some());
    assert_eq!(client.received(), ["cds a@1 b@1"]);
}

#[test]
fn each_ecds_name_has_a_response_of_its_own() {
    let mut client = client([plugin("a", "1"), plugin("b", "1")]);
    client.subscribe(ExtensionConfig, &["a", "b"]); // S5, rule 3
    assert_eq!(client.received(), ["ecds a@1", "ecds b@1"]);
}

#[test]
fn nonces_are_distinct_across_the_types_of_a_stream() {
    let mut client = client([cluster("a", "1"), plugin("p", "1"), plugin("q", "1")]);
    client.subscribe(Cluster, &[]);
    client.subscribe(ExtensionConfig, &["p", "q"]); // S6
    assert_eq!(client.inbox.iter().map(|response| response.nonce).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn an_ack_is_not_answered_and_equal_content_is_not_sent_again() {
    let mut client = client([cluster("a", "1"), plugin("p", "1")]);
    client.subscribe(Cluster, &[]);
    client.subscribe(ExtensionConfig, &["p"]);
    client.settle(); // S7
    client.publish(snapshot([cluster("a", "1"), plugin("p", "1")])); // S30
    assert_eq!(client.responses, 2);
}

#[test]
fn an_unanswered_nonce_counts_for_its_own_response_but_its_names_do_not() {
    let mut client = client([plugin("a", "1"), plugin("b", "1"), plugin("c", "1")]);
    client.subscribe(ExtensionConfig, &["a", "b"]);
    client.sotw(ExtensionConfig, &request(1, &["c"])); // S11, S12, rule 3
    assert_eq!(client.reported(), ["a@1"]);
    assert_eq!(client.received(), ["ecds a@1", "ecds b@1"]);
    client.sotw(ExtensionConfig, &request(2, &["a", "b", "c"]));
    assert_eq!(client.received(), ["ecds c@1"]);
}

#[test]
fn an_answered_nonce_is_stale_and_changes_nothing() {
    let mut client = client([plugin("a", "1"), plugin("b", "1")]);
    client.subscribe(ExtensionConfig, &["a"]);
    client.ack();
    client.publish(snapshot([plugin("a", "2"), plugin("b", "1")]));
    client.reported();
    client.sotw(ExtensionConfig, &request(1, &["a", "b"])); // S11, S12
    assert_eq!((client.reported(), client.received()), (vec![], vec!["ecds a@1".into(), "ecds a@2".into()]));
}

#[test]
fn a_nonce_that_was_never_sent_changes_nothing() {
    let mut client = client([plugin("a", "1")]);
    client.subscribe(ExtensionConfig, &["a"]);
    client.sotw(ExtensionConfig, &request(77, &[]));
    let words = DiscoveryRequest { response_nonce: "not ours".into(), ..DiscoveryRequest::default() };
    client.sotw(ExtensionConfig, &words);
    client.settle();
    assert_eq!(client.holds(ExtensionConfig), "a@1");
}

#[test]
fn a_star_and_a_name_both_apply() {
    let mut client = client([cluster("a", "1"), cluster("b", "1")]);
    client.subscribe(Cluster, &["*", "a"]); // S16
    assert_eq!(client.received(), ["cds a@1 b@1"]);
}

#[test]
fn an_empty_list_after_names_is_nothing() {
    let mut client = client([cluster("a", "1"), cluster("b", "1")]);
    client.subscribe(Cluster, &[]);
    client.ack();
    client.sotw(Cluster, &request(1, &["a"]));
    client.sotw(Cluster, &request(2, &[])); // S17
    client.received();
    client.publish(snapshot([cluster("a", "2"), cluster("b", "2")]));
    assert_eq!(client.received(), [""; 0]);
}

#[test]
fn one_change_of_a_full_state_type_brings_the_whole_set() {
    let mut client = client([listener("a", "1"), listener("b", "1")]);
    client.subscribe(Listener, &[]);
    client.settle();
    client.publish(snapshot([listener("a", "1"), listener("b", "2")])); // S18
    client.settle();
    client.publish(snapshot([listener("b", "2")])); // S19
    client.settle();
    assert_eq!(client.received(), ["lds a@1 b@1", "lds a@1 b@2", "lds b@2"]);
    assert_eq!(client.reported(), ["a@1", "b@1", "b@2"]);
}

#[test]
fn one_changed_extension_goes_alone() {
    let mut client = client([plugin("a", "1"), plugin("b", "1")]);
    client.subscribe(ExtensionConfig, &["a", "b"]);
    client.settle();
    client.received();
    client.publish(snapshot([plugin("a", "1"), plugin("b", "2")])); // S20
    assert_eq!(client.received(), ["ecds b@2"]);
}

#[test]
fn routes_are_split_where_the_answer_is_too_large_and_no_part_claims_the_whole() {
    let mut client = client([]);
    client.session.limits.max_response_bytes = 256 + 150;
    let routes = |version| snapshot(["a", "b", "c"].map(|name| route(name, version)));
    client.publish(routes("1"));
    client.subscribe(Route, &["a", "b", "c"]); // S20, D30
    client.nack("bad");
    client.settle();
    assert_eq!((client.received(), client.holds(Route)), (vec!["rds a@1 b@1".into(), "rds c@1".into()], "c@1".into()));
    client.reconnect();
    client.settle();
    assert_eq!(client.holds(Route), "a@1 b@1 c@1");
}

#[test]
fn a_named_route_that_is_gone_is_left_alone() {
    let mut client = client([route("r", "1")]);
    client.subscribe(Route, &["r"]);
    client.settle();
    client.publish(snapshot([])); // S21
    client.settle();
    assert_eq!((client.holds(Route).as_str(), client.responses), ("r@1", 1));
}

#[test]
fn an_unsubscribed_name_costs_nothing_until_it_is_asked_for_again() {
    let mut client = client([plugin("a", "1"), plugin("b", "1")]);
    client.subscribe(ExtensionConfig, &["a", "b"]);
    client.settle();
    client.unsubscribe(ExtensionConfig, &["b"]); // S22
    client.publish(snapshot([plugin("a", "1"), plugin("b", "2")]));
    assert_eq!(client.responses, 2);
    client.subscribe(ExtensionConfig, &["b"]); // S23, S24
    client.settle();
    client.unsubscribe(ExtensionConfig, &["b"]);
    client.subscribe(ExtensionConfig, &["b"]);
    assert_eq!(client.received()[2..], ["ecds b@2", "ecds b@2"]);
}

#[test]
fn a_name_that_does_not_exist_is_silence_and_blocks_nobody() {
    let mut client = client([plugin("a", "1"), route("r", "1")]);
    client.subscribe(ExtensionConfig, &["a", "foreign"]);
    client.subscribe(Route, &["r", "later"]); // S25
    client.settle();
    assert_eq!(client.received(), ["ecds a@1", "rds r@1"]);
    client.publish(snapshot([plugin("a", "1"), route("r", "1"), route("later", "1"), plugin("foreign", "1")]));
    assert_eq!(client.received(), ["rds later@1"]);
}

#[test]
fn an_empty_wildcard_set_is_answered_once() {
    let mut client = client([]);
    client.subscribe(Cluster, &[]);
    client.subscribe(Listener, &["*"]);
    client.settle(); // S26
    client.publish(snapshot([]));
    assert_eq!(client.received(), ["cds", "lds"]);
}

#[test]
fn an_empty_list_of_extensions_is_nothing_and_not_everything() {
    let mut client = client([plugin("a", "1")]);
    client.subscribe(ExtensionConfig, &[]); // rule 8
    client.subscribe(ExtensionConfig, &["*"]);
    assert_eq!(client.received(), [""; 0]);
}

#[test]
fn a_removed_name_takes_its_waiting_content_with_it() {
    let mut client = client([plugin("a", "1")]);
    client.subscribe(ExtensionConfig, &["a"]);
    client.publish(snapshot([plugin("a", "2")]));
    client.unsubscribe(ExtensionConfig, &["a"]); // stale, as the first response is on its way
    client.settle(); // S27: its ACK names nothing
    assert_eq!(client.received(), ["ecds a@1"]);
}

#[test]
fn a_client_that_does_not_read_gets_the_latest_and_nothing_between() {
    let mut client = client([listener("a", "1"), plugin("p", "1")]);
    client.subscribe(Listener, &[]);
    client.subscribe(ExtensionConfig, &["p"]);
    for version in ["2", "3", "4"] {
        client.publish(snapshot([listener("a", version), plugin("p", version)])); // S29
    }
    client.settle();
    assert_eq!(client.received(), ["lds a@1", "ecds p@1", "lds a@4", "ecds p@4"]);
}

#[test]
fn nothing_is_answered_before_the_sources_are_loaded() {
    let mut client = Client::new(Protocol::Sotw);
    client.subscribe(Cluster, &[]);
    client.subscribe(ExtensionConfig, &["p"]); // S34, rule 9
    assert_eq!(client.received(), [""; 0]);
    client.publish(snapshot([cluster("a", "1"), plugin("p", "1")]));
    assert_eq!(client.received(), ["cds a@1", "ecds p@1"]);
}

#[test]
fn an_error_makes_a_nack_whatever_the_version_says() {
    let mut client = client([plugin("p", "1")]);
    client.subscribe(ExtensionConfig, &["p"]);
    let current = client.inbox[0].version_info.clone().unwrap();
    let error = envoy_types::pb::google::rpc::Status { message: "no".into(), ..Default::default() };
    let nack = DiscoveryRequest { version_info: current.to_string(), error_detail: Some(error), ..request(1, &["p"]) };
    client.sotw(ExtensionConfig, &nack); // S35
    assert_eq!(client.reported(), ["p@1: no"]);
}
