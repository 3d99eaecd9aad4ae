//! What a client answers: ACKs, NACKs, late and stale ones.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status;
use wasmplane::snapshot::Resource;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener};

use super::envoy::strings;
use super::fake::{ADS, DELTA, FakeEnvoy, SOTW, WAYS, Way};
use super::plane::{Plane, named};

fn plugins(p: &str, q: &str) -> [Resource; 2] {
    [named(ExtensionConfig, "p", p), named(ExtensionConfig, "q", q)]
}

/// A client that has accepted `p@1` and `q@1`.
async fn settled(plane: &Plane, way: Way) -> FakeEnvoy {
    let mut envoy = FakeEnvoy::of(plane, way).await;
    envoy.subscribe(ExtensionConfig, &["p"]).await;
    envoy.accept(ExtensionConfig).await;
    envoy.subscribe(ExtensionConfig, &["q"]).await;
    envoy.accept(ExtensionConfig).await;
    envoy.heard(plane).await;
    envoy.log.clear();
    envoy
}

/// S8, D14: a refusal is kept with its words, the last accepted content comes back (Envoy would acknowledge the refused
/// one falsely later), and what was refused is not sent again. D16: nor with a neighbour's change. S9: the next content is
/// sent at once, with a new nonce. D29: what was accepted before goes on.
#[tokio::test]
async fn what_was_refused_is_not_sent_again() {
    for way in WAYS {
        let mut plane = Plane::serving(plugins("1", "1")).await;
        let mut envoy = settled(&plane, way).await;
        plane.publish(plugins("2", "1"));
        let refused = envoy.refuse(ExtensionConfig, "Unable to create Wasm plugin p").await;
        let mut accepted = vec![envoy.accept(ExtensionConfig).await];
        for next in [plugins("2", "2"), plugins("3", "2")] {
            plane.publish(next);
            accepted.push(envoy.accept(ExtensionConfig).await);
        }
        plane.publish(plugins("3", "2"));
        let nonces: BTreeSet<_> = accepted.iter().chain([&refused]).map(|response| &response.nonce).collect();
        assert_eq!(nonces.len(), 4, "{way:?}: {nonces:?}");
        let expected = ["ecds p@2", "ecds p@1", "ecds q@2", "ecds p@3"];
        assert_eq!(envoy.finish().await, expected, "{way:?}");
        let reports = plane.reports_so_far().await;
        let refusals: Vec<_> = reports.iter().filter(|report| report.contains("Refused")).collect();
        let version = named(ExtensionConfig, "p", "2").version.clone();
        let expected = format!("p@{version} Refused {{ message: \"Unable to create Wasm plugin p\" }}");
        assert_eq!(refusals, [&expected], "{way:?}");
    }
}

/// D15: what the client holds after its refusal is what it held before, so that going back there costs nothing.
#[tokio::test]
async fn going_back_to_what_was_accepted_is_in_sync() {
    for way in WAYS {
        let plane = Plane::serving(plugins("1", "1")).await;
        let mut envoy = settled(&plane, way).await;
        plane.publish(plugins("2", "1"));
        envoy.refuse(ExtensionConfig, "bad").await;
        envoy.accept(ExtensionConfig).await;
        envoy.heard(&plane).await;
        plane.publish(plugins("1", "1"));
        assert_eq!(envoy.finish().await, ["ecds p@2", "ecds p@1"], "{way:?}");
    }
}

/// S10: a refusal of one type leaves the others of its stream alone.
#[tokio::test]
async fn a_refusal_does_not_hold_up_other_types() {
    for way in ADS {
        let all = |cluster, others| {
            let others = [Listener, ExtensionConfig].map(|of| named(of, "x", others));
            others.into_iter().chain([named(Cluster, "x", cluster)]).collect::<Vec<_>>()
        };
        let plane = Plane::serving(all("1", "1")).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Cluster, &[]).await;
        envoy.refuse(Cluster, "bad").await;
        envoy.subscribe(Listener, &[]).await;
        envoy.accept(Listener).await;
        envoy.subscribe(ExtensionConfig, &["x"]).await;
        envoy.accept(ExtensionConfig).await;
        envoy.heard(&plane).await;
        plane.publish(all("1", "2"));
        let mut received = Vec::new();
        for _ in 0..2 {
            received.push(envoy.read(Listener).await.resource_type);
            envoy.ack();
        }
        received.sort();
        assert_eq!(received, [ExtensionConfig, Listener], "{way:?}");
    }
}

/// S35: an error makes a NACK, whatever the version says.
#[tokio::test]
async fn an_error_with_the_current_version_is_a_refusal() {
    for way in SOTW {
        let mut plane = Plane::serving([named(ExtensionConfig, "p", "1")]).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(ExtensionConfig, &["p"]).await;
        let response = envoy.read(ExtensionConfig).await;
        envoy.say_sotw(DiscoveryRequest {
            type_url: ExtensionConfig.type_url().into(),
            version_info: response.version_info,
            response_nonce: response.nonce,
            resource_names: vec!["p".into()],
            error_detail: Some(Status { message: "no".into(), ..Status::default() }),
            ..DiscoveryRequest::default()
        });
        assert!(plane.report().await.ends_with(r#"Refused { message: "no" }"#));
    }
}

/// S11: a nonce that was answered before is stale. S12: so are the names beside it, until they come with the newest one.
/// A nonce without an answer counts for its own response (design, rule 3).
#[tokio::test]
async fn a_stale_request_changes_nothing() {
    for way in SOTW {
        let mut plane = Plane::serving(plugins("1", "1")).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        let request = |nonce: &str, names: &[&str]| DiscoveryRequest {
            type_url: ExtensionConfig.type_url().into(),
            response_nonce: nonce.into(),
            resource_names: strings(names),
            ..DiscoveryRequest::default()
        };
        envoy.subscribe(ExtensionConfig, &["p"]).await;
        let first = envoy.read(ExtensionConfig).await.nonce;
        envoy.say_sotw(request(&first, &["p"]));
        assert!(plane.report().await.starts_with("p@"));
        plane.publish(plugins("2", "1"));
        let second = envoy.read(ExtensionConfig).await.nonce;
        for stale in [&*first, "77", "not ours"] {
            envoy.say_sotw(request(stale, &["p", "q"]));
        }
        envoy.say_sotw(request(&second, &["p", "q"]));
        envoy.read(ExtensionConfig).await;
        plane.publish(plugins("3", "1"));
        envoy.read(ExtensionConfig).await;
        // The answer to the older one, with names of which it knows less.
        let third = envoy.unanswered[2].nonce.clone();
        envoy.say_sotw(request(&third, &["q"]));
        let expected = ["ecds p@1", "ecds p@2", "ecds q@1", "ecds p@3"];
        assert_eq!(envoy.finish().await, expected, "{way:?}");
        let accepted: Vec<_> = plane.reports_so_far().await;
        let names: Vec<_> = accepted.iter().map(|report| &report[..1]).collect();
        assert_eq!(names, ["p", "q"], "{way:?}: {accepted:?}");
    }
}

/// D18: delta knows no stale request: names beside an old nonce count. D19: each answer is matched to its response.
#[tokio::test]
async fn answers_out_of_order_count_for_their_own_responses() {
    for way in DELTA {
        let mut plane = Plane::serving(["a", "b", "c"].map(|name| named(ExtensionConfig, name, "1"))).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(ExtensionConfig, &["a", "b"]).await;
        let first = envoy.read(ExtensionConfig).await;
        let second = envoy.read(ExtensionConfig).await;
        let answer = |nonce: &str, subscribe: &[&str], error: Option<&str>| DeltaDiscoveryRequest {
            type_url: ExtensionConfig.type_url().into(),
            response_nonce: nonce.into(),
            resource_names_subscribe: strings(subscribe),
            error_detail: error.map(|words| Status { message: words.into(), ..Status::default() }),
            ..DeltaDiscoveryRequest::default()
        };
        envoy.say_delta(answer(&second.nonce, &[], None));
        envoy.say_delta(answer(&first.nonce, &["c"], Some("bad")));
        envoy.say_delta(answer(&first.nonce, &[], None));
        envoy.read(ExtensionConfig).await;
        assert_eq!(envoy.finish().await, ["ecds a@1", "ecds b@1", "ecds c@1"], "{way:?}");
        let reports = plane.reports_so_far().await;
        assert_eq!(reports.len(), 2, "{reports:?}");
        assert!(reports[0].starts_with("b@") && reports[0].ends_with("Accepted"), "{reports:?}");
        assert!(reports[1].starts_with("a@") && reports[1].contains("bad"), "{reports:?}");
    }
}
