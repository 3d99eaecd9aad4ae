//! What changes on the server, and what of it a client hears.

use std::time::Duration;

use wasmplane::snapshot::ResourceType::{Cluster, Endpoint, ExtensionConfig, Listener, Route};
use wasmplane::snapshot::{Resource, ResourceType};
use wasmplane::xds::{Limits, Options};

use super::fake::{ADS, FakeEnvoy, WAYS};
use super::plane::{Plane, named};

fn using(mut user: Resource, of: ResourceType, name: &str) -> Resource {
    user.references.push((of, name.into()));
    user
}

/// S18: one change brings the whole set. S19: what the set lacks is deleted. D5, D6: delta says each by itself, and once.
#[tokio::test]
async fn sets_change() {
    for way in WAYS {
        for of in [Listener, Cluster] {
            let plane = Plane::serving([named(of, "a", "1"), named(of, "b", "1")]).await;
            let mut envoy = FakeEnvoy::of(&plane, way).await;
            envoy.subscribe(of, &[]).await;
            envoy.accept(of).await;
            plane.publish([named(of, "a", "1"), named(of, "b", "2")]);
            envoy.accept(of).await;
            plane.publish([named(of, "b", "2")]);
            envoy.accept(of).await;
            envoy.heard(&plane).await;
            plane.publish([named(of, "b", "2")]);
            let kind = of.short_name();
            let expected = if way.is_delta() { ["a@1 b@1", "b@2", "-a"] } else { ["a@1 b@1", "a@1 b@2", "b@2"] };
            assert_eq!(envoy.finish().await, expected.map(|words| format!("{kind} {words}")), "{way:?}");
        }
    }
}

/// S20, D5: of types whose responses need not be complete, only what changed.
#[tokio::test]
async fn one_changed_name_goes_alone() {
    for way in WAYS {
        for of in [ExtensionConfig, Route, Endpoint] {
            let plane = Plane::serving([named(of, "a", "1"), named(of, "b", "1")]).await;
            let mut envoy = FakeEnvoy::of(&plane, way).await;
            envoy.subscribe(of, &["a"]).await;
            envoy.accept(of).await;
            envoy.subscribe(of, &["b"]).await;
            envoy.accept(of).await;
            plane.publish([named(of, "a", "1"), named(of, "b", "2")]);
            envoy.accept(of).await;
            let expected = ["a@1", "b@1", "b@2"].map(|words| format!("{} {words}", of.short_name()));
            assert_eq!(envoy.finish().await, expected, "{way:?}");
        }
    }
}

/// S21: the state of the world has no word for it. D6: delta has, and says it once. D28: of ECDS nobody is told, as Envoy
/// would answer 500.
#[tokio::test]
async fn a_name_that_is_gone() {
    for way in WAYS {
        for of in [ExtensionConfig, Route] {
            let plane = Plane::serving([named(of, "a", "1"), named(of, "b", "1")]).await;
            let mut envoy = FakeEnvoy::of(&plane, way).await;
            envoy.subscribe(of, &["a"]).await;
            envoy.accept(of).await;
            envoy.subscribe(of, &["b"]).await;
            envoy.accept(of).await;
            envoy.heard(&plane).await;
            plane.publish([named(of, "b", "1")]);
            plane.publish([named(of, "b", "2")]);
            let mut expected = vec!["a@1", "b@1"];
            if way.is_delta() && of == Route {
                // Together or one after the other, as it comes.
                let mut told = Vec::new();
                while !(told.contains(&"-a".to_owned()) && told.contains(&"b@2".to_owned())) {
                    envoy.accept(of).await;
                    let words = envoy.log.pop().unwrap_or_default();
                    told.extend(words.split(' ').skip(1).map(str::to_owned));
                }
                assert_eq!(told.len(), 2, "{told:?}");
            } else {
                envoy.accept(of).await;
                expected.push("b@2");
            }
            let expected: Vec<_> = expected.iter().map(|words| format!("{} {words}", of.short_name())).collect();
            assert_eq!(envoy.finish().await, expected, "{way:?} {of:?}");
        }
    }
}

/// D7: what came and went before it could be sent is no news.
#[tokio::test]
async fn what_was_never_sent_is_not_removed() {
    for way in WAYS {
        let plane = Plane::serving([named(Listener, "a", "1")]).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Listener, &[]).await;
        envoy.read(Listener).await;
        plane.publish([named(Listener, "a", "1"), named(Listener, "b", "1")]);
        plane.publish([named(Listener, "a", "1")]);
        envoy.ack();
        assert_eq!(envoy.finish().await, ["lds a@1"], "{way:?}");
    }
}

/// S7, S30, D13, D21: equal content is no change, however often it is published, and an ACK has no answer.
#[tokio::test]
async fn equal_content_is_never_sent_again() {
    for way in WAYS {
        let types = [(Cluster, ""), (Listener, ""), (Route, "x"), (Endpoint, "x"), (ExtensionConfig, "x")];
        let all = || types.map(|(of, _)| named(of, "x", "1"));
        let plane = Plane::serving(all()).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        for (of, name) in types {
            let names = [name];
            envoy.subscribe(of, if name.is_empty() { &[] } else { &names }).await;
            envoy.accept(of).await;
        }
        envoy.heard(&plane).await;
        for _ in 0..100 {
            plane.publish(all());
        }
        assert_eq!(envoy.finish().await, ["cds x@1", "lds x@1", "rds x@1", "eds x@1", "ecds x@1"], "{way:?}");
    }
}

/// D20: one of a thousand is one resource; S20: also in the state of the world, where a response need not be complete.
#[tokio::test]
async fn one_change_among_a_thousand_is_one_resource() {
    for way in WAYS {
        let names: Vec<String> = (0..1000).map(|number| format!("n{number:04}")).collect();
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        for (of, asked) in [(Cluster, &[][..]), (Route, &asked)] {
            if of == Cluster && !way.is_delta() {
                continue;
            }
            let all = |content| {
                let of_name = move |name: &String| named(of, name, if name == "n0500" { content } else { "1" });
                names.iter().map(of_name).collect::<Vec<_>>()
            };
            let plane = Plane::serving(all("1")).await;
            let mut envoy = FakeEnvoy::of(&plane, way).await;
            envoy.subscribe(of, asked).await;
            envoy.accept(of).await;
            plane.publish(all("2"));
            assert_eq!(envoy.read(of).await.in_words(), format!("{} n0500@2", of.short_name()), "{way:?}");
            assert_eq!(envoy.finish().await.len(), 2, "{way:?}");
        }
    }
}

/// S28: what is added goes in the order of use, CDS before EDS before LDS before RDS, and listeners and routes wait for the
/// answers to what they use. What is removed goes in reverse.
#[tokio::test]
async fn a_change_of_all_types_goes_in_the_order_of_use() {
    for way in ADS {
        let all = |number: &str| {
            let name = |kind: &str| format!("{kind}{number}");
            let route = using(named(Route, &name("r"), "1"), Cluster, &name("c"));
            let listener = using(named(Listener, &name("l"), "1"), Route, &name("r"));
            let plugin = named(ExtensionConfig, &name("p"), "1");
            let endpoints = named(Endpoint, &name("e"), "1");
            let cluster = using(named(Cluster, &name("c"), "1"), Endpoint, &name("e"));
            [route, listener, plugin, endpoints, cluster]
        };
        // What was used is not spared for connections that drain.
        let limits = Limits { drain: Duration::ZERO, ..Limits::default() };
        let plane = Plane::run(Options { limits, ..Options::default() }).await;
        plane.publish(all("1"));
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        for (of, names) in [
            (Cluster, &[][..]),
            (Endpoint, &["e1", "e2"]),
            (Listener, &[]),
            (ExtensionConfig, &["p1", "p2"]),
            (Route, &["r1", "r2"]),
        ] {
            envoy.subscribe(of, names).await;
            envoy.read(of).await;
            envoy.ack();
        }
        envoy.heard(&plane).await;
        envoy.log.clear();
        plane.publish(all("1").into_iter().chain(all("2")));
        for of in [Cluster, Endpoint, ExtensionConfig] {
            assert_eq!(envoy.read(of).await.resource_type, of, "{way:?}");
        }
        let sent = ["lds", "rds"].map(|kind| plane.metric(&format!("xds_responses_total{{type=\"{kind}\"}}")));
        assert_eq!(sent, [1, 1], "{way:?}: what uses the new cluster waits for its answer");
        envoy.ack();
        for of in [Listener, Route] {
            assert_eq!(envoy.read(of).await.resource_type, of, "{way:?}");
        }
        for _ in 0..4 {
            envoy.ack();
        }
        envoy.heard(&plane).await;
        envoy.log.clear();
        plane.publish(all("1"));
        envoy.accept(Listener).await;
        if way.is_delta() {
            for of in [Route, Cluster, Endpoint] {
                envoy.accept(of).await;
            }
        } else {
            // The state of the world has no word for a route that is gone, but the listener was its only use.
            envoy.unsubscribe(Route, &["r2"]);
            envoy.accept(Cluster).await;
            envoy.unsubscribe(Endpoint, &["e2"]);
        }
        let delta = ["lds -l2", "rds -r2", "cds -c2", "eds -e2"];
        let expected = if way.is_delta() { &delta[..] } else { &["lds l1@1", "cds c1@1"] };
        assert_eq!(envoy.finish().await, expected, "{way:?}");
    }
}

/// S28: a cluster stays, as long as connections may use it.
#[tokio::test]
async fn a_listener_that_changes_its_cluster_gets_the_new_one_before_and_loses_the_old_one_later() {
    for way in ADS {
        let l = |version, cluster| using(using(named(Listener, "l", version), Cluster, cluster), ExtensionConfig, "p");
        let before = [l("1", "old"), named(Cluster, "old", "1"), named(ExtensionConfig, "p", "1")];
        let plane = Plane::serving(before).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Cluster, &[]).await;
        envoy.accept(Cluster).await;
        envoy.subscribe(Listener, &[]).await;
        envoy.read(Listener).await;
        envoy.subscribe(ExtensionConfig, &["p"]).await;
        envoy.accept(ExtensionConfig).await;
        envoy.heard(&plane).await;
        plane.publish([l("2", "new"), named(Cluster, "new", "1"), named(ExtensionConfig, "p", "1")]);
        envoy.accept(Cluster).await;
        envoy.accept(Listener).await;
        let cluster = if way.is_delta() { "cds new@1" } else { "cds new@1 old@1" };
        let expected = ["cds old@1", "lds l@1", "ecds p@1", cluster, "lds l@2"];
        assert_eq!(envoy.finish().await, expected, "{way:?}");
    }
}

/// D27: at the start, extensions are sent while the listener that names them has no answer yet.
#[tokio::test]
async fn a_listener_that_warms_gets_its_extensions() {
    for way in ADS {
        let l = using(named(Listener, "l", "1"), ExtensionConfig, "p");
        let plane = Plane::serving([l, named(ExtensionConfig, "p", "1")]).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Listener, &[]).await;
        envoy.read(Listener).await;
        envoy.subscribe(ExtensionConfig, &["p"]).await;
        envoy.read(ExtensionConfig).await;
        assert_eq!(envoy.finish().await, ["lds l@1", "ecds p@1"], "{way:?}");
    }
}

/// D28: (its first half) the listener that names an extension leaves first, and the extension's content stays for what still
/// drains through it, until Envoy unsubscribes.
#[tokio::test]
async fn an_extension_outlives_the_listener_that_names_it() {
    for way in ADS {
        let l = |version| named(Listener, "l", version);
        let plane = Plane::serving([using(l("1"), ExtensionConfig, "p"), named(ExtensionConfig, "p", "1")]).await;
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(Listener, &[]).await;
        envoy.read(Listener).await;
        envoy.subscribe(ExtensionConfig, &["p"]).await;
        envoy.accept(ExtensionConfig).await;
        envoy.heard(&plane).await;
        plane.publish([l("2")]);
        envoy.accept(Listener).await;
        envoy.unsubscribe(ExtensionConfig, &["p"]);
        assert_eq!(envoy.finish().await, ["lds l@1", "ecds p@1", "lds l@2"], "{way:?}");
    }
}
