//! A token server as registries use: HTTP Basic or a refresh token in, a signed token for one repository out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{RawForm, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, RequestExt as _, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{ALICE, BOB, User};

pub const SERVICE: &str = "registry.test";
pub const ISSUER: &str = "tests";
/// What alice may log in with in place of a password.
pub const ALICE_REFRESH_TOKEN: &str = "alice-refresh";

/// A key and a certificate of its own for 127.0.0.1 and localhost.
pub struct Certificate {
    key: KeyPair,
    pub key_pem: String,
    pub pem: String,
    der: Vec<u8>,
}

impl Certificate {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let params = CertificateParams::new(names).expect("the names are sound");
        let certificate = params.self_signed(&key).expect("a certificate can be made");
        Self { key_pem: key.serialize_pem(), pem: certificate.pem(), der: certificate.der().to_vec(), key }
    }

    /// A JWT that the registry believes, as the certificate is its root.
    fn sign(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.der)]});
        let parts = [header.to_string(), claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
        let text = parts.join(".");
        let signature = self.key.sign(text.as_bytes()).expect("a key signs");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(fixed(&signature)))
    }
}

/// ECDSA's two numbers at their fixed 32 bytes each, out of ASN.1.
fn fixed(asn1: &[u8]) -> Vec<u8> {
    let mut rest = &asn1[2..];
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        numbers.extend(std::iter::repeat_n(0, 32 - number.len()).chain(number.iter().copied()));
        rest = &rest[2 + length..];
    }
    numbers
}

/// A token server on a free port of loopback, until it is dropped.
pub struct TokenServer {
    address: SocketAddr,
    desk: Arc<Desk>,
    _server: JoinSet<()>,
}

struct Desk {
    certificate: Certificate,
    /// Who asked, and for which scope.
    asked: Mutex<Vec<(String, String)>>,
    /// Seconds; negative for tokens that have run out when they are given.
    lifetime: Mutex<i64>,
}

impl TokenServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let desk = Desk { certificate: Certificate::new(), asked: Mutex::default(), lifetime: Mutex::new(300) };
        let desk = Arc::new(desk);
        let router = Router::new().route("/token", get(with_password).post(with_refresh_token));
        let router = router.with_state(Arc::clone(&desk));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("serves until it is aborted") });
        Self { address, desk, _server: server }
    }

    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    pub fn certificate_pem(&self) -> String {
        self.desk.certificate.pem.clone()
    }

    /// Who asked for a token so far (empty: nobody that it knows), and for which scope.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.desk.asked.lock().expect("no holder panics").clone()
    }

    /// Seconds that tokens last from now on; negative for ones that the registry refuses as expired.
    pub fn set_lifetime(&self, seconds: i64) {
        *self.desk.lifetime.lock().expect("no holder panics") = seconds;
    }
}

async fn with_password(State(desk): State<Arc<Desk>>, headers: HeaderMap, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    let Some(authorization) = authorization else { return desk.give("", &query) };
    let given = authorization.strip_prefix("Basic ").and_then(|it| STANDARD.decode(it).ok()).unwrap_or_default();
    let is_of = |user: &User| given == format!("{}:{}", user.name, user.password).as_bytes();
    match [ALICE, BOB].into_iter().find(is_of) {
        Some(user) => desk.give(user.name, &query),
        None => {
            let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]});
            (StatusCode::UNAUTHORIZED, Json(body)).into_response()
        }
    }
}

async fn with_refresh_token(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let RawForm(form) = request.extract().await.expect("a form has a body");
    let form = String::from_utf8_lossy(&form).into_owned();
    let value = |name: &str| values(&form, name).next().unwrap_or_default();
    if value("grant_type") != "refresh_token" || value("refresh_token") != ALICE_REFRESH_TOKEN {
        return (StatusCode::UNAUTHORIZED, Json(json!({"details": "invalid refresh token"}))).into_response();
    }
    desk.give(ALICE.name, &form)
}

fn values<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = String> + 'q {
    url::form_urlencoded::parse(query.as_bytes()).filter(move |(key, _)| key == name).map(|(_, value)| value.into())
}

impl Desk {
    fn give(&self, user: &str, query: &str) -> Response {
        let scopes: Vec<_> =
            values(query, "scope").flat_map(|it| it.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
        self.asked.lock().expect("no holder panics").push((user.to_owned(), scopes.join(" ")));
        let access: Vec<_> = scopes.iter().filter_map(|scope| allowed(user, scope)).collect();
        let lifetime = *self.lifetime.lock().expect("no holder panics");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs() as i64;
        let claims = json!({"iss": ISSUER, "sub": user, "aud": SERVICE, "nbf": now - 600, "iat": now - 600,
            "exp": now + lifetime, "jti": "1", "access": access});
        Json(json!({"token": self.certificate.sign(&claims), "expires_in": lifetime.max(60)})).into_response()
    }
}

/// The part of a scope `repository:NAME:ACTIONS` that this user gets.
fn allowed(user: &str, scope: &str) -> Option<Value> {
    let [kind, name, actions] = scope.splitn(3, ':').collect::<Vec<_>>()[..] else { return None };
    let is_allowed =
        user == ALICE.name || (user == BOB.name && name.starts_with("bob/")) || name.starts_with("public/");
    is_allowed.then(|| json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
}
