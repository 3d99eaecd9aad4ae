//! Images of a registry that does as it is told: tags that move, answers that fail, blobs that come slowly.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;

use super::*;
use crate::modules::image::media_types::{CNCF_CONFIG, CNCF_LAYER};

/// A registry on port 0.
struct Registry {
    address: SocketAddr,
    shelf: Arc<Shelf>,
}

#[derive(Default)]
struct Shelf {
    /// By repository and tag.
    modules: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    is_down: std::sync::atomic::AtomicBool,
    /// The blobs of this repository do not come.
    held: watch::Sender<Option<&'static str>>,
    /// Requests for blobs, and for manifests.
    downloads: AtomicUsize,
    manifests: AtomicUsize,
}

fn manifest(module: &[u8]) -> String {
    let descriptor = |media_type: &str, blob: &[u8]| serde_json::json!({"mediaType": media_type, "digest": format!("sha256:{}", Digest::of(blob)), "size": blob.len()});
    let layers = [descriptor(CNCF_LAYER, module)];
    serde_json::json!({"schemaVersion": 2, "config": descriptor(CNCF_CONFIG, b"{}"), "layers": layers}).to_string()
}

fn image(module: &[u8]) -> Digest {
    Digest::of(manifest(module).as_bytes())
}

impl Registry {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shelf = Arc::<Shelf>::default();
        let asked = Arc::clone(&shelf);
        let router = Router::new().fallback(move |request: Request| answer(Arc::clone(&asked), request));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shelf }
    }

    fn publish(&self, repository: &str, tag: &str, module: &[u8]) {
        let key = (repository.to_owned(), tag.to_owned());
        self.shelf.modules.lock().unwrap().insert(key, module.to_owned());
    }

    fn set_down(&self, is_down: bool) {
        self.shelf.is_down.store(is_down, Ordering::SeqCst);
    }

    fn hold(&self, repository: Option<&'static str>) {
        self.shelf.held.send_replace(repository);
    }

    fn reference(&self, rest: &str) -> ModuleRef {
        reference(ModuleLocation::Oci(format!("{}/{rest}", self.address)))
    }

    fn downloads(&self) -> usize {
        self.shelf.downloads.load(Ordering::SeqCst)
    }

    fn manifests(&self) -> usize {
        self.shelf.manifests.load(Ordering::SeqCst)
    }
}

async fn answer(shelf: Arc<Shelf>, request: Request) -> Response {
    let parts: Vec<_> = request.uri().path().trim_start_matches("/v2/").split('/').map(str::to_owned).collect();
    let [repository, kind, name] = &parts[..] else { return StatusCode::NOT_FOUND.into_response() };
    if shelf.is_down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if kind == "manifests" {
        shelf.manifests.fetch_add(1, Ordering::SeqCst);
        let known = shelf.modules.lock().unwrap().get(&(repository.clone(), name.clone())).cloned();
        return known.map_or(StatusCode::NOT_FOUND.into_response(), |module| manifest(&module).into_response());
    }
    shelf.downloads.fetch_add(1, Ordering::SeqCst);
    shelf.held.subscribe().wait_for(|held| *held != Some(repository.as_str())).await.unwrap();
    let modules = shelf.modules.lock().unwrap();
    let blob = modules.values().find(|module| format!("sha256:{}", Digest::of(module)) == *name).cloned();
    blob.map_or(StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

fn following(data_dir: &Path, every: Duration, rolls_out: bool) -> Running {
    following_at(data_dir, every, rolls_out, PACE)
}

fn following_at(data_dir: &Path, every: Duration, rolls_out: bool, pace: Pace) -> Running {
    let tag_refresh = Some(TagRefresh { every, rolls_out });
    Running::start_with(Settings { data_dir: data_dir.to_owned(), tag_refresh, ..Settings::default() }, pace)
}

#[tokio::test]
async fn a_tag_whose_registry_fails_is_asked_again_sooner_than_in_its_interval() {
    let (data_dir, registry) = (folder(), Registry::start().await);
    registry.publish("a", "v1", &module(1));
    let wanted = registry.reference("a:v1");
    let room = following(data_dir.path(), Duration::from_secs(1), true);
    room.want([&wanted]);
    room.ready(&wanted, &module(1)).await;
    registry.set_down(true);
    // A wait of the interval after each would last longer than the test has.
    assert!(room.failure(&wanted, 60).await.reason.contains("503"));
    registry.publish("a", "v1", &module(2));
    registry.set_down(false);
    room.ready(&wanted, &module(2)).await;
    room.stop().await;
}

#[tokio::test]
async fn a_tag_that_moves_back_is_no_longer_told_to_mean_another_image() {
    let (data_dir, registry) = (folder(), Registry::start().await);
    registry.publish("a", "v1", &module(1));
    let wanted = registry.reference("a:v1");
    let room = following(data_dir.path(), Duration::from_millis(20), false);
    room.want([&wanted]);
    room.ready(&wanted, &module(1)).await;
    let mut notes = room.modules.notes();
    for (number, means) in [(2, Some(image(&module(2)))), (3, Some(image(&module(3)))), (1, None)] {
        registry.publish("a", "v1", &module(number));
        let told = notes.wait_for(|notes| notes[&wanted].tag_means == means);
        let told = tokio::time::timeout(Duration::from_secs(20), told).await.expect("in time").unwrap();
        assert_eq!(told[&wanted], Notes { image: Some(image(&module(1))), tag_means: means, ..Notes::default() });
    }
    room.ready(&wanted, &module(1)).await;
    room.stop().await;
}

#[tokio::test]
async fn a_tag_that_another_plugin_pulls_always_is_followed_all_the_same() {
    let (data_dir, registry) = (folder(), Registry::start().await);
    registry.publish("a", "v1", &module(1));
    let (follower, eager) = (registry.reference("a:v1"), always(registry.reference("a:v1")));
    let room = following(data_dir.path(), Duration::from_secs(1), true);
    room.want([&follower, &eager]);
    room.ready(&follower, &module(1)).await;
    room.ready(&eager, &module(1)).await;
    registry.publish("a", "v1", &module(2));
    // As if the other plugin was edited: it has the new image at once, and the memory has it too.
    room.modules.want([follower.clone(), eager.clone()].into(), &[eager.clone()].into());
    room.ready(&eager, &module(2)).await;
    room.ready(&follower, &module(2)).await;
    room.stop().await;
}

#[tokio::test]
async fn a_restart_does_not_move_a_plugin_to_the_image_that_another_policy_pulled() {
    let (data_dir, registry) = (folder(), Registry::start().await);
    registry.publish("a", "v1", &module(1));
    let (kept, eager) = (registry.reference("a:v1"), always(registry.reference("a:v1")));
    let room = Running::start(data_dir.path(), &[]);
    room.want([&eager]);
    room.ready(&eager, &module(1)).await;
    // Comes by what the other one got.
    room.want([&eager, &kept]);
    room.ready(&kept, &module(1)).await;
    registry.publish("a", "v1", &module(2));
    room.modules.want([kept.clone(), eager.clone()].into(), &[eager.clone()].into());
    room.ready(&eager, &module(2)).await;
    room.ready(&kept, &module(1)).await;
    room.stop().await;

    registry.set_down(true);
    let room = Running::start(data_dir.path(), &[]);
    room.want([&eager, &kept]);
    room.ready(&eager, &module(2)).await;
    room.ready(&kept, &module(1)).await;
    room.stop().await;
}

#[tokio::test]
async fn a_bad_push_is_mended_by_the_next_one_without_another_wait() {
    let (data_dir, registry) = (folder(), Registry::start().await);
    registry.publish("a", "v1", b"no module");
    let wanted = registry.reference("a:v1");
    let pace = Pace { slowest_retry: Duration::from_secs(300), ..PACE };
    let room = following_at(data_dir.path(), Duration::from_millis(20), true, pace);
    room.want([&wanted]);
    room.failed(&wanted).await;
    // What would not do is asked for, and not fetched again.
    let asked = registry.manifests();
    until(|| registry.manifests() > asked + 2).await;
    assert_eq!(registry.downloads(), 1);
    registry.publish("a", "v1", &module(1));
    room.ready(&wanted, &module(1)).await;
    // The same of an image that runs, and an edit of the plugin tries it at once as well.
    registry.publish("a", "v1", b"no module either");
    room.failing(&wanted).await;
    let before = registry.downloads();
    room.modules.want([wanted.clone()].into(), &[wanted.clone()].into());
    until(|| registry.downloads() > before).await;
    registry.publish("a", "v1", &module(2));
    room.ready(&wanted, &module(2)).await;
    room.stop().await;
}

#[tokio::test]
async fn two_tags_of_a_large_image_hold_up_no_other_image_of_their_registry() {
    let (data_dir, registry) = (folder(), Registry::start().await);
    for tag in ["v1", "v2", "v3"] {
        registry.publish("large", tag, &module(1));
    }
    registry.publish("small", "v1", &module(2));
    registry.hold(Some("large"));
    let large = ["v1", "v2", "v3"].map(|tag| registry.reference(&format!("large:{tag}")));
    let small = registry.reference("small:v1");
    let room = Running::start(data_dir.path(), &[]);
    room.want(large.each_ref());
    until(|| registry.downloads() == 1 && registry.manifests() == large.len()).await;
    room.want([&large[0], &large[1], &large[2], &small]);
    room.ready(&small, &module(2)).await;
    registry.hold(None);
    for wanted in &large {
        room.ready(wanted, &module(1)).await;
    }
    assert_eq!(registry.downloads(), 2);
    room.stop().await;
}

#[tokio::test]
async fn an_image_with_many_tags_is_downloaded_once_and_after_a_restart_not_at_all() {
    let (data_dir, registry) = (folder(), Registry::start().await);
    let tags: Vec<_> = (0..10).map(|number| format!("v{number}")).collect();
    tags.iter().for_each(|tag| registry.publish("plugin", tag, &module(1)));
    let wanted: BTreeSet<_> = tags.iter().map(|tag| registry.reference(&format!("plugin:{tag}"))).collect();
    for _start in 0..2 {
        let room = Running::start(data_dir.path(), &[]);
        room.modules.want(wanted.clone(), &BTreeSet::new());
        for reference in &wanted {
            room.ready(reference, &module(1)).await;
        }
        assert_eq!(registry.downloads(), 1);
        room.stop().await;
    }
}
