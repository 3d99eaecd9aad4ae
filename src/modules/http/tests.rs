use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::response::Redirect;
use axum::routing::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::modules::transport::{Limits, Settings};

const LIMITS: Limits = Limits {
    size: 10,
    connect: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    overall: Duration::from_secs(5),
    redirects: 2,
};

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

/// Answers one request with exactly these bytes and hangs up.
async fn serve_raw(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _request = socket.read(&mut [0; 1024]).await.unwrap();
        socket.write_all(answer.as_bytes()).await.unwrap();
    });
    address
}

async fn fetch(url: &str, limits: Limits) -> Result<bytes::Bytes, FetchError> {
    let transport = Transport::new(Settings::default(), limits);
    let (spooled, _batch) = get(&transport, &Spools::in_memory(), url, &|_| {}).await?;
    Ok(spooled.read().await.unwrap())
}

async fn failure(url: &str) -> String {
    fetch(url, LIMITS).await.unwrap_err().to_string()
}

#[tokio::test]
async fn only_200_is_an_answer_and_redirects_are_followed_for_a_while() {
    let router = Router::new()
        .route("/a.wasm", axum::routing::get(|| async { "0123456789" }))
        .route("/none", axum::routing::get(|| async { http::StatusCode::NO_CONTENT }))
        .route("/moved", axum::routing::get(|| async { Redirect::temporary("/a.wasm") }))
        .route("/loop", axum::routing::get(|| async { Redirect::temporary("/loop") }));
    let url = serve(router).await;
    for path in ["a.wasm", "moved"] {
        assert_eq!(fetch(&format!("{url}/{path}"), LIMITS).await.unwrap(), "0123456789");
    }
    assert_eq!(failure(&format!("{url}/b.wasm")).await, format!("GET {url}/b.wasm: 404 Not Found"));
    assert_eq!(failure(&format!("{url}/none")).await, format!("GET {url}/none: 204 No Content"));
    assert_eq!(failure(&format!("{url}/loop")).await, format!("GET {url}/loop: too many redirects"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_announced_or_not() {
    let streamed = || async {
        let chunks = ["0123456", "789ab"].map(Ok::<_, Infallible>);
        Body::from_stream(futures::stream::iter(chunks))
    };
    let router = Router::new()
        .route("/announced", axum::routing::get(|| async { "0123456789a" }))
        .route("/streamed", axum::routing::get(streamed));
    let url = serve(router).await;
    for path in ["announced", "streamed"] {
        let expected = format!("GET {url}/{path}: larger than the limit of 10 bytes");
        assert_eq!(failure(&format!("{url}/{path}")).await, expected);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_body() {
    let address = serve_raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    let text = failure(&format!("http://{address}/a.wasm")).await;
    assert!(text.starts_with(&format!("GET http://{address}/a.wasm: the body broke off: ")), "{text}");
}

#[tokio::test]
async fn nobody_there_is_said_plainly() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = failure(&format!("http://{address}/a.wasm")).await;
    assert!(text.starts_with(&format!("GET http://{address}/a.wasm: cannot connect: ")), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn silence_ends_with_the_overall_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a.wasm", listener.local_addr().unwrap());
    let limits = Limits { overall: Duration::from_millis(20), ..LIMITS };
    let error = fetch(&url, limits).await.unwrap_err();
    assert_eq!(error.to_string(), format!("GET {url}: not finished after 0 s"));
}

#[tokio::test]
async fn a_body_is_told_of_while_it_comes() {
    let url = serve(Router::new().route("/a", axum::routing::get(|| async { "0123456789" }))).await;
    let told = std::sync::Mutex::new(Vec::new());
    let transport = Transport::new(Settings::default(), LIMITS);
    let tell = |progress| told.lock().unwrap().push(progress);
    get(&transport, &Spools::in_memory(), &format!("{url}/a"), &tell).await.unwrap();
    assert_eq!(told.into_inner().unwrap(), [Progress::Total(10), Progress::Bytes(10)]);
}
