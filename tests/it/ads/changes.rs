//! What changes on the server, and what of it a client hears.

use wasmplane::snapshot::ResourceType::{Cluster, Endpoint, ExtensionConfig, Listener, Route};
use wasmplane::snapshot::{Resource, ResourceType};

use super::fake::{ADS, FakeEnvoy, WAYS};
use super::plane::{Plane, named};

fn using(mut user: Resource, of: ResourceType, name: &str) -> Resource {
    user.references.push((of, name.to_owned()));
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

/// S28: what is added goes in the order of use, and each waits for the one before. What is removed goes in reverse: the
/// cluster stays, as long as connections may use it.
#[tokio::test]
async fn a_change_of_several_types_goes_in_the_order_of_use() {
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

/// D28, first half: the listener that names an extension leaves first, and the extension's content stays for what still
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
