//! Hostile and broken registries: each of them ends in one clear sentence.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::keychain::Whose;
use super::*;
use crate::model::Credential;
use crate::modules::image::media_types::{CNCF_CONFIG, CNCF_LAYER, OCI_INDEX, OCI_MANIFEST};
use crate::modules::transport::{Limits, Settings};

const LIMITS: Limits = Limits {
    size: 1 << 20,
    connect: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    overall: Duration::from_secs(20),
    redirects: 3,
};

/// What a registry does with a request, and how often it was asked.
struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Fake {
    async fn start(answer: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let log = Arc::clone(&asked);
        let handle = move |request: Request| {
            let what = format!("{} {}", request.method(), request.uri());
            log.lock().unwrap().push((what, request.headers().clone()));
            std::future::ready(answer(&request))
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await.unwrap() });
        Self { address, asked }
    }

    fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(what, _)| what.clone()).collect()
    }

    fn authorizations(&self) -> Vec<Option<String>> {
        let of = |headers: &HeaderMap| headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.asked.lock().unwrap().iter().map(|(_, headers)| of(headers)).collect()
    }
}

/// The wasm of an image, and its manifest.
const MODULE: &[u8] = b"\0asm\x01\0\0\0 and more";

fn manifest(size: u64, digest: &Digest) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": CNCF_CONFIG, "digest": format!("sha256:{}", Digest::of(b"{}")), "size": 2},
        "layers": [{"mediaType": CNCF_LAYER, "digest": format!("sha256:{digest}"), "size": size,
            "urls": ["http://169.254.169.254/"]}],
    })
    .to_string()
    .into_bytes()
}

fn good_manifest() -> Vec<u8> {
    manifest(MODULE.len() as u64, &Digest::of(MODULE))
}

fn is_manifest(request: &Request) -> bool {
    request.uri().path().contains("/manifests/")
}

fn keys(credentials: Vec<Credential>) -> Keys {
    Keys { whose: Whose::Operator, credentials, in_words: "as a test".to_owned() }
}

fn password() -> Credential {
    Credential::Password { username: "alice".into(), password: "hunter2".into() }
}

async fn pull_with(fake: &Fake, rest: &str, keys: Keys, spools: &Spools) -> Result<Unpacked, PullError> {
    let transport = Arc::new(Transport::new(Settings::default(), LIMITS));
    let client = Client::new(transport);
    let reference = format!("{}/{rest}", fake.address).parse().unwrap();
    let pulled = async {
        let (mut session, resolved) = client.resolve(&reference, &keys).await?;
        let blobs = session.download_all(&resolved, spools, &|_| {}).await?;
        unpack(resolved, blobs, spools, UnpackLimits::default()).await
    };
    within(LIMITS.overall, "the image", pulled).await
}

async fn pull(fake: &Fake) -> Result<Unpacked, PullError> {
    pull_with(fake, "a:v1", keys(Vec::new()), &Spools::in_memory()).await
}

async fn failure(answer: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static) -> String {
    pull(&Fake::start(answer).await).await.unwrap_err().to_string()
}

#[tokio::test]
async fn an_image_is_pulled_and_no_url_of_a_descriptor_is_asked() {
    let fake = Fake::start(
        |request| if is_manifest(request) { good_manifest().into_response() } else { MODULE.into_response() },
    );
    let fake = fake.await;
    let unpacked = pull(&fake).await.unwrap();
    assert_eq!((&unpacked.extracted.module[..], unpacked.given.module), (MODULE, Digest::of(MODULE)));
    assert_eq!(unpacked.given.served, Some(Digest::of(&good_manifest())));
    let blob = format!("GET /v2/a/blobs/sha256:{}", Digest::of(MODULE));
    assert_eq!(fake.paths(), ["GET /v2/a/manifests/v1".to_owned(), blob]);
}

#[tokio::test]
async fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let other = Digest::of(b"other");
    let header = [("docker-content-digest", format!("sha256:{other}"))];
    let actual = Digest::of(&good_manifest());
    assert_eq!(
        failure(move |_| (header.clone(), good_manifest()).into_response()).await,
        format!("manifest v1: sha256 mismatch: its header says {other}, the registry sent {actual}")
    );
    let fake = Fake::start(|_| good_manifest().into_response()).await;
    let pinned = pull_with(&fake, &format!("a@sha256:{other}"), keys(Vec::new()), &Spools::in_memory()).await;
    assert_eq!(
        pinned.unwrap_err().to_string(),
        format!("manifest sha256:{other}: sha256 mismatch: the reference says {other}, the registry sent {actual}")
    );
}

#[tokio::test]
async fn a_registry_that_lies_about_a_blob_is_told_apart_from_the_truth() {
    let digest = Digest::of(MODULE);
    let blob = |manifest: Vec<u8>, body: &'static [u8]| {
        failure(
            move |request| {
                if is_manifest(request) { manifest.clone().into_response() } else { body.into_response() }
            },
        )
    };
    let other = b"\0asm\x01\0\0\0 and less";
    assert_eq!(
        blob(good_manifest(), other).await,
        format!(
            "blob sha256:{digest}: sha256 mismatch: the manifest says {digest}, the registry sent {}",
            Digest::of(other)
        )
    );
    for announced in [MODULE.len() as u64 - 1, MODULE.len() as u64 + 1] {
        let expected =
            format!("blob sha256:{digest}: the registry sent {} bytes, and announced {announced}", MODULE.len());
        assert_eq!(blob(manifest(announced, &digest), MODULE).await, expected);
    }
    assert_eq!(
        blob(manifest(LIMITS.size + 1, &digest), MODULE).await,
        format!("blob sha256:{digest}: larger than the limit of {} bytes", LIMITS.size)
    );
}

#[tokio::test]
async fn a_blob_without_end_is_left_at_its_announced_size() {
    let endless = || Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0; 65536])));
    let said = failure(
        move |request| {
            if is_manifest(request) { good_manifest().into_response() } else { Response::new(endless()) }
        },
    );
    let said = said.await;
    assert!(said.ends_with(&format!(" bytes, and announced {}", MODULE.len())), "{said}");
}

#[tokio::test]
async fn a_huge_manifest_is_refused_announced_or_not() {
    let expected = "manifest v1: larger than the limit of 4194304 bytes";
    assert_eq!(failure(|_| vec![b' '; 5 << 20].into_response()).await, expected);
    let endless = || Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 65536])));
    assert_eq!(failure(move |_| Response::new(endless())).await, expected);
}

#[tokio::test]
async fn an_index_within_an_index_is_refused() {
    let index = |child: &[u8], media_type: &str| {
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{"mediaType": media_type,
            "digest": format!("sha256:{}", Digest::of(child)), "size": child.len(),
            "platform": {"os": "linux", "architecture": "amd64"}}]})
        .to_string()
        .into_bytes()
    };
    let inner = index(&good_manifest(), OCI_MANIFEST);
    // One that says it is an image: those that say what they are were never chosen.
    let outer = index(&inner, OCI_MANIFEST);
    let said = failure(move |request| {
        if request.uri().path().ends_with("/v1") {
            outer.clone().into_response()
        } else {
            inner.clone().into_response()
        }
    });
    let said = said.await;
    assert!(said.ends_with("an index within an index: push the image again"), "{said}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_taken_up_where_it_ended() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let fake = Fake::start(move |request| {
        if is_manifest(request) {
            return good_manifest().into_response();
        }
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            return broken_after(&MODULE[..5]);
        }
        let range = request.headers()["range"].to_str().unwrap();
        let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
        let content_range = format!("bytes {from}-{}/{}", MODULE.len() - 1, MODULE.len());
        (StatusCode::PARTIAL_CONTENT, [("content-range", content_range)], &MODULE[from..]).into_response()
    });
    let fake = fake.await;
    assert_eq!(&pull(&fake).await.unwrap().extracted.module[..], MODULE);
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_registry_without_ranges_begins_again_and_one_that_only_breaks_off_is_given_up() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let again = Fake::start(move |request| match is_manifest(request) {
        true => good_manifest().into_response(),
        false if counter.fetch_add(1, Ordering::SeqCst) == 0 => broken_after(&MODULE[..5]),
        false => MODULE.into_response(),
    });
    assert_eq!(&pull(&again.await).await.unwrap().extracted.module[..], MODULE);
    let never = |request: &Request| match is_manifest(request) {
        true => good_manifest().into_response(),
        false => broken_after(&MODULE[..5]),
    };
    let said = failure(never).await;
    assert!(said.contains(": the body broke off: "), "{said}");
    let wrong_part = |request: &Request| match (is_manifest(request), request.headers().contains_key("range")) {
        (true, _) => good_manifest().into_response(),
        (_, false) => broken_after(&MODULE[..5]),
        _ => (StatusCode::PARTIAL_CONTENT, [("content-range", "bytes 0-1/2")], "xx").into_response(),
    };
    let said = failure(wrong_part).await;
    assert!(said.ends_with("the registry sent another part than the one asked for"), "{said}");
}

/// Announces all of the module, and hangs up after some of it.
fn broken_after(part: &'static [u8]) -> Response {
    let rest = futures::stream::once(async {
        // Lets the server send what it has.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("gone"))
    });
    let body = Body::from_stream(futures::stream::iter([Ok(part)]).chain(rest));
    ([("content-length", MODULE.len().to_string())], body).into_response()
}

#[tokio::test]
async fn a_refusal_is_said_with_the_registrys_own_words() {
    let body = r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#;
    for (status, words) in [
        (401, "401 Unauthorized (DENIED: requested access is denied), asked as a test"),
        (403, "403 Forbidden (DENIED: requested access is denied), asked as a test"),
        (404, "404 Not Found (DENIED: requested access is denied), asked as a test"),
        (500, "500 Internal Server Error (DENIED: requested access is denied)"),
        (302, "302 Found (DENIED: requested access is denied)"),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(failure(move |_| (status, body).into_response()).await, format!("manifest v1: {words}"));
    }
}

#[tokio::test]
async fn a_busy_registry_says_how_long_to_wait() {
    let busy = |_: &Request| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "70")]).into_response();
    let error = pull(&Fake::start(busy).await).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(70)));
    assert_eq!(error.to_string(), "manifest v1: 429 Too Many Requests");
}

#[tokio::test]
async fn a_blob_that_is_elsewhere_is_fetched_there_without_credentials() {
    let elsewhere = Fake::start(|_| MODULE.into_response()).await;
    let target = format!("http://{}/signed?key=1", elsewhere.address);
    let fake =
        Fake::start(move |request| match (is_manifest(request), request.headers().contains_key("authorization")) {
            (_, false) => (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=x")]).into_response(),
            (true, _) => good_manifest().into_response(),
            _ => (StatusCode::TEMPORARY_REDIRECT, [("location", target.clone())]).into_response(),
        });
    let fake = fake.await;
    pull_with(&fake, "a:v1", keys(vec![password()]), &Spools::in_memory()).await.unwrap();
    let basic = Some(Credential::basic("alice", "hunter2"));
    assert_eq!(fake.authorizations(), [None, basic.clone(), basic]);
    assert_eq!(elsewhere.authorizations(), [None]);
}

#[tokio::test]
async fn a_redirect_that_fishes_for_credentials_gets_none() {
    let fisher =
        Fake::start(|_| (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=x")]).into_response()).await;
    let target = format!("http://{}/v2/a/manifests/v1", fisher.address);
    let fake =
        Fake::start(move |_| (StatusCode::TEMPORARY_REDIRECT, [("location", target.clone())]).into_response()).await;
    let said = pull_with(&fake, "a:v1", keys(vec![password()]), &Spools::in_memory()).await.unwrap_err().to_string();
    assert_eq!(said, "manifest v1: 401 Unauthorized, asked as a test");
    assert_eq!(fisher.authorizations(), [None]);
}

#[tokio::test]
async fn a_token_realm_that_is_metadata_or_no_server_is_not_asked() {
    for (realm, words) in [
        ("http://169.254.169.254/token", "is plain http, which is not spoken there"),
        ("https://169.254.169.254/token", "169.254.169.254 is not dialled: a link-local address"),
        ("https://metadata.google.internal/", "metadata.google.internal is not dialled"),
        ("http://r.test/token", "is plain http, which is not spoken there"),
        ("file:///etc/passwd", "is neither https nor http"),
        ("token", "is no URL"),
    ] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let said =
            failure(move |_| (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge.clone())]).into_response());
        let said = said.await;
        assert!(said.contains(words) && said.starts_with("token "), "{said}");
    }
}

#[tokio::test]
async fn what_a_token_server_says_is_not_believed_blindly() {
    for (answer, words) in [
        ("hunter2", "the answer is no JSON with a token"),
        ("{}", "the answer holds no token"),
        ("{\"token\": \"a\\nb\"}", "the token is no text for a header"),
    ] {
        let fake = Fake::start(move |request: &Request| match request.uri().path() {
            "/token" => answer.into_response(),
            _ => {
                let host = request.headers()["host"].to_str().unwrap();
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=s,scope=\"repository:all:*\"");
                (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response()
            }
        });
        let fake = fake.await;
        let said = pull(&fake).await.unwrap_err().to_string();
        assert_eq!(said, format!("token from {}: {words}", fake.address));
        // The scope is ours, not what the registry would like.
        assert!(fake.paths()[1].ends_with("/token?service=s&scope=repository%3Aa%3Apull"), "{:?}", fake.paths());
    }
}

#[tokio::test]
async fn wrong_credentials_are_shown_twice_at_most() {
    let fake =
        Fake::start(|_| (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=x")]).into_response()).await;
    let said = pull_with(&fake, "a:v1", keys(vec![password()]), &Spools::in_memory()).await.unwrap_err().to_string();
    assert_eq!(said, "manifest v1: 401 Unauthorized, asked as a test");
    assert_eq!(fake.paths().len(), 2);
    assert!(!said.contains("hunter2"));
}

#[tokio::test]
async fn the_next_credential_that_fits_is_tried() {
    let fake = Fake::start(|request: &Request| match request.headers().get("authorization") {
        Some(value) if *value == "Bearer right" && is_manifest(request) => good_manifest().into_response(),
        Some(value) if *value == "Bearer right" => MODULE.into_response(),
        _ => StatusCode::FORBIDDEN.into_response(),
    });
    let tokens = ["wrong", "right"].map(|token| Credential::RegistryToken(token.to_owned()));
    pull_with(&fake.await, "a:v1", keys(tokens.into()), &Spools::in_memory()).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_no_reason_to_do_without_an_image() {
    let fake = Fake::start(
        |request| if is_manifest(request) { good_manifest().into_response() } else { MODULE.into_response() },
    );
    let spools = Spools::on_device(std::path::Path::new("/dev/full"));
    pull_with(&fake.await, "a:v1", keys(Vec::new()), &spools).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_drips_is_left() {
    let dripped = Arc::<AtomicUsize>::default();
    let count = dripped.clone();
    let drip = move || {
        // Connected by now; what is left of the time goes by in drops.
        tokio::time::pause();
        let drops = futures::stream::unfold(count.clone(), |count| async {
            tokio::time::sleep(LIMITS.idle / 10).await;
            count.fetch_add(1, Ordering::Relaxed);
            Some((Ok::<_, std::io::Error>(vec![b' ']), count))
        });
        Response::new(Body::from_stream(drops.take(1000)))
    };
    let fake = Fake::start(move |_| drip()).await;
    let client = Client::new(Arc::new(Transport::new(Settings::default(), LIMITS)));
    let reference = format!("{}/a:v1", fake.address).parse().unwrap();
    let keys = keys(Vec::new());
    let pulled = async { client.resolve(&reference, &keys).await.map(drop) };
    let said = within(LIMITS.overall, "the image", pulled).await.unwrap_err().to_string();
    assert_eq!(said, "the image: not finished after 20 s");
    assert!(dripped.load(Ordering::Relaxed) > 20, "it was not silent: {dripped:?}");
}
