//! An HTTP server for modules that counts what is asked of it, and can be told to fail.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A server on a free port of loopback, until it is dropped.
pub struct ModuleServer {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Shelf {
    answers: HashMap<String, (StatusCode, Bytes)>,
    hits: HashMap<String, u64>,
}

impl ModuleServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shelf = Arc::<Mutex<Shelf>>::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shelf));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("serves until it is aborted") });
        Self { address, shelf, _server: server }
    }

    /// Puts a file up, or another one in its place. The path begins with a slash.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        self.answer_with(path, StatusCode::OK, bytes);
    }

    /// From now on this path is answered with this status.
    pub fn fail(&self, path: &str, status: StatusCode) {
        self.answer_with(path, status, Vec::new());
    }

    /// How often this path was asked for, whatever the answer was.
    pub fn hits(&self, path: &str) -> u64 {
        self.shelf.lock().expect("no holder panics").hits.get(path).copied().unwrap_or_default()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn answer_with(&self, path: &str, status: StatusCode, bytes: Vec<u8>) {
        let mut shelf = self.shelf.lock().expect("no holder panics");
        shelf.answers.insert(path.to_owned(), (status, bytes.into()));
    }
}

async fn answer(State(shelf): State<Arc<Mutex<Shelf>>>, request: Request) -> Response {
    let path = request.uri().path();
    let mut shelf = shelf.lock().expect("no holder panics");
    *shelf.hits.entry(path.to_owned()).or_default() += 1;
    match shelf.answers.get(path) {
        Some((status, bytes)) => (*status, bytes.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
