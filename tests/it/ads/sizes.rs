//! Answers above `--max-response-bytes`.

use wasmplane::snapshot::ResourceType;
use wasmplane::snapshot::ResourceType::{Cluster, ExtensionConfig, Listener, Route};
use wasmplane::xds::{Limits, Options};

use super::fake::{FakeEnvoy, WAYS};
use super::plane::{Plane, named};

const LIMIT: usize = 20_000;

fn oversized(plane: &Plane, of: ResourceType) -> u64 {
    plane.metric(&format!("xds_oversized_responses_total{{type=\"{}\"}}", of.short_name()))
}

/// D30, S20: delta is split, and in the state of the world what need not be complete.
#[tokio::test]
async fn a_large_answer_is_split_where_the_protocol_allows_it_and_counted_where_not() {
    let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
    let large = "1".repeat(5000);
    for way in WAYS {
        for of in [Cluster, Listener, Route] {
            let limits = Limits { max_response_bytes: LIMIT, ..Limits::default() };
            let plane = Plane::run(Options { limits, ..Options::default() }).await;
            plane.publish(names.iter().map(|name| named(of, name, &large)));
            let mut envoy = FakeEnvoy::of(&plane, way).await;
            let asked: Vec<&str> = if of == Route { names.iter().map(String::as_str).collect() } else { vec![] };
            envoy.subscribe(of, &asked).await;
            let is_split = way.is_delta() || of == Route;
            let (mut resources, mut responses) = (0, 0);
            while resources < names.len() {
                let response = envoy.read(of).await;
                resources += response.resources.len();
                responses += 1;
                assert_eq!(response.bytes <= LIMIT, is_split, "{way:?} {of:?}: {} bytes", response.bytes);
            }
            assert_eq!((responses, oversized(&plane, of)), if is_split { (4, 0) } else { (1, 1) }, "{way:?} {of:?}");
            envoy.finish().await;
        }
    }
}

/// D30: a chain with its modules is one resource, and cannot be divided.
#[tokio::test]
async fn a_resource_above_the_limit_goes_alone_and_is_counted() {
    for way in WAYS {
        let limits = Limits { max_response_bytes: LIMIT, ..Limits::default() };
        let plane = Plane::run(Options { limits, ..Options::default() }).await;
        plane.publish([named(ExtensionConfig, "p", &"1".repeat(2 * LIMIT)), named(ExtensionConfig, "q", "1")]);
        let mut envoy = FakeEnvoy::of(&plane, way).await;
        envoy.subscribe(ExtensionConfig, &["p", "q"]).await;
        envoy.read(ExtensionConfig).await;
        envoy.read(ExtensionConfig).await;
        assert_eq!(oversized(&plane, ExtensionConfig), 1);
        assert_eq!(envoy.finish().await.len(), 2, "{way:?}");
    }
}
