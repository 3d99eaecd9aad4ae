//! What a client asks for, and what it gets at first.

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tonic::Code;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener, Route};

use super::envoy::{Delta, Sotw, delta, sotw};
use super::fake::{ADS, DELTA, FakeEnvoy, WAYS, Way};
use super::plane::{Plane, named};

/// S5, S6, S15, D1: everything in one response, with a version and a nonce; ECDS one resource per response.
#[tokio::test]
async fn a_first_request_gets_all_that_there_is() {
    for way in WAYS {
        let all =
            [named(Cluster, "a", "1"), named(Cluster, "b", "1"), named(Listener, "l", "1"), named(Route, "r", "1")];
        let all = all.into_iter().chain(["p", "q"].map(|name| named(ExtensionConfig, name, "1")));
        let plane = Plane::serving(all).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        let mut nonces = Vec::new();
        for (of, names, responses) in
            [(Cluster, &[][..], 1), (Listener, &[], 1), (Route, &["r"], 1), (ExtensionConfig, &["p", "q"], 2)]
        {
            envoy.subscribe(of, names).await;
            for _ in 0..responses {
                let response = envoy.read(of).await;
                envoy.ack();
                assert!(!response.nonce.is_empty());
                assert_eq!(response.version_info.is_empty(), way.is_delta());
                nonces.push(response.nonce);
            }
        }
        nonces.sort();
        nonces.dedup();
        assert!(!way.is_ads() || nonces.len() == 5, "{way:?}: {nonces:?}");
        assert_eq!(envoy.finish().await, ["cds a@1 b@1", "lds l@1", "rds r@1", "ecds p@1", "ecds q@1"], "{way:?}");
    }
}

/// S1: a request on ADS says its type. S2: on a service of one type it need not.
#[tokio::test]
async fn only_a_service_of_one_type_knows_what_is_meant() {
    for way in WAYS {
        for is_first in [true, false] {
            let plane = Plane::serving(["p", "q"].map(|name| named(ExtensionConfig, name, "1"))).await;
            let mut envoy = FakeEnvoy::of(&plane, way).await;
            envoy.omits_type_url = is_first;
            envoy.subscribe(ExtensionConfig, &["p"]).await;
            if !is_first {
                envoy.accept(ExtensionConfig).await;
                envoy.omits_type_url = true;
                envoy.subscribe(ExtensionConfig, &["q"]).await;
            }
            if way.is_ads() {
                let status = envoy.end().await;
                let expected = (Code::InvalidArgument, "a request on ADS must have a type_url");
                assert_eq!((status.code(), status.message()), expected, "{way:?}");
                continue;
            }
            envoy.accept(ExtensionConfig).await;
            // Its answer counts as well.
            envoy.heard(&plane).await;
            plane.publish([named(ExtensionConfig, "p", "2"), named(ExtensionConfig, "q", "1")]);
            envoy.accept(ExtensionConfig).await;
            let before = if is_first { vec!["ecds p@1"] } else { vec!["ecds p@1", "ecds q@1"] };
            assert_eq!(envoy.finish().await, [before, vec!["ecds p@2"]].concat(), "{way:?}");
        }
    }
}

/// S3: the node is said once. S4: who says none is refused. D34: who says another one later, too.
#[tokio::test]
async fn a_stream_belongs_to_one_node() {
    let plane = Plane::serving([named(Cluster, "c", "1")]).await;
    for (id, words) in [("", "must carry a node with an id"), ("other", r#"belongs to node "e", not to "other""#)] {
        let (mut first, mut second) = (Sotw::ads(&plane.url).await, Delta::ads(&plane.url).await);
        if !id.is_empty() {
            first.send(sotw("e", Cluster, &[]));
            first.next().await;
            second.send(delta("e", Cluster, &[]));
            second.next().await;
        }
        first.send(sotw(id, Listener, &[]));
        second.send(delta(id, Listener, &[]));
        for status in [first.end().await, second.end().await] {
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(words), "{status}");
        }
    }
    for way in ADS {
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Cluster, &[]).await;
        envoy.accept(Cluster).await;
        envoy.subscribe(Listener, &[]).await; // Without a node.
        envoy.accept(Listener).await;
        assert_eq!(envoy.finish().await, ["cds c@1", "lds"]);
    }
}

/// S16, D2, D3: a star is everything, and a name beside it is a name.
#[tokio::test]
async fn a_star_and_a_name_both_apply() {
    for way in WAYS {
        let clusters = |version| ["a", "b"].map(|name| named(Cluster, name, version));
        let plane = Plane::serving(clusters("1")).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Cluster, &["*", "a"]).await;
        envoy.accept(Cluster).await;
        envoy.unsubscribe(Cluster, &["*"]);
        envoy.heard(&plane).await;
        plane.publish(clusters("2"));
        envoy.accept(Cluster).await;
        assert_eq!(envoy.finish().await, ["cds a@1 b@1", "cds a@2"], "{way:?}");
    }
}

/// S17: whoever has named something and then names nothing asks for nothing. D3: in delta, a name beside an unsaid star
/// leaves the star.
#[tokio::test]
async fn a_name_after_an_unsaid_star() {
    for way in WAYS {
        let plane = Plane::serving([named(Cluster, "a", "1"), named(Cluster, "b", "1")]).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Cluster, &[]).await;
        envoy.accept(Cluster).await;
        envoy.subscribe(Cluster, &["a"]).await;
        envoy.accept(Cluster).await;
        envoy.heard(&plane).await;
        if way.is_delta() {
            plane.publish([named(Cluster, "a", "1"), named(Cluster, "b", "2")]);
            envoy.accept(Cluster).await;
            assert_eq!(envoy.finish().await, ["cds a@1 b@1", "cds a@1", "cds b@2"], "{way:?}");
        } else {
            envoy.unsubscribe(Cluster, &["a"]);
            plane.publish([named(Cluster, "a", "1"), named(Cluster, "b", "2")]);
            assert_eq!(envoy.finish().await, ["cds a@1 b@1", "cds a@1"], "{way:?}");
        }
    }
}

/// D4: sent again, or said to be gone.
#[tokio::test]
async fn a_name_that_is_dropped_beside_a_star_is_answered() {
    for way in DELTA {
        let plane = Plane::serving([named(Cluster, "a", "1")]).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Cluster, &["*", "a", "gone"]).await;
        envoy.accept(Cluster).await;
        for name in ["a", "gone"] {
            envoy.unsubscribe(Cluster, &[name]);
            envoy.accept(Cluster).await;
        }
        assert_eq!(envoy.finish().await, ["cds a@1 -gone", "cds a@1", "cds -gone"], "{way:?}");
    }
}

/// S22: fewer names need no answer, and what was dropped is not sent. S23, S24, D25: a name more, or again, is answered
/// although nothing has changed.
#[tokio::test]
async fn names_come_and_go() {
    for way in WAYS {
        let plugins = |a, b| [named(ExtensionConfig, "a", a), named(ExtensionConfig, "b", b)];
        let plane = Plane::serving(plugins("1", "1")).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(ExtensionConfig, &["a"]).await;
        envoy.accept(ExtensionConfig).await;
        envoy.subscribe(ExtensionConfig, &["b"]).await;
        envoy.accept(ExtensionConfig).await;
        envoy.unsubscribe(ExtensionConfig, &["b"]);
        envoy.heard(&plane).await;
        plane.publish(plugins("2", "2"));
        envoy.accept(ExtensionConfig).await;
        envoy.subscribe(ExtensionConfig, &["b"]).await;
        envoy.accept(ExtensionConfig).await;
        envoy.unsubscribe(ExtensionConfig, &["b"]);
        envoy.subscribe(ExtensionConfig, &["b"]).await;
        envoy.accept(ExtensionConfig).await;
        let expected = ["ecds a@1", "ecds b@1", "ecds a@2", "ecds b@2", "ecds b@2"];
        assert_eq!(envoy.finish().await, expected, "{way:?}");
    }
}

/// S25, D8: it blocks nobody, and is sent when it appears; delta says of routes (not of ECDS) that it is missing.
#[tokio::test]
async fn a_name_that_does_not_exist_is_sent_when_it_does() {
    for way in WAYS {
        let plane = Plane::serving([named(ExtensionConfig, "p", "1"), named(Route, "r", "1")]).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        for (of, name) in [(ExtensionConfig, "p"), (Route, "r")] {
            envoy.subscribe(of, &[name, "later"]).await;
            envoy.accept(of).await;
        }
        envoy.heard(&plane).await;
        let later = [ExtensionConfig, Route].map(|of| named(of, "later", "1"));
        plane.publish(later.into_iter().chain([named(ExtensionConfig, "p", "1"), named(Route, "r", "1")]));
        envoy.accept(ExtensionConfig).await;
        envoy.accept(Route).await;
        let routes = if way.is_delta() { "rds r@1 -later" } else { "rds r@1" };
        assert_eq!(envoy.finish().await, ["ecds p@1", routes, "ecds later@1", "rds later@1"], "{way:?}");
    }
}

/// S26: so that the client can finish its start.
#[tokio::test]
async fn an_empty_set_is_answered_once() {
    for way in WAYS {
        let plane = Plane::serving([]).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Cluster, &[]).await;
        envoy.accept(Cluster).await;
        envoy.subscribe(Listener, &["*"]).await;
        envoy.accept(Listener).await;
        plane.publish([]);
        assert_eq!(envoy.finish().await, ["cds", "lds"], "{way:?}");
    }
}

/// S27: what waits for its turn leaves with the last name.
#[tokio::test]
async fn a_dropped_name_takes_its_waiting_content_with_it() {
    for way in WAYS {
        let plane = Plane::serving([named(ExtensionConfig, "a", "1")]).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(ExtensionConfig, &["a"]).await;
        envoy.read(ExtensionConfig).await;
        plane.publish([named(ExtensionConfig, "a", "2")]); // It waits for the answer to the one before.
        let nonce = envoy.unanswered[0].nonce.clone();
        match way.is_delta() {
            true => envoy.unsubscribe(ExtensionConfig, &["a"]),
            false => envoy.say_sotw(DiscoveryRequest {
                type_url: ExtensionConfig.type_url().into(),
                response_nonce: nonce,
                ..DiscoveryRequest::default()
            }),
        }
        assert_eq!(envoy.finish().await, ["ecds a@1"], "{way:?}");
    }
}

/// D17: a subscription in mid-stream counts although responses have no answer. D26: unsubscription after subscription.
#[tokio::test]
async fn a_subscription_waits_for_no_answer() {
    for way in DELTA {
        let plane = Plane::serving(["a", "b", "c"].map(|name| named(ExtensionConfig, name, "1"))).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(ExtensionConfig, &["a"]).await;
        envoy.say_delta(DeltaDiscoveryRequest {
            type_url: ExtensionConfig.type_url().into(),
            resource_names_subscribe: vec!["c".into()],
            resource_names_unsubscribe: vec!["c".into()],
            ..DeltaDiscoveryRequest::default()
        });
        envoy.subscribe(ExtensionConfig, &["b"]).await;
        assert_eq!(envoy.finish().await, ["ecds a@1", "ecds b@1"], "{way:?}");
    }
}

/// D36: on ADS, the others go on.
#[tokio::test]
async fn a_type_that_is_not_served_leaves_the_stream_alive() {
    const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
    let plane = Plane::serving([named(Cluster, "c", "1"), named(Listener, "l", "1")]).await;
    for way in ADS {
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Cluster, &[]).await;
        envoy.accept(Cluster).await;
        for type_url in [RUNTIME, "not even a URL"] {
            match way.is_delta() {
                true => envoy.say_delta(DeltaDiscoveryRequest { type_url: type_url.into(), ..Default::default() }),
                false => envoy.say_sotw(DiscoveryRequest { type_url: type_url.into(), ..Default::default() }),
            }
        }
        envoy.subscribe(Listener, &[]).await;
        envoy.accept(Listener).await;
        plane.publish([named(Cluster, "c", "2"), named(Listener, "l", "1")]);
        envoy.accept(Cluster).await;
        assert_eq!(envoy.finish().await, ["cds c@1", "lds l@1", "cds c@2"], "{way:?}");
        plane.publish([named(Cluster, "c", "1"), named(Listener, "l", "1")]);
    }
    // The first request of all may be one of those.
    let mut stream = Sotw::ads(&plane.url).await;
    stream.send(DiscoveryRequest { type_url: RUNTIME.into(), ..sotw("e", Cluster, &[]) });
    stream.send(sotw("e", Cluster, &[]));
    assert_eq!(stream.next().await.type_url, Cluster.type_url());
}

/// S31: each of two streams of one node has its own answers.
#[tokio::test]
async fn two_streams_of_one_node_have_their_own_state() {
    for way in [Way::SotwSeparate, Way::DeltaSeparate] {
        let plane = Plane::serving([named(ExtensionConfig, "p", "1")]).await;
        let (mut first, mut second) = (FakeEnvoy::of(&plane, way).await, FakeEnvoy::of(&plane, way).await);
        for envoy in [&mut first, &mut second] {
            envoy.subscribe(ExtensionConfig, &["p"]).await;
            assert_eq!(envoy.read(ExtensionConfig).await.nonce, "1");
        }
        first.nack("bad");
        second.ack();
        plane.publish([named(ExtensionConfig, "p", "2")]);
        for (mut envoy, way) in [(first, way), (second, way)] {
            envoy.read(ExtensionConfig).await;
            let log = envoy.finish().await;
            assert_eq!(log.first().map(String::as_str), Some("ecds p@1"), "{way:?}");
            assert_eq!(log.last().map(String::as_str), Some("ecds p@2"), "{way:?}");
        }
    }
}
