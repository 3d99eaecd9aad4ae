//! Images from a real registry: who may pull what, and what happens when it is not to be had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasmplane::commands::bootstrap::Protocol;
use wasmplane::model::{Code, Digest, DockerConfig, ModuleLocation, ModuleRef, ModuleState, PullPolicy, PullSecret};
use wasmplane::modules::{
    Certificate, Modules, NetworkSettings, Progress, Settings, TagRefresh, Upload, fetch_once, push,
};

use crate::support::control_plane::wasmplane_with;
use crate::support::envoy::CHAIN;
use crate::support::images::layout;
use crate::support::load::Load;
use crate::support::registry::{ALICE, ALICE_REFRESH_TOKEN, BOB, Guard, Registry, User, image, registry, tls_registry};
use crate::support::scene::Scene;
use crate::support::{modules, wait_until};

/// The module room alone, until it is dropped.
struct Room {
    modules: Modules,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Room {
    fn start(data_dir: &Path) -> Self {
        Self::with(Settings { data_dir: data_dir.to_owned(), ..Settings::default() })
    }

    fn with(settings: Settings) -> Self {
        let modules = Modules::open(settings);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(modules.clone().run(shutdown.clone()));
        Self { modules, shutdown, task }
    }

    fn want(&self, refs: &[&ModuleRef]) {
        self.modules.want(refs.iter().map(|it| (*it).clone()).collect(), &BTreeSet::new());
    }

    async fn until<T>(&self, reference: &ModuleRef, what: &str, is_it: impl Fn(&ModuleState) -> Option<T>) -> T {
        let last = Mutex::new(String::new());
        wait_until(&format!("{what}: {}", reference.location), async || {
            let states = self.modules.states();
            let states = states.borrow();
            let state = states.get(reference)?;
            *last.lock().unwrap() = format!("{state:?}");
            is_it(state)
        })
        .await
    }

    async fn ready(&self, reference: &ModuleRef, module: &[u8]) {
        let digest = Digest::of(module);
        let is_it = |state: &ModuleState| match state {
            ModuleState::Ready(Code::Module(module)) if module.digest == digest => Some(()),
            _ => None,
        };
        self.until(reference, "module ready", is_it).await;
    }

    async fn failed(&self, reference: &ModuleRef) -> String {
        let is_it = |state: &ModuleState| match state {
            ModuleState::Failed { reason } => Some(reason.clone()),
            ModuleState::Ready(code) => panic!("ready: {code:?}"),
            ModuleState::Pending => None,
        };
        self.until(reference, "module failed", is_it).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn wanted(registry: &Registry, rest: &str, secret: Option<&str>) -> ModuleRef {
    ModuleRef {
        location: ModuleLocation::Oci(registry.reference(rest)),
        sha256: None,
        pull_policy: PullPolicy::Unspecified,
        pull_secret: secret.map(|name| ("shop".to_owned(), name.to_owned())),
    }
}

fn pinned(reference: &ModuleRef, pin: Digest) -> ModuleRef {
    ModuleRef { sha256: Some(pin), ..reference.clone() }
}

type Secrets = Arc<BTreeMap<(String, String), Arc<PullSecret>>>;

fn secrets(configs: &[(&str, String)]) -> Secrets {
    let secret = |(name, config): &(&str, String)| {
        let config = DockerConfig::parse(config).unwrap();
        (("shop".to_owned(), (*name).to_owned()), Arc::new(PullSecret::Registries(config)))
    };
    Arc::new(configs.iter().map(secret).collect())
}

/// Every file below a folder, as text.
fn all_text(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let text = |path: std::path::PathBuf| match path.is_dir() {
        true => all_text(&path),
        false => String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned(),
    };
    entries.map(text).collect()
}

#[tokio::test]
async fn what_one_secret_may_pull_helps_no_other_and_none_not_even_from_the_store() {
    for guard in [Guard::Passwords, Guard::Tokens] {
        let Some(mut registry) = registry(guard).await else { return };
        let (data_dir, image) = (tempfile::tempdir().unwrap(), image(&modules::hello()));
        registry.publish("alice/hello", "v1", &image);
        let mallory = User { name: ALICE.name, password: "guessed" };
        let known = secrets(&[("alice", registry.docker_config(ALICE)), ("mallory", registry.docker_config(mallory))]);
        let alice = wanted(&registry, "alice/hello:v1", Some("alice"));
        let by_digest = |secret| wanted(&registry, &format!("alice/hello@sha256:{}", image.digest()), secret);
        let mut others = Vec::new();
        for secret in [Some("mallory"), None, Some("absent")] {
            let by_tag = wanted(&registry, "alice/hello:v1", secret);
            others.push(pinned(&by_tag, Digest::of(&modules::hello())));
            others.push(pinned(&by_tag, image.digest()));
            others.extend([by_tag, by_digest(secret)]);
        }
        let all: Vec<_> = [&alice].into_iter().chain(&others).collect();

        let room = Room::start(data_dir.path());
        room.modules.know(known.clone());
        room.want(&[&alice]);
        room.ready(&alice, &modules::hello()).await;
        room.want(&all);
        for other in &others {
            let said = room.failed(other).await;
            let is_right = said.contains("401 Unauthorized") || said.contains("there is no such Secret");
            assert!(is_right && !said.contains("guessed") && !said.contains(ALICE.password), "{guard:?}: {said}");
        }
        room.stop().await;
        let text = all_text(data_dir.path());
        for secret in [ALICE.password, "guessed", "Bearer", "Basic"] {
            assert!(!text.contains(secret), "{guard:?}: {secret} is on disk");
        }

        // A dead registry, and a restart: last known good is for who had it.
        registry.kill().await;
        let room = Room::start(data_dir.path());
        room.modules.know(known);
        room.want(&all);
        room.ready(&alice, &modules::hello()).await;
        for other in &others {
            room.failed(other).await;
        }
        room.stop().await;
    }
}

#[tokio::test]
async fn a_token_is_for_one_repository_of_one_user() {
    let Some(registry) = registry(Guard::Tokens).await else { return };
    let (data_dir, tokens) = (tempfile::tempdir().unwrap(), registry.tokens.as_ref().unwrap());
    for repository in ["alice/hello", "bob/hello", "public/hello"] {
        registry.publish(repository, "v1", &image(&modules::hello()));
    }
    let refresh = json!({"auths": {registry.host(): {"identitytoken": ALICE_REFRESH_TOKEN}}}).to_string();
    let room = Room::start(data_dir.path());
    room.modules.know(secrets(&[("bob", registry.docker_config(BOB)), ("refresh", refresh)]));
    let [bobs, alices, public, refreshed] = [
        wanted(&registry, "bob/hello:v1", Some("bob")),
        wanted(&registry, "alice/hello:v1", Some("bob")),
        wanted(&registry, "public/hello:v1", None),
        wanted(&registry, "alice/hello:v1", Some("refresh")),
    ];
    room.want(&[&bobs, &alices, &public, &refreshed]);
    for ready in [&bobs, &public, &refreshed] {
        room.ready(ready, &modules::hello()).await;
    }
    let said = room.failed(&alices).await;
    let expected = format!("oci://{}: manifest v1: 401 Unauthorized (", registry.reference("alice/hello:v1"));
    assert!(said.starts_with(&expected) && said.ends_with("asked with secret shop/bob"), "{said}");
    let asked: BTreeSet<_> = tokens.asked().into_iter().collect();
    let scope = |user: &str, repository: &str| (user.to_owned(), format!("repository:{repository}:pull"));
    let expected = [
        scope("alice", "alice/hello"),
        scope("bob", "alice/hello"),
        scope("bob", "bob/hello"),
        scope("", "public/hello"),
    ];
    assert_eq!(asked, expected.into());
}

#[tokio::test]
async fn an_expired_token_is_said_and_the_next_one_works() {
    let Some(registry) = registry(Guard::Tokens).await else { return };
    let data_dir = tempfile::tempdir().unwrap();
    registry.publish("alice/hello", "v1", &image(&modules::hello()));
    let tokens = registry.tokens.as_ref().unwrap();
    tokens.set_lifetime(-300);
    let room = Room::start(data_dir.path());
    room.modules.know(secrets(&[("alice", registry.docker_config(ALICE))]));
    let alice = wanted(&registry, "alice/hello:v1", Some("alice"));
    room.want(&[&alice]);
    let said = room.failed(&alice).await;
    assert!(said.contains("manifest v1: 401 Unauthorized"), "{said}");
    tokens.set_lifetime(300);
    room.ready(&alice, &modules::hello()).await;
}

#[tokio::test]
async fn a_secret_that_comes_or_is_mended_later_is_tried_at_once() {
    let Some(registry) = registry(Guard::Passwords).await else { return };
    let data_dir = tempfile::tempdir().unwrap();
    registry.publish("alice/hello", "v1", &image(&modules::hello()));
    let room = Room::start(data_dir.path());
    let alice = wanted(&registry, "alice/hello:v1", Some("alice"));
    room.want(&[&alice]);
    let expected = "imagePullSecret shop/alice: there is no such Secret";
    assert_eq!(room.failed(&alice).await, format!("oci://{}: {expected}", registry.reference("alice/hello:v1")));
    // Nothing is on schedule: without the change it would never be tried again.
    room.modules.know(secrets(&[("alice", registry.docker_config(ALICE))]));
    room.ready(&alice, &modules::hello()).await;
}

#[tokio::test]
async fn tls_needs_a_certificate_that_is_trusted_for_this_registry() {
    let Some(registry) = tls_registry(Guard::Nobody).await else { return };
    let (trusting, distrusting) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    registry.publish("hello", "v1", &image(&modules::hello()));
    let wanted = wanted(&registry, "hello:v1", None);
    let pem = std::fs::read(registry.ca_file()).unwrap();
    let of = |host: &str| NetworkSettings {
        registry_cas: vec![(host.parse().unwrap(), Certificate::from_pem_bundle(&pem).unwrap())],
        ..NetworkSettings::default()
    };
    let network = of(&registry.host());
    let room = Room::with(Settings { data_dir: trusting.path().to_owned(), network, ..Settings::default() });
    room.want(&[&wanted]);
    room.ready(&wanted, &modules::hello()).await;
    // Trusted for another registry only; this one is on loopback, so that plain HTTP is spoken, which it refuses.
    let network = of("other.test");
    let room = Room::with(Settings { data_dir: distrusting.path().to_owned(), network, ..Settings::default() });
    room.want(&[&wanted]);
    let said = room.failed(&wanted).await;
    let advice = "asked in plain HTTP; if it speaks TLS, name its certificate with --registry-ca";
    assert!(said.ends_with(&format!("manifest v1: 400 Bad Request, {advice}")), "{said}");
}

#[tokio::test]
async fn a_tag_that_moves_is_followed_or_reported_as_told() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let (old, new) = (modules::header("x-version", "old"), modules::header("x-version", "new"));
    registry.publish("hello", "v1", &image(&old));
    let (following, reporting) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wanted = wanted(&registry, "hello:v1", None);
    let room = |data_dir: &Path, rolls_out| {
        let tag_refresh = Some(TagRefresh { every: Duration::from_millis(50), rolls_out });
        Room::with(Settings { data_dir: data_dir.to_owned(), tag_refresh, ..Settings::default() })
    };
    let (following, reporting) = (room(following.path(), true), room(reporting.path(), false));
    for room in [&following, &reporting] {
        room.want(&[&wanted]);
        room.ready(&wanted, &old).await;
    }
    let image_of = |room: &Room| room.modules.notes().borrow()[&wanted].image;
    assert_eq!(image_of(&following), Some(image(&old).digest()));

    registry.publish("hello", "v1", &image(&new));
    following.ready(&wanted, &new).await;
    assert_eq!(image_of(&following), Some(image(&new).digest()));
    let means = wait_until("what the tag means", async || reporting.modules.notes().borrow()[&wanted].tag_means).await;
    assert_eq!((means, image_of(&reporting)), (image(&new).digest(), Some(image(&old).digest())));
    reporting.ready(&wanted, &old).await;
}

#[tokio::test]
async fn what_is_pushed_can_be_fetched() {
    let Some(registry) = registry(Guard::Nobody).await else { return };
    let image = image(&modules::hello());
    let moved = Arc::new(Mutex::new((0, 0)));
    let watch = Arc::clone(&moved);
    let progress: Arc<dyn Fn(Progress) + Send + Sync> = Arc::new(move |progress| match progress {
        Progress::Total(bytes) => watch.lock().unwrap().0 += bytes,
        Progress::Bytes(bytes) => watch.lock().unwrap().1 += bytes,
    });
    let upload = Upload {
        blobs: image.blobs.iter().cloned().map(Bytes::from).collect(),
        manifest: image.manifest.clone().into(),
        media_type: "application/vnd.oci.image.manifest.v1+json",
    };
    let reference = registry.reference("team/hello:v1");
    // Twice: the second time the registry has it all.
    for _ in 0..2 {
        let pushed = push(&reference, NetworkSettings::default(), upload.clone(), Arc::clone(&progress)).await.unwrap();
        assert_eq!((pushed.reference, pushed.digest), (reference.clone(), image.digest()));
    }
    let size: usize = image.blobs.iter().map(Vec::len).sum();
    assert_eq!(*moved.lock().unwrap(), (2 * size as u64, 2 * size as u64));
    let fetched = fetch_once(&ModuleLocation::Oci(reference), NetworkSettings::default(), progress).await.unwrap();
    assert_eq!((&fetched.module[..], fetched.image), (&modules::hello()[..], Some(image.digest())));
}

#[tokio::test]
async fn an_image_runs_in_envoy_and_goes_on_after_a_restart_without_registry() {
    let Some(mut registry) = registry(Guard::Passwords).await else { return };
    let Some((mut scene, _envoy)) = Scene::with_envoy(CHAIN, Protocol::Delta).await else { return };
    let image = image(&modules::header("x-image", "yes"));
    registry.publish("team/plugin", "v1", &image);
    let url = format!("oci://{}", registry.reference("team/plugin:v1"));
    scene.plugin("plugin", &url, json!({"imagePullSecret": "pull"}));
    let has_error = |status: &serde_json::Value| status["moduleError"].as_str().is_some_and(|it| !it.is_empty());
    let failing = scene.until_status("default/plugin", "no secret", has_error).await;
    assert!(
        failing["moduleError"].as_str().unwrap().contains("imagePullSecret default/pull: there is no such"),
        "{failing}"
    );
    scene.control.write("secret.yaml", &registry.secret("default", "pull", ALICE));
    scene.until_header("x-image", Some("yes")).await;
    let status = scene.until_all("default/plugin", "programmed", 1).await;
    assert_eq!(status["imageDigest"], image.digest().to_string());

    let load = Load::watching(scene.port, 2, "x-image");
    registry.kill().await;
    scene.control.kill().await;
    // The secret goes as well: what was pulled with it stays.
    scene.control.delete("secret.yaml");
    scene.control.start().await;
    scene.until_all("default/plugin", "programmed", 1).await;
    assert_eq!(scene.responses().await, BTreeMap::new());
    let report = load.stop().await;
    report.assert_untouched(2);
    let said = all_text(&scene.control.data()) + &scene.control.log();
    assert!(!said.contains(ALICE.password), "the password is on disk or in the log");
}

#[tokio::test]
async fn a_program_that_a_docker_config_names_is_never_run() {
    let Some(registry) = registry(Guard::Passwords).await else { return };
    layout("cncf", &modules::hello()).publish(&registry, "a", "v1");
    let folder = tempfile::tempdir().unwrap();
    let (helper, trace) = (folder.path().join("docker-credential-evil"), folder.path().join("it-ran"));
    std::fs::write(&helper, format!("#!/bin/sh\ntouch {}\n", trace.display())).unwrap();
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let host = registry.host();
    let config = json!({"credsStore": "evil", "credHelpers": {&host: "evil"}, "auths": {&host: {}}}).to_string();
    std::fs::write(folder.path().join("config.json"), &config).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());

    // Neither the operator's own, nor one of somebody who may write a Secret.
    let url = format!("oci://{}", registry.reference("a:v1"));
    let environment = [("DOCKER_CONFIG", folder.path().as_os_str()), ("PATH", path.as_ref())];
    let inspected = wasmplane_with(&environment, &["inspect", &url]).await;
    let expected = "leaves them to programs, which are not run";
    assert!(inspected.code == Some(2) && inspected.stderr.contains(expected), "{inspected:?}");
    let mut scene = Scene::new().await;
    scene.control = scene.control.environment("PATH", &path);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull", "namespace": "default"},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config},
    });
    scene.control.write("secret.yaml", &secret.to_string());
    scene.control.start().await;
    scene.plugin("a", &url, json!({"imagePullSecret": "pull"}));
    let says_so = |status: &Value| status["moduleError"].as_str().is_some_and(|it| it.contains(expected));
    scene.until_status("default/a", expected, says_so).await;
    assert!(!trace.exists());
}
