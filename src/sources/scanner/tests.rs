use super::*;

const NOW: Duration = Duration::from_secs(1_000_000);

fn listed(target: &str, modified: Duration) -> Listed {
    let stamp = Stamp { modified: Some(SystemTime::UNIX_EPOCH + modified), len: 1, ..Stamp::default() };
    Listed { target: Some(target.into()), is_symlinked: false, stamp }
}

fn judge(listed: &Listed, known: Option<&Listed>, done: &[&str], open: &[&str]) -> Verdict {
    let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect();
    verdict(listed, known, &Writes { done: paths(done), open: paths(open) }, SystemTime::UNIX_EPOCH + NOW)
}

#[test]
fn a_changed_file_is_ready_when_it_was_closed_renamed_or_has_lain_still() {
    let fresh = listed("/c/a.yaml", NOW);
    let settled = listed("/c/a.yaml", NOW - SETTLED);
    assert_eq!(judge(&fresh, None, &[], &[]), Verdict::NotReady);
    let quiet = listed("/c/a.yaml", NOW - QUIET);
    assert_eq!(judge(&fresh, None, &["/c/a.yaml"], &[]), Verdict::NotReady);
    assert_eq!(judge(&quiet, Some(&settled), &["/c/a.yaml"], &[]), Verdict::Ready);
    assert_eq!(judge(&quiet, None, &["/c"], &[]), Verdict::Ready);
    assert_eq!(judge(&quiet, None, &[], &[]), Verdict::NotReady);
    let empty = Listed { stamp: Stamp { len: 0, ..quiet.stamp }, ..quiet };
    assert_eq!(judge(&empty, None, &["/c"], &[]), Verdict::NotReady);
    assert_eq!(judge(&settled, Some(&fresh), &[], &[]), Verdict::Ready);
    assert_eq!(judge(&settled, Some(&settled), &[], &[]), Verdict::Unchanged);
}

#[test]
fn a_file_that_somebody_writes_is_never_ready_however_long_it_lies_still() {
    let settled = listed("/c/a.yaml", NOW / 2);
    assert_eq!(judge(&settled, None, &[], &["/c/a.yaml"]), Verdict::NotReady);
}

#[test]
fn a_symlink_that_leads_elsewhere_is_ready() {
    let link = |target| Listed { is_symlinked: true, ..listed(target, NOW) };
    assert_eq!(judge(&link("/c/..2/a.yaml"), Some(&link("/c/..1/a.yaml")), &[], &[]), Verdict::Ready);
    assert_eq!(judge(&link("/c/..2/a.yaml"), None, &[], &[]), Verdict::Ready);
}

#[test]
fn a_time_in_the_future_does_not_hold_a_file_back() {
    assert_eq!(judge(&listed("/c/a.yaml", NOW * 2), None, &[], &[]), Verdict::Ready);
}

#[test]
fn a_file_that_nobody_closed_is_read_once_it_has_lain_still_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut scanner = Scanner::new(vec![folder.path().to_owned()]);
    scanner.scan(Writes::default(), SystemTime::now());
    let seen = |scanned: Scanned| {
        let file = scanned.scan.and_then(|scan| scan.files.into_values().next());
        (scanned.again, format!("{file:?}"))
    };
    let mut scan = |now| seen(scanner.scan(Writes::default(), now));
    fs::write(folder.path().join("a.yaml"), "yy").unwrap();
    let written = fs::metadata(folder.path().join("a.yaml")).unwrap().modified().unwrap();
    assert_eq!(scan(written), (Some(SETTLED), "Some(Same)".to_owned()));
    assert_eq!(scan(written + SETTLED), (None, "Some(Read([121, 121]))".to_owned()));
    assert_eq!(scan(written + SETTLED), (None, "None".to_owned()));
}

#[test]
fn what_an_unmount_leaves_takes_nothing_away_and_what_is_deleted_goes() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, away) = (parent.path().join("config"), parent.path().join("away"));
    let mut scanner = Scanner::new(vec![folder.clone()]);
    let mut hides = || {
        scanner.scan(Writes::default(), SystemTime::now());
        scanner.listing().is_some_and(|listing| !listing.hidden.is_empty())
    };
    fs::create_dir(&folder).unwrap();
    assert!(!hides(), "it was empty from the beginning");
    fs::write(folder.join("a.yaml"), "x").unwrap();
    assert!(!hides());
    fs::rename(&folder, &away).unwrap();
    fs::create_dir(&folder).unwrap();
    assert!(hides() && hides());
    fs::write(folder.join("b.yaml"), "x").unwrap();
    assert!(!hides(), "it is in use");
    fs::remove_file(folder.join("b.yaml")).unwrap();
    assert!(!hides(), "it was emptied");
    fs::remove_dir(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    assert!(!hides());
}

#[test]
fn a_file_that_was_closed_just_now_is_read_a_moment_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(folder.path()).unwrap().join("a.yaml");
    let mut scanner = Scanner::new(vec![folder.path().to_owned()]);
    scanner.scan(Writes::default(), SystemTime::now());
    fs::write(&path, "x").unwrap();
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    let closed = Writes { done: [path].into(), ..Writes::default() };
    let scanned = scanner.scan(closed, written);
    assert_eq!(scanned.again, Some(QUIET));
    let scanned = scanner.scan(Writes::default(), written + QUIET);
    assert_eq!(scanned.again, None);
    assert_eq!(format!("{:?}", scanned.scan.unwrap().files.into_values().next()), "Some(Read([120]))");
}

/// A folder with two manifests, looked at once.
fn looked_at() -> (tempfile::TempDir, PathBuf, Scanner) {
    let folder = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(folder.path()).unwrap();
    for name in ["a.yaml", "b.yaml"] {
        fs::write(path.join(name), "x").unwrap();
    }
    let mut scanner = Scanner::new(vec![path.clone()]);
    scanner.scan(Writes::default(), later());
    (folder, path, scanner)
}

fn later() -> SystemTime {
    SystemTime::now() + SETTLED
}

fn news(done: &[&Path], others: &[&Path]) -> News {
    let touched = [done, others].concat().into_iter().map(Path::to_owned).collect();
    let writes = Writes { done: done.iter().map(|path| path.to_path_buf()).collect(), ..Writes::default() };
    News { writes, touched: Some(touched) }
}

fn read_files(scanned: Scanned) -> Vec<(String, String)> {
    let files = scanned.scan.into_iter().flat_map(|scan| scan.files);
    let read = files.filter_map(|(path, seen)| match seen {
        Seen::Read(bytes) => Some((path.file_name()?.to_str()?.to_owned(), String::from_utf8(bytes).ok()?)),
        _ => None,
    });
    read.collect()
}

#[test]
fn of_a_file_renamed_into_place_only_that_one_is_looked_at() {
    let (_folder, path, mut scanner) = looked_at();
    let (a, b, unfinished) = (path.join("a.yaml"), path.join("b.yaml"), path.join(".a.new"));
    fs::write(&unfinished, "y").unwrap();
    fs::rename(&unfinished, &a).unwrap();
    fs::write(&b, "z").unwrap();
    let scanned = scanner.glance(&news(&[&unfinished, &a], &[]), later()).unwrap();
    assert_eq!((scanned.again, scanned.scan.as_ref().unwrap().is_partial), (None, true));
    assert_eq!(read_files(scanned), [("a.yaml".to_owned(), "y".to_owned())]);
    // The look at everything finds what no event told of, and nothing twice.
    assert_eq!(read_files(scanner.scan(Writes::default(), later())), [("b.yaml".to_owned(), "z".to_owned())]);
    assert!(scanner.scan(Writes::default(), later()).scan.is_none());
}

#[test]
fn a_file_that_looks_the_same_is_read_again_when_it_was_closed() {
    let (_folder, path, mut scanner) = looked_at();
    let a = path.join("a.yaml");
    let before = fs::metadata(&a).unwrap().modified().unwrap();
    fs::write(&a, "y").unwrap();
    File::options().write(true).open(&a).unwrap().set_modified(before).unwrap();
    for _ in 0..2 {
        let scanned = scanner.glance(&news(&[&a], &[]), later()).unwrap();
        assert_eq!(read_files(scanned), [("a.yaml".to_owned(), "y".to_owned())]);
    }
}

#[test]
fn everything_is_looked_at_where_more_than_the_named_files_may_have_changed() {
    let (_folder, path, mut scanner) = looked_at();
    let (a, b) = (path.join("a.yaml"), path.join("b.yaml"));
    let mut is_refused = |news: News| scanner.glance(&news, later()).is_none();
    assert!(is_refused(News { touched: None, ..news(&[&a], &[]) }), "events were lost");
    assert!(is_refused(news(&[&a], &[&b])), "something else than a write");
    assert!(is_refused(news(&[&a, &path.join("c.yaml")], &[])), "a new file");
    assert!(is_refused(news(&[], &[&path])), "the folder itself");
    fs::create_dir(path.join("new")).unwrap();
    assert!(is_refused(news(&[&path.join("new")], &[])), "a folder");
    fs::hard_link(&a, path.join(".a")).unwrap();
    assert!(is_refused(news(&[&path.join(".a")], &[])), "another name of a file");
    fs::remove_file(&b).unwrap();
    std::os::unix::fs::symlink(&a, &b).unwrap();
    assert!(is_refused(news(&[&b], &[])), "a symlink");
    // As long as there is one, any path may lead to any file.
    scanner.scan(Writes::default(), later());
    assert!(scanner.glance(&news(&[&a], &[]), later()).is_none());
}

#[test]
fn a_file_that_was_not_ready_is_not_forgotten_over_another_one() {
    let (_folder, path, mut scanner) = looked_at();
    let (a, b) = (path.join("a.yaml"), path.join("b.yaml"));
    fs::write(&a, "y").unwrap();
    let written = fs::metadata(&a).unwrap().modified().unwrap();
    assert_eq!(scanner.glance(&news(&[&a], &[]), written).unwrap().again, Some(QUIET));
    assert!(scanner.glance(&news(&[&b], &[]), later()).is_none());
    let scanned = scanner.scan(news(&[&b], &[]).writes, later());
    let read = [("a.yaml", "y"), ("b.yaml", "x")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(read_files(scanned), read);
}
