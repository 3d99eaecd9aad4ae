//! The store when it lacks room, or a folder.

use super::*;

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
