//! The room as a whole, over real sockets and files.

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

mod images;

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
async fn a_module_is_pending_then_ready_and_fetched_once() {
    let (data_dir, server) = (folder(), Server::start(Answer::Body(module(1))).await);
    let (first, second) = (server.reference("a.wasm"), server.reference("b.wasm"));
    let room = Running::start(data_dir.path(), &[]);
    room.want([&first]);
    assert!(matches!(room.modules.states().borrow()[&first], ModuleState::Pending));
    let module_a = room.ready(&first, &module(1)).await;
    room.want([&first, &second]);
    let module_b = room.ready(&second, &module(1)).await;
    assert!(Arc::ptr_eq(&module_a, &module_b), "equal bytes exist once");
    assert_eq!(server.requests(), 2);
    room.want([&second]);
    assert!(!room.modules.states().borrow().contains_key(&first));
    let stats = room.modules.stats();
    assert_eq!(stats.fetches, [((Scheme::Http, FetchResult::Fetched), 2)].into());
    assert_eq!((stats.store_bytes, stats.store_fault), (module(1).len() as u64, None));
    room.stop().await;
}

#[tokio::test]
async fn a_server_that_lacks_the_module_is_asked_again() {
    let (data_dir, server) = (folder(), Server::start(Answer::Status(404)).await);
    let wanted = server.reference("a.wasm");
    let room = Running::start(data_dir.path(), &[]);
    room.want([&wanted]);
    assert_eq!(room.failed(&wanted).await, format!("GET http://{}/a.wasm: 404 Not Found", server.address));
    server.set(Answer::Body(module(1)));
    room.ready(&wanted, &module(1)).await;
    assert!(server.requests() >= 2);
}

#[tokio::test]
async fn what_envoy_would_refuse_fails_with_the_reason_until_it_is_mended() {
    let (data_dir, server) = (folder(), Server::start(Answer::Body(b"<html>login".to_vec())).await);
    let wanted = server.reference("a.wasm");
    let room = Running::start(data_dir.path(), &[]);
    room.want([&wanted]);
    let reason = room.failed(&wanted).await;
    assert!(reason.starts_with("not a WebAssembly module but an HTML page"), "{reason}");
    server.set(Answer::Body(module(1)));
    room.ready(&wanted, &module(1)).await;
}

fn gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_packed_module_may_be_pinned_by_either_digest_and_survives_a_restart_without_the_server() {
    let packed = gzip(&module(1));
    let (server, data_dir) = (Server::start(Answer::Body(packed.clone())).await, tempfile::tempdir().unwrap());
    let plain = server.reference("a.wasm.gz");
    let by_body = pinned(server.reference("b.wasm.gz"), &packed);
    let by_module = pinned(server.reference("c.wasm.gz"), &module(1));
    let wrong = pinned(server.reference("d.wasm.gz"), &module(2));
    let room = Running::start(data_dir.path(), &[]);
    room.want([&plain, &by_body, &by_module, &wrong]);
    for wanted in [&plain, &by_body, &by_module] {
        assert_eq!(room.ready(wanted, &module(1)).await.bytes, module(1));
    }
    let [expected, body, inside] = [&module(2), &packed, &module(1)].map(|content| Digest::of(content));
    assert_eq!(
        room.failed(&wrong).await,
        format!("sha256 mismatch: expected {expected}, got {body} for the body as served and {inside} for the module")
    );
    room.stop().await;
    server.task.abort();
    let room = Running::start(data_dir.path(), &[]);
    room.want([&plain, &by_body, &by_module]);
    for wanted in [&plain, &by_body, &by_module] {
        assert_eq!(room.ready(wanted, &module(1)).await.bytes, module(1));
    }
}

#[tokio::test]
async fn a_failure_says_since_when_and_when_it_is_tried_again() {
    let (data_dir, server, files) = (folder(), Server::start(Answer::Status(503)).await, folder());
    let (remote, local) = (server.reference("a.wasm"), file(&files.path().join("b.wasm")));
    let wrong = pinned(server.reference("c.wasm"), &module(2));
    let room = Running::start(data_dir.path(), &[files.path()]);
    room.want([&remote, &local]);
    let first = room.failure(&remote, 1).await;
    assert!(matches!(first.next, NextTry::At(next) if next >= first.since), "{first:?}");
    assert!(room.modules.stats().failures[&(Scheme::Http, FailureReason::ServerError)] >= 1);
    let later = room.failure(&remote, first.attempts + 2).await;
    assert_eq!((later.since, &later.reason), (first.since, &first.reason));
    assert_eq!(room.failure(&local, 1).await.next, NextTry::WhenFileChanges);

    server.set(Answer::Body(module(1)));
    room.want([&remote, &wrong]);
    assert!(matches!(room.failure(&wrong, 1).await.next, NextTry::At(_)));
    room.ready(&remote, &module(1)).await;
    assert_eq!(room.modules.notes().borrow()[&remote], Notes::default());
    // On a slow machine it is ready by what was stored a moment ago, and counted then.
    while room.modules.stats().fetched_bytes.is_empty() {
        tokio::task::yield_now().await;
    }
    let stats = room.modules.stats();
    assert!(stats.failures[&(Scheme::Http, FailureReason::DigestMismatch)] >= 1);
    assert_eq!(stats.failures[&(Scheme::File, FailureReason::File)], 1);
    assert_eq!(stats.fetched_bytes, BTreeMap::from([(Scheme::Http, module(1).len() as u64)]));
    assert_eq!((stats.store_bytes, stats.store_hits), (module(1).len() as u64, 0));
}

#[tokio::test]
async fn a_maintenance_page_does_not_keep_a_pinned_module_away_for_ever() {
    let (data_dir, server) = (folder(), Server::start(Answer::Body(b"<html>back soon".to_vec())).await);
    let wanted = pinned(server.reference("a.wasm"), &module(1));
    let room = Running::start(data_dir.path(), &[]);
    room.want([&wanted]);
    assert!(matches!(room.failure(&wanted, 1).await.next, NextTry::At(_)));
    server.set(Answer::Body(module(2)));
    let expected = format!("sha256 mismatch: expected {}, got {}", Digest::of(&module(1)), Digest::of(&module(2)));
    until(|| room.modules.notes().borrow()[&wanted].failing.as_ref().is_some_and(|it| it.reason == expected)).await;
    server.set(Answer::Body(module(1)));
    room.ready(&wanted, &module(1)).await;
    assert!(room.modules.stats().fetches[&(Scheme::Http, FetchResult::Refused)] >= 2);
}

#[tokio::test]
async fn a_slow_server_delays_nobody_else() {
    let data_dir = folder();
    let (slow, quick) = (Server::start(Answer::Silence).await, Server::start(Answer::Body(module(1))).await);
    let room = Running::start(data_dir.path(), &[]);
    let mut refs: BTreeSet<_> = (0..50).map(|number| slow.reference(&format!("{number}.wasm"))).collect();
    let wanted = quick.reference("a.wasm");
    refs.insert(wanted.clone());
    room.modules.want(refs, &BTreeSet::new());
    room.ready(&wanted, &module(1)).await;
    // Nor does it get all fifty requests at once.
    assert!(slow.requests() <= 2);
}

#[tokio::test]
async fn after_a_restart_a_dead_server_takes_nothing_away() {
    let (data_dir, server) = (folder(), Server::start(Answer::Body(module(1))).await);
    let plain = server.reference("a.wasm");
    let (by_pin, by_policy) = (pinned(plain.clone(), &module(1)), always(plain.clone()));
    let room = Running::start(data_dir.path(), &[]);
    room.want([&plain, &by_pin, &by_policy]);
    for wanted in [&plain, &by_pin, &by_policy] {
        room.ready(wanted, &module(1)).await;
    }
    room.stop().await;
    server.task.abort();
    assert!(server.task.await.unwrap_err().is_cancelled());

    let room = Running::start(data_dir.path(), &[]);
    room.want([&plain, &by_pin, &by_policy]);
    for wanted in [&plain, &by_pin, &by_policy] {
        room.ready(wanted, &module(1)).await;
    }
    let reason = room.failing(&by_policy).await;
    assert!(reason.starts_with(&format!("GET http://{}/a.wasm: ", server.address)), "{reason}");
    let notes = room.modules.notes().borrow().clone();
    assert!([&plain, &by_pin].into_iter().all(|wanted| notes.get(wanted).is_none_or(|notes| notes.failing.is_none())));
}

#[tokio::test]
async fn always_asks_the_server_and_uses_the_stored_module_while_it_is_silent() {
    let (data_dir, server) = (folder(), Server::start(Answer::Body(module(1))).await);
    let wanted = always(server.reference("a.wasm"));
    let room = Running::start(data_dir.path(), &[]);
    room.want([&wanted]);
    room.ready(&wanted, &module(1)).await;
    server.set(Answer::Body(module(2)));
    room.want([]);
    room.want([&wanted]);
    room.ready(&wanted, &module(2)).await;
    room.stop().await;

    server.set(Answer::Silence);
    let room = Running::start(data_dir.path(), &[]);
    room.want([&wanted]);
    room.ready(&wanted, &module(2)).await;
}

#[tokio::test]
async fn without_a_folder_to_write_modules_are_delivered_from_memory() {
    let (parent, server) = (folder(), Server::start(Answer::Body(module(1))).await);
    let data_dir = parent.path().join("data");
    fs::write(&data_dir, b"a file is in the way").unwrap();
    let wanted = server.reference("a.wasm");
    let room = Running::start(&data_dir, &[]);
    room.want([&wanted]);
    assert_eq!(room.ready(&wanted, &module(1)).await.bytes, module(1));
    let fault = room.modules.stats().store_fault.unwrap();
    assert!(fault.starts_with(&data_dir.display().to_string()), "{fault}");
}

#[tokio::test]
async fn without_a_folder_to_write_slow_servers_delay_nobody_either() {
    let parent = tempfile::tempdir().unwrap();
    let data_dir = parent.path().join("data");
    fs::write(&data_dir, b"a file is in the way").unwrap();
    let room = Running::start(&data_dir, &[]);
    let (slow, slower) =
        (Server::start(Answer::Beginning(vec![0; 1000])), Server::start(Answer::Beginning(vec![0; 9])));
    let (slow, slower, good) = (slow.await, slower.await, Server::start(Answer::Body(module(1))).await);
    room.want([&slow.reference("a"), &slow.reference("b"), &slower.reference("a")]);
    while slow.requests() + slower.requests() < 3 {
        tokio::task::yield_now().await;
    }
    let wanted = good.reference("a");
    room.want([&slow.reference("a"), &slow.reference("b"), &slower.reference("a"), &wanted]);
    room.ready(&wanted, &module(1)).await;
    room.stop().await;
}

#[tokio::test]
async fn a_store_without_room_keeps_what_is_wanted_and_loses_what_was() {
    let (data_dir, server) = (folder(), Server::start(Answer::Body(module(1))).await);
    let [first, second, third] = ["a.wasm", "b.wasm", "c.wasm"].map(|path| server.reference(path));
    let size = module(1).len() as u64;
    let settings =
        || Settings { data_dir: data_dir.path().to_owned(), store_max_bytes: 2 * size, ..Settings::default() };
    let room = Running::start_with(settings(), PACE);
    room.want([&first, &second]);
    room.ready(&first, &module(1)).await;
    room.stop().await;

    // Nothing is removed before it is known what is wanted, and nothing that is. However slow the machine is: what the
    // second one gave last is not used meanwhile.
    let room = Running::start_with(settings(), Pace { patience: Duration::from_secs(3600), ..PACE });
    server.set(Answer::Body(module(2)));
    room.want([&first, &third]);
    room.ready(&first, &module(1)).await;
    room.ready(&third, &module(2)).await;
    // The keeper that was told to stop holds its module until it has.
    room.want([&third]);
    let first_digest = Digest::of(&module(1));
    while room.modules.0.library.is_held(&first_digest) {
        tokio::task::yield_now().await;
    }
    server.set(Answer::Body(module(3)));
    room.want([&third, &always(second.clone())]);
    room.ready(&always(second.clone()), &module(3)).await;
    let stats = room.modules.stats();
    assert_eq!((stats.store_bytes, stats.store_removed), (2 * size, 1));
    let stored = |number| data_dir.path().join(format!("modules/sha256/{}.wasm", Digest::of(&module(number)))).exists();
    assert_eq!([1, 2, 3].map(stored), [false, true, true]);
}

#[tokio::test]
async fn a_rebuild_is_noticed_and_a_broken_one_keeps_the_last_good() {
    let (data_dir, files) = (folder(), folder());
    let path = files.path().join("plugin.wasm");
    let wanted = file(&path);
    // Events alone must do.
    let pace = Pace { poll: Duration::from_secs(3600), ..PACE };
    let room = Running::start_at(data_dir.path(), &[files.path()], pace);
    room.want([&wanted]);
    let reason = room.failed(&wanted).await;
    assert_eq!(reason, format!("{}: No such file or directory (os error 2)", path.display()));
    fs::write(&path, module(1)).unwrap();
    room.ready(&wanted, &module(1)).await;

    // Renamed into place, as careful tools do.
    let other = files.path().join("plugin.wasm.tmp");
    fs::write(&other, module(2)).unwrap();
    fs::rename(&other, &path).unwrap();
    room.ready(&wanted, &module(2)).await;

    // Linked into place, as cargo does.
    fs::write(&other, module(3)).unwrap();
    fs::remove_file(&path).unwrap();
    fs::hard_link(&other, &path).unwrap();
    room.ready(&wanted, &module(3)).await;

    fs::remove_file(&path).unwrap();
    fs::write(&path, &module(4)[..20]).unwrap();
    let reason = loop {
        let reason = room.failing(&wanted).await;
        if !reason.contains("No such file") {
            break reason;
        }
        tokio::task::yield_now().await;
    };
    assert!(reason.starts_with("damaged or cut short"), "{reason}");
    room.ready(&wanted, &module(3)).await;

    fs::write(&path, module(4)).unwrap();
    room.ready(&wanted, &module(4)).await;
    assert_eq!(room.modules.notes().borrow()[&wanted], Notes::default());
}

#[tokio::test]
async fn a_folder_that_is_made_later_is_found_by_looking() {
    let (data_dir, files) = (folder(), folder());
    let path = files.path().join("target/release/plugin.wasm");
    let wanted = file(&path);
    let room = Running::start(data_dir.path(), &[files.path()]);
    room.want([&wanted]);
    room.failed(&wanted).await;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, module(1)).unwrap();
    room.ready(&wanted, &module(1)).await;
}

#[tokio::test]
async fn a_file_that_is_gone_after_a_restart_is_served_from_the_store() {
    let (data_dir, files) = (folder(), folder());
    let path = files.path().join("plugin.wasm");
    fs::write(&path, module(1)).unwrap();
    let wanted = file(&path);
    let room = Running::start(data_dir.path(), &[files.path()]);
    room.want([&wanted]);
    room.ready(&wanted, &module(1)).await;
    room.stop().await;
    fs::remove_file(&path).unwrap();

    let room = Running::start(data_dir.path(), &[files.path()]);
    room.want([&wanted]);
    room.ready(&wanted, &module(1)).await;
    assert!(room.failing(&wanted).await.contains("No such file"));
}

#[tokio::test]
async fn a_path_that_leads_out_of_the_folder_is_neither_read_nor_passed_on() {
    let (data_dir, parent) = (folder(), folder());
    let files = parent.path().join("plugins");
    fs::create_dir(&files).unwrap();
    fs::write(parent.path().join("secret.wasm"), module(1)).unwrap();
    let wanted = file(&files.join("../secret.wasm"));
    let room = Running::start(data_dir.path(), &[&files]);
    room.want([&wanted]);
    let reason = room.failed(&wanted).await;
    assert!(reason.contains("secret.wasm, which is outside of --module-files"), "{reason}");
}

#[tokio::test]
async fn other_files_are_the_proxys_own_and_what_is_no_image_reference_fails() {
    let data_dir = folder();
    let (own, relative) = (file(Path::new("/etc/plugins/a.wasm")), file(Path::new("a.wasm")));
    let oci = reference(ModuleLocation::Oci("r.test/UPPER:1".to_owned()));
    let room = Running::start(data_dir.path(), &[]);
    room.want([&own, &relative, &oci]);
    for (wanted, path) in [(&own, "/etc/plugins/a.wasm"), (&relative, "a.wasm")] {
        let is_it =
            |state: &ModuleState| matches!(state, ModuleState::Ready(Code::OnProxy(own)) if own == Path::new(path));
        room.state(wanted, is_it).await;
        assert!(room.modules.notes().borrow()[wanted].warnings[0].starts_with("on the proxy's own disk"));
    }
    assert!(room.failed(&oci).await.starts_with("oci://r.test/UPPER:1: repository \"UPPER\": "));
    let failing = room.modules.notes().borrow()[&oci].failing.clone().unwrap();
    assert_eq!(failing.next, NextTry::WhenPluginChanges);
}

/// A registry with one image under every tag; counts how often its module is fetched.
async fn registry_with(content: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>) {
    let descriptor = |media_type: &str, blob: &[u8]| serde_json::json!({"mediaType": media_type, "digest": format!("sha256:{}", Digest::of(blob)), "size": blob.len()});
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": descriptor(image::media_types::CNCF_CONFIG, b"{}"),
        "layers": [descriptor(image::media_types::CNCF_LAYER, &content)],
    })
    .to_string();
    let downloads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&downloads);
    let answer = move |request: axum::extract::Request| {
        let is_blob = request.uri().path().contains("/blobs/");
        let _before = is_blob.then(|| counter.fetch_add(1, Ordering::SeqCst));
        std::future::ready(if is_blob { content.clone().into_response() } else { manifest.clone().into_response() })
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    (address, downloads)
}

#[tokio::test]
async fn an_image_with_many_tags_is_downloaded_once_and_after_a_restart_not_at_all() {
    let (data_dir, (registry, downloads)) = (folder(), registry_with(module(1)).await);
    let tagged = |tag: usize| reference(ModuleLocation::Oci(format!("{registry}/team/plugin:v{tag}")));
    let wanted: BTreeSet<_> = (0..10).map(tagged).collect();
    for _start in 0..2 {
        let room = Running::start(data_dir.path(), &[]);
        room.modules.want(wanted.clone(), &BTreeSet::new());
        for reference in &wanted {
            room.ready(reference, &module(1)).await;
        }
        assert_eq!(downloads.load(Ordering::SeqCst), 1);
        room.stop().await;
    }
}

#[tokio::test]
async fn a_module_in_the_store_is_not_given_to_who_names_its_digest_at_another_server() {
    let (data_dir, server) = (folder(), Server::start(Answer::Body(module(1))).await);
    let stranger = Server::start(Answer::Status(404)).await;
    let (wanted, guessed) = (server.reference("a.wasm"), pinned(stranger.reference("a.wasm"), &module(1)));
    let room = Running::start(data_dir.path(), &[]);
    room.want([&wanted]);
    room.ready(&wanted, &module(1)).await;
    room.want([&wanted, &guessed]);
    assert!(room.failed(&guessed).await.ends_with("404 Not Found"));
}

#[tokio::test]
async fn an_edited_plugin_whose_policy_is_always_is_asked_for_again() {
    let (data_dir, server) = (folder(), Server::start(Answer::Body(module(1))).await);
    let (latest, once) = (always(server.reference("a.wasm")), server.reference("b.wasm"));
    let refs = BTreeSet::from([latest.clone(), once.clone()]);
    let room = Running::start(data_dir.path(), &[]);
    room.modules.want(refs.clone(), &refs);
    room.ready(&latest, &module(1)).await;
    room.ready(&once, &module(1)).await;
    server.set(Answer::Body(module(2)));
    room.modules.want(refs.clone(), &refs);
    room.ready(&latest, &module(2)).await;
    room.ready(&once, &module(1)).await;
    assert_eq!(server.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_and_one_free_desk_do_not_stop_a_module_that_is_stored_for_good() {
    let data_dir = folder();
    let wanted = reference(ModuleLocation::Http("http://modules.test/a.wasm".to_owned()));
    let settings = Settings { data_dir: data_dir.path().to_owned(), ..Settings::default() };
    let modules = Modules::with(settings, Limits::default(), PACE);
    let library = &modules.0.library;
    drop(library.admit(&wanted, module(1).into()).await.unwrap());
    modules.want(BTreeSet::from([wanted.clone()]), &BTreeSet::new());
    let keeper = Keeper { room: Arc::clone(&modules.0), reference: wanted.clone() };

    let mut desks = library.take_desks().await;
    let fetch = async { library.admit(&wanted, module(2).into()).await.map(drop) };
    // By then both the server's module and the stored one wait for a desk.
    let free_one = async {
        tokio::time::sleep(2 * PACE.patience).await;
        drop(desks.pop());
    };
    let kept = async { tokio::join!(keeper.patiently(fetch), free_one).0 };
    tokio::time::timeout(Duration::from_secs(3600), kept).await.expect("not for ever").unwrap();
}

#[tokio::test]
async fn files_are_read_when_there_is_memory_for_them_and_give_it_back() {
    let (data_dir, files) = (folder(), folder());
    let (path, packed) = (files.path().join("a.wasm"), files.path().join("b.wasm.gz"));
    fs::write(&path, module(1)).unwrap();
    fs::write(&packed, gzip(&module(2))).unwrap();
    let room = Running::start(data_dir.path(), &[files.path()]);
    let (library, spools) = (&room.modules.0.library, &room.modules.0.spools);
    let all = spools.free();
    // Nobody is done with a file while nobody inspects.
    let desks = library.take_desks().await;
    room.want([&file(&path)]);
    until(|| spools.free() < all).await;
    assert!(spools.free() > all - 10_000);
    // What it unpacks to is counted in.
    room.want([&file(&path), &file(&packed)]);
    until(|| spools.free() < all - Limits::default().size).await;
    drop(desks);
    room.ready(&file(&path), &module(1)).await;
    room.ready(&file(&packed), &module(2)).await;
    until(|| spools.free() == all).await;
    room.stop().await;
}

#[tokio::test]
async fn what_is_odd_about_a_packaging_is_told_after_a_restart_too_and_of_no_other_module() {
    const MANIFEST: &[u8] = b"schemaVersion: 1\nphase: PreAuthZ\npriority: 1\nmodule: a.wasm\nodd: 1\n";
    use crate::modules::image::fixtures::{File, tar};
    let packed = tar(&[File("manifest.yaml", MANIFEST), File("a.wasm", &module(1))]);
    let (data_dir, odd) = (folder(), Server::start(Answer::Body(packed)).await);
    let plain = Server::start(Answer::Body(module(1))).await;
    let (odd, plain) = (odd.reference("a.tar"), plain.reference("a.wasm"));
    for _start in 0..2 {
        let room = Running::start(data_dir.path(), &[]);
        room.want([&odd]);
        room.ready(&odd, &module(1)).await;
        room.want([&odd, &plain]);
        room.ready(&plain, &module(1)).await;
        let notes = room.modules.notes().borrow().clone();
        assert!(matches!(&notes[&odd].warnings[..], [only] if only.contains("odd")), "{notes:?}");
        assert!(notes.get(&plain).is_none_or(|notes| notes.warnings.is_empty()), "{notes:?}");
        room.stop().await;
    }
}

#[tokio::test]
async fn a_folder_is_watched_as_long_as_a_module_in_it_is_wanted() {
    let (data_dir, files) = (folder(), folder());
    let wanted = ["a/1.wasm", "a/2.wasm", "b/3.wasm"].map(|name| file(&files.path().join(name)));
    for name in ["a", "b"] {
        fs::create_dir(files.path().join(name)).unwrap();
    }
    let room = Running::start(data_dir.path(), &[files.path()]);
    let watched = async |folders: usize| until(|| room.modules.0.watcher.folders() == folders).await;
    room.want(wanted.each_ref());
    watched(2).await;
    room.want([&wanted[0], &wanted[2]]);
    room.want([&wanted[0]]);
    watched(1).await;
    fs::write(files.path().join("a/1.wasm"), module(1)).unwrap();
    room.ready(&wanted[0], &module(1)).await;
    room.want([]);
    watched(0).await;
}
