//! The room as a whole, over real sockets and files.

mod files;
mod images;
mod remote;
mod serve;
mod store;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::Router;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::model::{Code, Digest, Module, ModuleLocation, ModuleState, PullPolicy};

const PACE: Pace = Pace {
    first_retry: Duration::from_millis(5),
    slowest_retry: Duration::from_millis(20),
    longest_obedience: Duration::from_millis(20),
    patience: Duration::from_millis(50),
    poll: Duration::from_millis(50),
    settle: Duration::from_millis(10),
};

/// A module that every release takes; the number makes it another one.
fn module(number: u32) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module (func (export "proxy_abi_version_0_2_1")) (memory (export "memory") 1)
            (func (export "malloc") (param i32) (result i32) (i32.const {number}))
            (func (export "_initialize")) (func (export "proxy_on_tick") (param i32)))"#
    ))
    .unwrap()
}

/// What the server answers to every request, until it is changed.
#[derive(Clone)]
enum Answer {
    Status(u16),
    /// With a `Retry-After` of so many seconds.
    Busy(u32),
    Body(Vec<u8>),
    /// The beginning of a body, and then nothing more.
    Beginning(Vec<u8>),
    Silence,
}

/// A server on port 0 that counts its requests.
struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, requests) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let state = (Arc::clone(&answer), Arc::clone(&requests));
        let router = Router::new().fallback(respond).with_state(state);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, answer, requests, task }
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn reference(&self, path: &str) -> ModuleRef {
        reference(ModuleLocation::Http(format!("http://{}/{path}", self.address)))
    }
}

async fn respond(State((answer, requests)): State<(Arc<Mutex<Answer>>, Arc<AtomicUsize>)>) -> axum::response::Response {
    requests.fetch_add(1, Ordering::SeqCst);
    let answer = answer.lock().unwrap().clone();
    match answer {
        Answer::Status(code) => ::http::StatusCode::from_u16(code).unwrap().into_response(),
        Answer::Busy(seconds) => {
            (::http::StatusCode::SERVICE_UNAVAILABLE, [("retry-after", seconds.to_string())]).into_response()
        }
        Answer::Body(body) => body.into_response(),
        Answer::Beginning(body) => {
            let rest = futures::stream::once(std::future::pending());
            let begun = futures::stream::once(async { Ok::<_, std::convert::Infallible>(body) });
            axum::body::Body::from_stream(futures::StreamExt::chain(begun, rest)).into_response()
        }
        Answer::Silence => std::future::pending().await,
    }
}

fn reference(location: ModuleLocation) -> ModuleRef {
    ModuleRef { location, sha256: None, pull_policy: PullPolicy::Unspecified, pull_secret: None }
}

fn file(path: &Path) -> ModuleRef {
    reference(ModuleLocation::File(path.to_owned()))
}

fn pinned(reference: ModuleRef, content: &[u8]) -> ModuleRef {
    ModuleRef { sha256: Some(Digest::of(content)), ..reference }
}

fn always(reference: ModuleRef) -> ModuleRef {
    ModuleRef { pull_policy: PullPolicy::Always, ..reference }
}

/// The room, running until it is dropped or stopped.
struct Running {
    modules: Modules,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(data_dir: &Path, module_files: &[&Path]) -> Self {
        Self::start_at(data_dir, module_files, PACE)
    }

    fn start_at(data_dir: &Path, module_files: &[&Path], pace: Pace) -> Self {
        let module_files = module_files.iter().map(|folder| folder.to_path_buf()).collect();
        let settings = Settings { data_dir: data_dir.to_owned(), module_files, ..Settings::default() };
        Self::start_with(settings, pace)
    }

    fn start_with(settings: Settings, pace: Pace) -> Self {
        let modules = Modules::with(settings, Limits::default(), pace);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(modules.clone().run(shutdown.clone()));
        Self { modules, shutdown, task }
    }

    fn want<const N: usize>(&self, refs: [&ModuleRef; N]) {
        self.modules.want(refs.into_iter().cloned().collect(), &BTreeSet::new());
    }

    async fn state(&self, reference: &ModuleRef, is_it: impl Fn(&ModuleState) -> bool) -> ModuleState {
        let mut states = self.modules.states();
        let states = states.wait_for(|states| states.get(reference).is_some_and(&is_it));
        tokio::time::timeout(Duration::from_secs(20), states).await.expect("in time").unwrap()[reference].clone()
    }

    async fn ready(&self, reference: &ModuleRef, content: &[u8]) -> Arc<Module> {
        let digest = Digest::of(content);
        let is_it =
            |state: &ModuleState| matches!(state, ModuleState::Ready(Code::Module(module)) if module.digest == digest);
        match self.state(reference, is_it).await {
            ModuleState::Ready(Code::Module(module)) => module,
            other => panic!("{other:?}"),
        }
    }

    async fn failed(&self, reference: &ModuleRef) -> String {
        match self.state(reference, |state| matches!(state, ModuleState::Failed { .. })).await {
            ModuleState::Failed { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    /// The failure of a module that is ready from before.
    async fn failing(&self, reference: &ModuleRef) -> String {
        self.failure(reference, 1).await.reason
    }

    /// The failures in a row, once they are so many.
    async fn failure(&self, reference: &ModuleRef, attempts: u32) -> Failure {
        let failure = |notes: &NotesByModule| {
            let failing = notes.get(reference)?.failing.clone();
            failing.filter(|failure| failure.attempts >= attempts)
        };
        let mut notes = self.modules.notes();
        let notes = notes.wait_for(|notes| failure(notes).is_some());
        let notes = tokio::time::timeout(Duration::from_secs(20), notes).await.expect("in time").unwrap();
        failure(&notes).unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

async fn until(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), met).await.expect("in time");
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_task_that_waits_for_a_change_of_its_module_takes_little_memory() {
    let data_dir = folder();
    let room = Running::start(data_dir.path(), &[]);
    let keeper = keeper::Keeper::new(&room.modules.0, &file(Path::new("/a.wasm")));
    let bytes = size_of_val(&keeper.keep());
    assert!(bytes < 2_500, "{bytes} bytes for each module");
}
