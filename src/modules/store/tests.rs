use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::collect::KEEP_UNFINISHED;
use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn stored(data_dir: &Path, content: &[u8]) -> (Store, Digest) {
    let store = Store::open(data_dir);
    let digest = Digest::of(content);
    store.write(&digest, content);
    (store, digest)
}

#[test]
fn a_module_survives_a_restart() {
    let data_dir = tempfile::tempdir().unwrap();
    let (_, digest) = stored(data_dir.path(), b"module");
    let store = Store::open(data_dir.path());
    assert_eq!(store.read(&digest).unwrap(), "module");
    assert_eq!((store.size(), store.fault()), (6, None));
    assert!(data_dir.path().join(format!("modules/sha256/{digest}.wasm")).exists());
}

#[test]
fn a_damaged_file_is_removed_and_not_believed() {
    let data_dir = tempfile::tempdir().unwrap();
    let (store, digest) = stored(data_dir.path(), b"module");
    fs::write(store.path(&digest), b"modul").unwrap();
    assert_eq!(store.read(&digest), None);
    assert!(!store.path(&digest).exists());
    fs::write(store.path(&digest), b"modulf").unwrap();
    store.write(&digest, b"module");
    assert_eq!(store.read(&digest).unwrap(), "module");
}

#[test]
fn what_a_crash_left_behind_is_not_believed_and_goes_after_an_hour() {
    let data_dir = tempfile::tempdir().unwrap();
    let (store, digest) = stored(data_dir.path(), b"module");
    let leftover = store.folder.join(format!("{UNFINISHED}abc"));
    fs::write(&leftover, b"mod").unwrap();
    let foreign = store.folder.join("README");
    fs::write(&foreign, b"").unwrap();
    store.collect(|_| false, SystemTime::now() + KEEP_UNFINISHED / 2, u64::MAX);
    assert!(leftover.exists());
    store.collect(|_| false, SystemTime::now() + KEEP_UNFINISHED * 2, u64::MAX);
    assert!(!leftover.exists() && foreign.exists());
    assert!(store.read(&digest).is_some());
}

#[test]
fn what_nobody_used_for_a_week_is_removed() {
    let data_dir = tempfile::tempdir().unwrap();
    let (store, used) = stored(data_dir.path(), b"used");
    let (_, unused) = stored(data_dir.path(), b"unused");
    store.collect(|digest| *digest == used, SystemTime::now() + 6 * DAY, u64::MAX);
    assert!(store.path(&unused).exists());
    store.collect(|digest| *digest == used, SystemTime::now() + 8 * DAY, u64::MAX);
    assert!(store.path(&used).exists() && !store.path(&unused).exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_a_fault_that_names_it_and_heals() {
    let parent = tempfile::tempdir().unwrap();
    let data_dir = parent.path().join("data");
    fs::write(&data_dir, b"a file is in the way").unwrap();
    let (store, digest) = stored(&data_dir, b"module");
    let fault = store.fault().unwrap();
    assert!(fault.starts_with(&format!("{}/modules/sha256: ", data_dir.display())), "{fault}");
    assert_eq!((store.read(&digest), store.size()), (None, 0));
    store.collect(|_| false, SystemTime::now(), 0);
    fs::remove_file(&data_dir).unwrap();
    store.write(&digest, b"module");
    assert_eq!(store.fault(), None);
    assert!(store.read(&digest).is_some());
}

#[test]
fn without_room_the_longest_unused_go_first_and_what_is_used_stays() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = Store::open(data_dir.path());
    let now = SystemTime::now();
    let digests: Vec<_> = (0..5_u8)
        .map(|number| {
            let content = [number; 100];
            let digest = Digest::of(&content);
            store.write(&digest, &content);
            let file = File::options().append(true).open(store.path(&digest)).unwrap();
            file.set_modified(now - Duration::from_secs(100 - u64::from(number))).unwrap();
            digest
        })
        .collect();
    let stored = |store: &Store| -> Vec<_> { digests.iter().map(|digest| store.has(digest)).collect() };
    assert_eq!(store.size(), 500);
    store.collect(|digest| *digest == digests[0], now, 300);
    assert_eq!((stored(&store), store.size(), store.removed()), (vec![true, false, false, true, true], 300, 2));
    store.collect(|_| true, now, 0);
    assert_eq!((stored(&store).len(), store.size(), store.removed()), (5, 300, 2));
}

/// In the environment of the process that writes until it is killed.
const WRITE_INTO: &str = "WASMPLANE_TEST_WRITE_INTO";

#[test]
#[ignore = "is the other process of the next test"]
fn write_without_end() {
    let Some(data_dir) = std::env::var_os(WRITE_INTO) else { return };
    let store = Store::open(Path::new(&data_dir));
    for number in 0_u64.. {
        let content = [std::process::id().to_le_bytes().repeat(50_000), number.to_le_bytes().to_vec()].concat();
        store.write(&Digest::of(&content), &content);
    }
}

fn writer(data_dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "modules::store::tests::write_without_end", "--ignored"]);
    command.env(WRITE_INTO, data_dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_process_killed_while_it_writes_leaves_no_half_module_that_is_believed() {
    let data_dir = tempfile::tempdir().unwrap();
    let store = Store::open(data_dir.path());
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&store.folder).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let is_unfinished = |name: &String| name.starts_with(UNFINISHED);
    let mut killed_at_work = 0;
    for round in 0..40 {
        let mut child = writer(data_dir.path());
        // In the middle of its first module, of a later one, or just after one.
        let (before, more) = (names().len(), round % 4);
        while names().iter().filter(|name| !is_unfinished(name)).count()
            + usize::from(names().iter().any(is_unfinished))
            < before + more
        {
            assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed_at_work += usize::from(names().iter().any(is_unfinished));
        for name in names().iter().filter(|name| !is_unfinished(name)) {
            let digest: Digest = name.strip_suffix(".wasm").unwrap().parse().unwrap();
            assert!(store.read(&digest).is_some(), "round {round}: half a module was believed: {name}");
            fs::remove_file(store.path(&digest)).unwrap();
        }
        for name in names() {
            fs::remove_file(store.folder.join(name)).unwrap();
        }
    }
    assert!(killed_at_work > 0, "no writer was killed in the middle of a module");
}
