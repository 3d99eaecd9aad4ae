use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::extract::Request as Asked;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

const LIMITS: Limits = Limits {
    size: 100,
    connect: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    overall: Duration::from_secs(20),
    redirects: 3,
};

/// What each request said of itself: path, and `Authorization`.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A server that redirects `/to/URL` there, and answers everything else with 200.
async fn server(host: &str) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind(format!("{host}:0")).await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let state = Arc::clone(&seen);
    let answer = move |request: Asked| {
        let authorization = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
        let path = request.uri().path().to_owned();
        state.lock().unwrap().push((path.clone(), authorization));
        std::future::ready(answer(&path))
    };
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, seen)
}

fn answer(path: &str) -> Response {
    match path.strip_prefix("/to/") {
        Some(target) => (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, target.to_owned())]).into_response(),
        None => "fine".into_response(),
    }
}

/// Of tests: who signs, and the certificate that is trusted for it.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap())
    }

    fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.0.pem().as_bytes()).unwrap()
    }

    /// A server of 127.0.0.1 over TLS that gives every request this answer.
    async fn serve(&self, answer: String) -> SocketAddr {
        let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "server");
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.0).unwrap().der().clone()];
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let settings = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let settings = settings.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(settings));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Who does not trust the certificate leaves.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut asked = [0; 4096];
                let _whatever_it_is = stream.read(&mut asked).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        address
    }
}

fn transport() -> Transport {
    Transport::new(Settings::default(), LIMITS)
}

fn request(url: &str) -> Request {
    let authorization = Some(HeaderValue::from_static("Basic secret"));
    Request { authorization, ..Request::get(Url::parse(url).unwrap(), Reach::Written) }
}

async fn failure(url: &str) -> String {
    transport().send(request(url)).await.unwrap_err().cause
}

#[tokio::test]
async fn a_redirect_to_another_server_does_not_carry_what_authorises() {
    let ((first, seen_first), (second, seen_second)) = (server("127.0.0.1").await, server("127.0.0.1").await);
    // Another port, and back again.
    let url = format!("http://{first}/to/http://{second}/to/http://{first}/end");
    let response = transport().send(request(&url)).await.unwrap();
    assert_eq!(response.url().as_str(), format!("http://{first}/end"));
    let of =
        |seen: Seen| seen.lock().unwrap().iter().map(|(_, authorization)| authorization.clone()).collect::<Vec<_>>();
    assert_eq!(of(seen_first), [Some("Basic secret".to_owned()), None]);
    assert_eq!(of(seen_second), [None]);
}

#[tokio::test]
async fn a_redirect_on_the_same_server_does() {
    let (address, seen) = server("127.0.0.1").await;
    transport().send(request(&format!("http://{address}/to//other"))).await.unwrap();
    assert!(seen.lock().unwrap().iter().all(|(_, authorization)| authorization.is_some()));
}

#[tokio::test]
async fn redirects_end() {
    let (address, seen) = server("127.0.0.1").await;
    let url = format!("http://{address}/to//to//to//to//end");
    assert_eq!(failure(&url).await, "too many redirects");
    assert_eq!(seen.lock().unwrap().len(), LIMITS.redirects + 1);
}

#[tokio::test]
async fn no_redirect_leads_to_metadata_or_out_of_http() {
    let (address, _) = server("127.0.0.1").await;
    let to = |target: &str| failure_of(format!("http://{address}/to/{target}"));
    assert!(to("http://169.254.169.254/latest").await.starts_with("169.254.169.254 is not dialled: a link-local"));
    assert!(to("http://[::ffff:169.254.169.254]/").await.contains("is not dialled"));
    assert!(to("http://[fd00:ec2::254]/").await.contains("a metadata service"));
    assert!(to("http://metadata.google.internal/").await.contains("a metadata service"));
    assert_eq!(to("file:///etc/passwd").await, "redirected to file:, which is not followed");
    assert_eq!(to("http://[").await, "redirected to what is no URL");
}

async fn failure_of(url: String) -> String {
    failure(&url).await
}

#[tokio::test]
async fn private_addresses_can_be_denied_by_number_and_by_name() {
    let (address, seen) = server("127.0.0.1").await;
    let rules = Rules { deny_private: true, allowed: Vec::new() };
    let transport = Transport::new(Settings { rules, ..Settings::default() }, LIMITS);
    let port = address.port();
    let ask = async |host: &str| transport.send(request(&format!("http://{host}:{port}/"))).await.unwrap_err().cause;
    assert!(ask("127.0.0.1").await.starts_with("127.0.0.1 is not dialled: private addresses are denied"));
    let by_name = ask("localhost").await;
    assert!(by_name.starts_with("localhost resolves to ") && by_name.contains("not dialled: private"), "{by_name}");
    assert_eq!(seen.lock().unwrap().len(), 0);
}

#[test]
fn plain_http_is_spoken_where_the_operator_said_so_and_on_this_machine() {
    let host = |text: &str| text.parse::<HostPort>().unwrap();
    let insecure_registries = vec![host("plain.test"), host("r.test:5000")];
    let registry_cas = vec![(host("localhost:5001"), Vec::new())];
    let transport = Transport::new(Settings { insecure_registries, registry_cas, ..Settings::default() }, LIMITS);
    for plain in ["plain.test", "plain.test:1", "r.test:5000", "localhost:5000", "127.0.0.1:5000"] {
        assert!(transport.is_plain(&host(plain)), "{plain}");
    }
    for tls in ["r.test", "r.test:5001", "localhost:5001", "10.0.0.1:5000", "docker.io"] {
        assert!(!transport.is_plain(&host(tls)), "{tls}");
    }
}

/// An upload's work that takes `whole`, while a piece goes off at each of these intervals.
async fn upload(whole: Duration, pieces: &[Duration]) -> Option<()> {
    let (went, watched) = watch::channel(());
    let sending = async move {
        for wait in pieces {
            tokio::time::sleep(*wait).await;
            went.send_replace(());
        }
    };
    let work = async { tokio::join!(sending, tokio::time::sleep(whole)).1 };
    while_moving(work, watched, LIMITS.idle).await
}

#[tokio::test(start_paused = true)]
async fn an_upload_ends_where_it_stands_still_and_not_where_it_takes_long() {
    let (short, long) = (LIMITS.idle / 2, LIMITS.idle * 2);
    assert_eq!(upload(short * 20, &[short; 19]).await, Some(()));
    // The registry is storing it.
    assert_eq!(upload(long * 10, &[short]).await, Some(()));
    assert_eq!(upload(long * 2, &[short, long]).await, None);
}

#[tokio::test]
async fn a_push_to_a_registry_that_answers_late_does_not_time_out() {
    let limits = Limits { idle: Duration::from_millis(200), ..LIMITS };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // The registry tells of each upload that it has whole, and answers when it is told to.
    let (taken, mut all_taken) = mpsc::unbounded_channel();
    let (answers, may_answer) = watch::channel(false);
    let take = async move |body: Bytes| {
        taken.send(()).unwrap();
        may_answer.clone().wait_for(|may| *may).await.unwrap();
        body.len().to_string()
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(take)).await.unwrap() });
    let body = Body::Watched(Bytes::from_static(b"a module"), Arc::new(|_| {}));
    let request = Request { method: Method::PUT, body, ..request(&url) };
    let uploads = Transport::for_uploads(Settings::default(), limits);
    let upload = tokio::spawn({
        let request = request.clone();
        async move { uploads.send(request).await }
    });
    all_taken.recv().await.unwrap();
    // It has waited for longer than this one, which does time out.
    let hurried = Transport::new(Settings::default(), limits).send(request).await;
    assert_eq!(hurried.unwrap_err().cause, "timed out");
    answers.send_replace(true);
    assert_eq!(upload.await.unwrap().unwrap().text().await.unwrap(), "8");
}

#[tokio::test]
async fn all_certificates_of_a_registry_are_trusted_and_those_of_its_port_before_those_of_its_host() {
    let (ours, other) = (Authority::new(), Authority::new());
    let fine = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (address, renewed) = (ours.serve(fine.to_owned()).await, ours.serve(fine.to_owned()).await);
    let (host, port): (HostPort, HostPort) = ("127.0.0.1".parse().unwrap(), address.to_string().parse().unwrap());
    let certificates = |authority: &Authority| vec![authority.certificate()];
    let asked = async |address: SocketAddr, registry_cas: &[(HostPort, Vec<Certificate>)]| {
        let settings = Settings { registry_cas: registry_cas.to_vec(), ..Settings::default() };
        Transport::new(settings, LIMITS).send(request(&format!("https://{address}/"))).await.is_ok()
    };
    let mut twice = [(host.clone(), certificates(&ours)), (host.clone(), certificates(&other))];
    let mut both = [(host.clone(), certificates(&other)), (port, certificates(&ours))];
    for _order in 0..2 {
        assert!(asked(address, &twice).await, "{twice:?}");
        // The other port has what its host has.
        assert!(asked(address, &both).await && !asked(renewed, &both).await, "{both:?}");
        twice.reverse();
        both.reverse();
    }
}

#[tokio::test]
async fn no_redirect_leads_from_https_to_plain_http_not_even_where_that_is_spoken() {
    let (authority, (plain, seen)) = (Authority::new(), server("127.0.0.1").await);
    let location =
        format!("HTTP/1.1 302 Found\r\nlocation: http://{plain}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let address = authority.serve(location).await;
    let registry_cas = vec![(address.to_string().parse().unwrap(), vec![authority.certificate()])];
    let insecure_registries = vec![plain.to_string().parse().unwrap()];
    let transport = Transport::new(Settings { registry_cas, insecure_registries, ..Settings::default() }, LIMITS);
    let refused = transport.send(request(&format!("https://{address}/"))).await.unwrap_err().cause;
    assert_eq!(refused, "redirected from https to plain http, which is not followed");
    assert_eq!(seen.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_certificate_for_a_server_of_plain_http_is_told_from_a_broken_connection() {
    let (address, seen) = server("127.0.0.1").await;
    let registry_cas = vec![(address.to_string().parse().unwrap(), vec![Authority::new().certificate()])];
    let transport = Transport::new(Settings { registry_cas, ..Settings::default() }, LIMITS);
    let said = transport.send(request(&format!("https://{address}/v2/"))).await.unwrap_err().cause;
    assert!(said.starts_with("cannot connect: it does not speak TLS; "), "{said}");
    assert!(seen.lock().unwrap().is_empty());
}
