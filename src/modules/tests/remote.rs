//! Modules over http(s).

use super::*;
use crate::modules::image::fixtures::{File, gzip, tar};

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
    // With the URL: a plugin's line in `plugins` has no other place for it.
    let url = &wanted.location;
    assert!(reason.starts_with(&format!("{url}: not a WebAssembly module but an HTML page: ")), "{reason}");
    server.set(Answer::Body(module(1)));
    room.ready(&wanted, &module(1)).await;
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
        format!(
            "{}: sha256 mismatch: expected {expected}, got {body} for the body as served and {inside} for the module",
            wrong.location
        )
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
    let page = room.failure(&wanted, 1).await;
    assert!(matches!(page.next, NextTry::At(_)));
    assert!(page.reason.contains("sha256 mismatch") && page.reason.contains("an HTML page"), "{page:?}");
    server.set(Answer::Body(module(2)));
    let (url, pin, came) = (&wanted.location, Digest::of(&module(1)), Digest::of(&module(2)));
    let expected = format!("{url}: sha256 mismatch: expected {pin}, got {came}");
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
    let keeper = Keeper::new(&modules.0, &wanted);

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
async fn what_is_odd_about_a_packaging_is_told_after_a_restart_too_and_of_no_other_module() {
    const MANIFEST: &[u8] = b"schemaVersion: 1\nphase: PreAuthZ\npriority: 1\nmodule: a.wasm\nodd: 1\n";
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
async fn an_edit_of_the_plugin_tries_a_module_again_that_was_a_login_page() {
    let (data_dir, server) = (folder(), Server::start(Answer::Body(b"<html>login".to_vec())).await);
    let wanted = server.reference("a.wasm");
    let room = Running::start_at(data_dir.path(), &[], Pace { slowest_retry: Duration::from_secs(300), ..PACE });
    room.want([&wanted]);
    room.failed(&wanted).await;
    server.set(Answer::Body(module(1)));
    // As with another priority or configuration.
    room.modules.want([wanted.clone()].into(), &[wanted.clone()].into());
    room.ready(&wanted, &module(1)).await;
    assert_eq!(server.requests(), 2);
    room.modules.want([wanted.clone()].into(), &[wanted.clone()].into());
    room.stop().await;
    assert_eq!(server.requests(), 2, "what is ready is not asked for again");
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is_left_alone() {
    let (data_dir, server) = (folder(), Server::start(Answer::Busy(40)).await);
    let (wanted, soon) = (server.reference("a.wasm"), Duration::from_secs(35));
    let pace = Pace { longest_obedience: Duration::from_secs(3600), ..PACE };
    let room = Running::start_at(data_dir.path(), &[], pace);
    room.want([&wanted]);
    let failure = room.failure(&wanted, 1).await;
    assert_eq!(failure.reason, format!("GET {}: 503 Service Unavailable", wanted.location));
    assert!(matches!(failure.next, NextTry::At(next) if next > failure.since + soon), "{failure:?}");
    assert_eq!(server.requests(), 1);
    room.stop().await;
}
