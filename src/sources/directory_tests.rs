//! The watched source on a real file system. Nothing sleeps: every test waits on the watch channel.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Directory, LastGood, Loaded, missing};

/// A folder, and the source that watches it.
struct Watched {
    folder: TempDir,
    news: watch::Receiver<Arc<Loaded>>,
    _running: DropGuard,
}

impl Watched {
    /// Watches `conf` in a new folder that `prepare` has filled.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("conf")).unwrap();
        prepare(&folder.path().join("conf"));
        let paths = vec![folder.path().join("conf")];
        Self::of(folder, paths)
    }

    fn of(folder: TempDir, paths: Vec<PathBuf>) -> Self {
        let directory = Directory::open(paths, &LastGood::new());
        let news = directory.watch();
        let shutdown = CancellationToken::new();
        tokio::spawn(directory.run(shutdown.clone()));
        Self { folder, news, _running: shutdown.drop_guard() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("conf").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Waits until the plugins are these, and gives all that is loaded then.
    async fn plugins(&mut self, wanted: &[(&str, i32)]) -> Loaded {
        self.until(|loaded| plugins(loaded) == wanted).await
    }

    async fn until(&mut self, condition: impl Fn(&Loaded) -> bool) -> Loaded {
        let waiting = self.news.wait_for(|loaded| condition(loaded));
        let found =
            tokio::time::timeout(Duration::from_secs(20), waiting).await.map(|found| (**found.unwrap()).clone());
        found.unwrap_or_else(|_| panic!("still: {:#?}", self.news.borrow()))
    }
}

fn plugin(name: &str, priority: i32) -> String {
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}}}\n\
         spec: {{url: r/a, priority: {priority}}}\n---\n"
    )
}

fn plugins(loaded: &Loaded) -> Vec<(&str, i32)> {
    loaded.plugins.values().map(|plugin| (&*plugin.id.name, plugin.priority)).collect()
}

#[tokio::test]
async fn a_file_that_is_new_changed_renamed_over_or_deleted_is_seen() {
    let mut watched = Watched::new(|_| {});
    watched.write("a.yaml", &plugin("x", 1));
    watched.plugins(&[("x", 1)]).await;
    watched.write("a.yaml", &plugin("x", 2));
    watched.plugins(&[("x", 2)]).await;
    watched.write(".a.yaml.tmp", &plugin("x", 3));
    fs::rename(watched.path(".a.yaml.tmp"), watched.path("a.yaml")).unwrap();
    watched.plugins(&[("x", 3)]).await;
    fs::remove_file(watched.path("a.yaml")).unwrap();
    let loaded = watched.plugins(&[]).await;
    assert_eq!(loaded, Loaded::default());
}

#[tokio::test]
async fn only_manifests_that_are_not_hidden_are_read_at_any_depth() {
    let mut watched = Watched::new(|conf| {
        fs::create_dir_all(conf.join("sub/deeper")).unwrap();
        fs::create_dir(conf.join(".git")).unwrap();
        fs::write(conf.join("sub/deeper/a.yml"), plugin("a", 1)).unwrap();
        fs::write(
            conf.join("b.json"),
            r#"{"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
            "metadata": {"name": "b"}, "spec": {"url": "r/b"}}"#,
        )
        .unwrap();
        for hidden in [".git/c.yaml", ".d.yaml", "e.txt"] {
            fs::write(conf.join(hidden), "[").unwrap();
        }
        symlink("..", conf.join("sub/loop")).unwrap();
    });
    let loaded = watched.plugins(&[("a", 1), ("b", 0)]).await;
    assert_eq!(loaded.faults, []);
    fs::create_dir_all(watched.path("new/one")).unwrap();
    watched.write("new/one/c.yaml", &plugin("c", 1));
    watched.plugins(&[("a", 1), ("b", 0), ("c", 1)]).await;
    fs::rename(watched.path("new"), watched.path(".new")).unwrap();
    watched.plugins(&[("a", 1), ("b", 0)]).await;
}

#[tokio::test]
async fn the_swap_of_a_config_maps_symlink_is_seen_as_one_change() {
    let mut watched = Watched::new(|conf| {
        fs::create_dir(conf.join("..2024_1")).unwrap();
        fs::write(conf.join("..2024_1/a.yaml"), plugin("a", 1)).unwrap();
        fs::write(conf.join("..2024_1/b.yaml"), plugin("b", 1)).unwrap();
        symlink("..2024_1", conf.join("..data")).unwrap();
        symlink("..data/a.yaml", conf.join("a.yaml")).unwrap();
        symlink("..data/b.yaml", conf.join("b.yaml")).unwrap();
    });
    watched.plugins(&[("a", 1), ("b", 1)]).await;
    for version in 2..5 {
        // As the kubelet does it: a new folder, a new link beside the old one, renamed over it.
        let folder = format!("..2024_{version}");
        fs::create_dir(watched.path(&folder)).unwrap();
        watched.write(&format!("{folder}/a.yaml"), &plugin("a", version));
        watched.write(&format!("{folder}/b.yaml"), &plugin("b", version));
        symlink(&folder, watched.path("..data_tmp")).unwrap();
        watched.news.mark_unchanged();
        fs::rename(watched.path("..data_tmp"), watched.path("..data")).unwrap();
        fs::remove_dir_all(watched.path(&format!("..2024_{}", version - 1))).unwrap();
        let loaded = watched.until(|loaded| loaded.plugins.values().any(|plugin| plugin.priority == version)).await;
        assert_eq!(plugins(&loaded), [("a", version), ("b", version)]);
    }
}

#[tokio::test]
async fn a_file_is_not_read_before_it_is_closed() {
    let mut watched = Watched::new(|conf| fs::write(conf.join("a.yaml"), plugin("a", 1)).unwrap());
    let text = plugin("a", 2) + &plugin("b", 2);
    let mut file = File::create(watched.path("a.yaml")).unwrap();
    file.write_all(&text.as_bytes()[..150]).unwrap();
    // Another file's event makes the source look; it leaves the open one alone.
    for round in 1..4 {
        watched.write("c.yaml", &plugin("c", round));
        let loaded = watched.plugins(&[("a", 1), ("c", round)]).await;
        assert_eq!(loaded.faults, []);
    }
    file.write_all(&text.as_bytes()[150..]).unwrap();
    drop(file);
    watched.plugins(&[("a", 2), ("b", 2), ("c", 3)]).await;
}

#[tokio::test]
async fn a_file_that_is_broken_or_emptied_keeps_its_last_good_content() {
    let mut watched = Watched::new(|conf| fs::write(conf.join("a.yaml"), plugin("a", 1)).unwrap());
    watched.write("a.yaml", "spec: [");
    let loaded = watched.until(|loaded| !loaded.faults.is_empty()).await;
    assert_eq!(plugins(&loaded), [("a", 1)]);
    assert!(loaded.faults[0].reason.starts_with("broken YAML: "), "{:?}", loaded.faults);
    watched.write("a.yaml", "");
    let is_empty = |loaded: &Loaded| loaded.faults.iter().any(|fault| fault.reason.starts_with("has turned empty"));
    let loaded = watched.until(is_empty).await;
    assert_eq!(plugins(&loaded), [("a", 1)]);
    watched.write("a.yaml", &plugin("a", 2));
    assert_eq!(watched.plugins(&[("a", 2)]).await.faults, []);
}

#[tokio::test]
async fn a_folder_that_vanishes_and_comes_back_takes_nothing_away() {
    let mut watched = Watched::new(|conf| fs::write(conf.join("a.yaml"), plugin("a", 1)).unwrap());
    fs::rename(watched.path(""), watched.folder.path().join("away")).unwrap();
    let loaded = watched.until(|loaded| !loaded.faults.is_empty()).await;
    assert_eq!(plugins(&loaded), [("a", 1)]);
    assert_eq!(loaded.faults[0].reason, "no such file or folder");
    fs::create_dir(watched.path("")).unwrap();
    watched.write("b.yaml", &plugin("b", 1));
    assert_eq!(watched.plugins(&[("b", 1)]).await.faults, []);
}

#[tokio::test]
async fn a_single_file_and_a_symlinks_target_are_watched_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let (conf, elsewhere) = (folder.path().join("conf"), folder.path().join("elsewhere"));
    fs::create_dir(&conf).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    fs::write(folder.path().join("single.txt"), plugin("single", 1)).unwrap();
    fs::write(elsewhere.join("target"), plugin("linked", 1)).unwrap();
    symlink(elsewhere.join("target"), conf.join("link.yaml")).unwrap();
    let (single, target) = (folder.path().join("single.txt"), elsewhere.join("target"));
    let mut watched = Watched::of(folder, vec![single.clone(), conf]);
    watched.plugins(&[("linked", 1), ("single", 1)]).await;
    fs::write(&target, plugin("linked", 2)).unwrap();
    watched.plugins(&[("linked", 2), ("single", 1)]).await;
    fs::write(&single, plugin("single", 2)).unwrap();
    watched.plugins(&[("linked", 2), ("single", 2)]).await;
    fs::remove_file(&target).unwrap();
    let loaded = watched.until(|loaded| !loaded.faults.is_empty()).await;
    assert_eq!(plugins(&loaded), [("linked", 2), ("single", 2)]);
}

#[tokio::test]
async fn a_file_renamed_within_the_folder_never_takes_its_plugin_away() {
    let mut watched = Watched::new(|conf| fs::write(conf.join("a.yaml"), plugin("a", 1)).unwrap());
    watched.news.mark_unchanged();
    fs::rename(watched.path("a.yaml"), watched.path("b.yaml")).unwrap();
    let moved = |loaded: &Loaded| loaded.last_good.keys().all(|path| path.ends_with("b.yaml"));
    let loaded = watched.until(moved).await;
    assert_eq!(plugins(&loaded), [("a", 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_written_all_the_time_are_never_seen_half_written() {
    const ROUNDS: i32 = 300;
    let mut watched = Watched::new(|_| {});
    let conf = watched.path("");
    let writer = std::thread::spawn(move || {
        for round in 1..=ROUNDS {
            fs::write(conf.join("a.yaml"), plugin("a", round)).unwrap();
            fs::write(conf.join("b.yaml"), plugin("b", round)).unwrap();
            fs::write(conf.join(".c"), plugin("c", round)).unwrap();
            fs::rename(conf.join(".c"), conf.join("c.yaml")).unwrap();
        }
    });
    let last = [("a", ROUNDS), ("b", ROUNDS), ("c", ROUNDS)];
    let loaded = watched.until(|loaded| !loaded.faults.is_empty() || plugins(loaded) == last).await;
    assert_eq!(loaded.faults, []);
    writer.join().unwrap();
}

#[test]
fn a_mistyped_path_is_told_apart_from_one_that_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    let (here, gone) = (folder.path().to_owned(), folder.path().join("gone"));
    let paths = [here, gone.clone()];
    assert_eq!(missing(&paths, &LastGood::new()), Some(gone.as_path()));
    let remembered = LastGood::from([(gone.join("a.yaml"), "x".into())]);
    assert_eq!(missing(&paths, &remembered), None);
    let of_another = LastGood::from([(folder.path().join("gone.yaml"), "x".into())]);
    assert_eq!(missing(&paths, &of_another), Some(gone.as_path()));
}
