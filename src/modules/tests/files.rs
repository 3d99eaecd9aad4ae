//! Files below a folder of `--module-files`, and others.

use super::*;
use crate::modules::image::fixtures::gzip;

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
    assert!(reason.contains("damaged or cut short"), "{reason}");
    room.ready(&wanted, &module(3)).await;

    fs::write(&path, module(4)).unwrap();
    room.ready(&wanted, &module(4)).await;
    assert_eq!(room.modules.notes().borrow()[&wanted], Notes::default());
}

#[tokio::test]
async fn a_config_map_with_a_module_in_it_is_followed_by_events_alone() {
    let (data_dir, files) = (folder(), folder());
    let path = files.path().join("plugin.wasm");
    let fill = |version: u32| {
        let folder = files.path().join(format!("..{version}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("plugin.wasm"), module(version)).unwrap();
        std::os::unix::fs::symlink(format!("..{version}"), files.path().join("..data_tmp")).unwrap();
        fs::rename(files.path().join("..data_tmp"), files.path().join("..data")).unwrap();
    };
    fill(1);
    std::os::unix::fs::symlink("..data/plugin.wasm", &path).unwrap();
    let room = Running::start_at(data_dir.path(), &[files.path()], Pace { poll: Duration::from_secs(3600), ..PACE });
    room.want([&file(&path)]);
    room.ready(&file(&path), &module(1)).await;
    for version in 2..5 {
        fill(version);
        room.ready(&file(&path), &module(version)).await;
    }
}

#[tokio::test]
async fn an_edit_in_place_is_noticed_whatever_times_and_length_the_file_has() {
    let (data_dir, files) = (folder(), folder());
    let path = files.path().join("plugin.wasm");
    fs::write(&path, module(1)).unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let room = Running::start_at(data_dir.path(), &[files.path()], Pace { poll: Duration::from_secs(3600), ..PACE });
    room.want([&file(&path)]);
    room.ready(&file(&path), &module(1)).await;
    for number in 2..8 {
        assert_eq!(module(number).len(), module(1).len());
        fs::write(&path, module(number)).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        room.ready(&file(&path), &module(number)).await;
    }
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
    assert_eq!(room.modules.stats().failures[&(Scheme::Oci, FailureReason::Reference)], 1);
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
