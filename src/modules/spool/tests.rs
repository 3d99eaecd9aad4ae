use super::*;

#[tokio::test]
async fn what_goes_in_comes_out_and_leaves_no_file() {
    let data_dir = tempfile::tempdir().unwrap();
    for spools in [Spools::beside_store(data_dir.path()), Spools::in_memory()] {
        let mut spool = spools.batch().await.open().await;
        spool.write(b"wrong").await.unwrap();
        spool.restart().await.unwrap();
        spool.write(b"some ").await.unwrap();
        spool.write(b"bytes").await.unwrap();
        let spooled = spool.finish();
        assert_eq!((spooled.digest(), spooled.len()), (Digest::of(b"some bytes"), 10));
        assert_eq!(spooled.read().await.unwrap(), "some bytes");
    }
    assert_eq!(std::fs::read_dir(data_dir.path().join("modules")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_full_disk_is_no_reason_to_do_without_a_module_and_is_said_where_memory_is_full_too() {
    let full = || Spools::on_device(Path::new("/dev/full"));
    let spools = full();
    let mut batch = spools.batch().await;
    for content in [b"some bytes".as_slice(), b"other bytes"] {
        let mut spool = batch.open().await;
        spool.write(&content[..4]).await.unwrap();
        spool.write(&content[4..]).await.unwrap();
        let spooled = spool.finish();
        assert_eq!(spooled.digest(), Digest::of(content));
        assert_eq!(spooled.read().await.unwrap(), content);
    }

    let spools = Spools { arriving: Arc::new(Semaphore::new(0)), ..full() };
    let said = spools.batch().await.open().await.write(b"bytes").await.unwrap_err().about("blob sha256:x").to_string();
    assert_eq!(
        said,
        "blob sha256:x: cannot be kept in /dev/full: No space left on device (os error 28); nor in memory, where other \
         downloads are"
    );
}

#[tokio::test]
async fn a_disk_that_fills_up_on_the_way_loses_nothing_of_what_had_come() {
    let data_dir = tempfile::tempdir().unwrap();
    let (spools, content) = (Spools::beside_store(data_dir.path()), vec![7; 3 * PIECE as usize]);
    let mut batch = spools.batch().await;
    let mut spool = batch.open().await;
    spool.write(&content[..2 * PIECE as usize + 1]).await.unwrap();
    spool.move_to_memory(io::Error::other("full")).await.unwrap();
    spool.write(&content[2 * PIECE as usize + 1..]).await.unwrap();
    let spooled = spool.finish();
    let arriving = ARRIVING / UNIT;
    assert!((spools.arriving.available_permits() as u64) < arriving);
    assert_eq!((spooled.digest(), spooled.read().await.unwrap()), (Digest::of(&content), content.into()));
    drop(batch);
    assert_eq!(spools.arriving.available_permits() as u64, arriving);
}

#[tokio::test]
async fn memory_is_handed_out_up_to_its_limit_and_no_wish_is_too_large() {
    let spools = Spools::in_memory();
    let all = spools.room(u64::MAX).await;
    assert_eq!(spools.memory.available_permits(), 0);
    drop(all);
    drop(spools.batch().await.room(&spools, u64::MAX).await);
    let _two = (spools.room(MEMORY / 2).await, spools.room(MEMORY / 2 - UNIT).await);
    assert_eq!(spools.memory.available_permits(), 1);
}

#[tokio::test]
async fn where_the_folder_cannot_be_used_who_finds_no_room_in_memory_fails_at_once_and_not_for_good() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("modules"), b"a file is in the way").unwrap();
    let spools = Spools { arriving: Arc::new(Semaphore::new(3)), ..Spools::beside_store(folder.path()) };
    let mut slow = spools.batch().await;
    let (mut first, mut second) = (slow.open().await, slow.open().await);
    first.write(&[1; 1000]).await.unwrap();
    first.restart().await.unwrap();
    first.write(&[2; 1024]).await.unwrap();
    second.write(&[3; 1]).await.unwrap();
    assert_eq!(spools.arriving.available_permits(), 1);

    let mut other = spools.batch().await;
    let mut spool = other.open().await;
    spool.write(&[4; 1024]).await.unwrap();
    let said = spool.write(&[4; 1]).await.unwrap_err().about("blob sha256:x").to_string();
    let path = folder.path().join("modules").display().to_string();
    assert_eq!(
        said,
        format!(
            "blob sha256:x: cannot be kept in {path}: File exists (os error 17); nor in memory, where other downloads are"
        )
    );
    drop((spool, other));

    // What has come is paid for until it is unpacked.
    let (first, second) = (first.finish(), second.finish());
    let room = slow.room(&spools, 10).await;
    assert_eq!((first.read().await.unwrap().len(), second.read().await.unwrap().len()), (1024, 1));
    assert_eq!(spools.arriving.available_permits(), 1);
    drop(room);
    assert_eq!(spools.arriving.available_permits(), 3);
}
