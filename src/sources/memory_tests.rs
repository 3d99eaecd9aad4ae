//! The rules of last good content, without a disk.

use super::memory::{Hidden, Memory, Scan, Seen};
use super::{Finding, LastGood, Loaded};

fn plugin(name: &str, priority: &str) -> String {
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}}}\n\
         spec: {{url: r/a, priority: {priority}}}\n---\n"
    )
}

fn scan(files: &[(&str, &str)]) -> Scan {
    let read = |(path, text): &(&str, &str)| ((*path).into(), Seen::Read(text.as_bytes().to_vec()));
    Scan { files: files.iter().map(read).collect(), ..Scan::default() }
}

/// Name and priority of each plugin.
fn plugins(loaded: &Loaded) -> Vec<(&str, i32)> {
    loaded.plugins.values().map(|plugin| (&*plugin.id.name, plugin.priority)).collect()
}

fn faults(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|found| format!("{}:{} {}", found.file.display(), found.line, found.reason)).collect()
}

#[test]
fn a_broken_file_keeps_all_that_it_said_and_has_one_fault() {
    let mut memory = Memory::default();
    memory.update(scan(&[("a.yaml", &(plugin("x", "1") + &plugin("w", "1"))), ("b.yaml", &plugin("z", "1"))]));
    let loaded = memory.update(scan(&[("a.yaml", "a: [1\nb: 2\n"), ("b.yaml", &plugin("z", "2"))]));
    assert_eq!(plugins(&loaded), [("w", 1), ("x", 1), ("z", 2)]);
    assert_eq!(loaded.faults.len(), 1);
    assert!(loaded.faults[0].line > 0);
    let loaded = memory.update(scan(&[("a.yaml", &plugin("x", "3"))]));
    assert_eq!((plugins(&loaded), loaded.faults.as_slice()), (vec![("x", 3)], &[][..]));
}

#[test]
fn a_refused_resource_keeps_its_last_good_version_and_its_neighbours_go_forward() {
    let mut memory = Memory::default();
    memory.update(scan(&[("a.yaml", &(plugin("x", "1") + &plugin("w", "1")))]));
    let loaded = memory.update(scan(&[("a.yaml", &(plugin("x", "high") + &plugin("w", "2") + &plugin("z", "low")))]));
    assert_eq!(plugins(&loaded), [("w", 2), ("x", 1)]);
    assert_eq!(
        faults(&loaded.faults),
        ["a.yaml:4 must be an integer, not \"high\"", "a.yaml:14 must be an integer, not \"low\""]
    );
}

#[test]
fn only_a_deleted_file_or_a_deleted_document_deletes() {
    let mut memory = Memory::default();
    memory.update(scan(&[("a.yaml", &(plugin("x", "1") + &plugin("w", "1"))), ("b.yaml", &plugin("z", "1"))]));
    let loaded = memory.update(scan(&[("a.yaml", &plugin("w", "1"))]));
    assert_eq!(plugins(&loaded), [("w", 1)]);
    for empty in ["", "# nothing\n---\n"] {
        let loaded = memory.update(scan(&[("a.yaml", empty)]));
        assert_eq!(plugins(&loaded), [("w", 1)]);
        assert!(loaded.faults[0].reason.starts_with("has turned empty"));
    }
    let loaded = memory.update(scan(&[]));
    assert_eq!((plugins(&loaded), loaded.faults.as_slice()), (vec![], &[][..]));
}

#[test]
fn a_document_that_has_lost_its_name_takes_nothing_away() {
    let mut memory = Memory::default();
    memory.update(scan(&[("a.yaml", &(plugin("x", "1") + &plugin("w", "1")))]));
    let loaded = memory.update(scan(&[("a.yaml", &plugin("x", "2").replace("name: x", "nam: x"))]));
    assert_eq!(plugins(&loaded), [("w", 1), ("x", 1)]);
    assert_eq!(loaded.faults.len(), 2);
}

#[test]
fn an_empty_file_that_never_said_anything_is_no_fault() {
    let loaded = Memory::default().update(scan(&[("a.yaml", "# to come\n")]));
    assert_eq!(*loaded, Loaded::default());
}

#[test]
fn what_cannot_be_looked_at_keeps_its_content() {
    let mut memory = Memory::default();
    memory.update(scan(&[("conf/a.yaml", &plugin("x", "1")), ("b.yaml", &plugin("w", "1"))]));
    let loaded = memory.update(Scan {
        files: [("b.yaml".into(), Seen::Unreadable("cannot be read: no".into()))].into(),
        hidden: vec![Hidden { path: "conf".into(), reason: "no such file or folder".into(), is_gone: true }],
        ..Scan::default()
    });
    assert_eq!(plugins(&loaded), [("w", 1), ("x", 1)]);
    assert_eq!(faults(&loaded.faults), ["b.yaml:0 cannot be read: no", "conf:0 no such file or folder"]);
}

#[test]
fn a_file_on_the_command_line_is_deleted_when_it_is_gone_and_its_folder_is_not() {
    let mut memory = Memory::default();
    memory.update(scan(&[("conf/a.yaml", &plugin("x", "1"))]));
    let hidden = |is_gone| Scan {
        hidden: vec![Hidden { path: "conf/a.yaml".into(), reason: "no such file or folder".into(), is_gone }],
        ..Scan::default()
    };
    assert_eq!(plugins(&memory.update(hidden(false))), [("x", 1)]);
    assert_eq!(plugins(&memory.update(hidden(true))), []);
}

#[test]
fn of_two_declarations_the_smaller_path_wins_and_equal_ones_are_silent() {
    let mut memory = Memory::default();
    let loaded = memory.update(scan(&[("b.yaml", &plugin("x", "2")), ("a.yaml", &plugin("x", "1"))]));
    assert_eq!(plugins(&loaded), [("x", 1)]);
    assert_eq!(
        faults(&loaded.faults),
        ["b.yaml:1 declared twice with different content: a.yaml:1 is used, not b.yaml"]
    );
    assert_eq!(loaded.faults[0].resource, "WasmPlugin default/x");
    let loaded = memory.update(scan(&[("b.yaml", &plugin("x", "1")), ("a.yaml", &plugin("x", "1"))]));
    assert_eq!((plugins(&loaded), loaded.faults.as_slice()), (vec![("x", 1)], &[][..]));
}

#[test]
fn what_stands_in_a_file_goes_before_what_only_stood_in_one() {
    let mut memory = Memory::default();
    memory.update(scan(&[("a.yaml", &plugin("x", "1"))]));
    let loaded = memory.update(scan(&[("a.yaml", "["), ("b.yaml", &plugin("x", "2"))]));
    assert_eq!((plugins(&loaded), loaded.faults.len()), (vec![("x", 2)], 1));
}

#[test]
fn a_restart_with_a_broken_file_takes_nothing_away() {
    let mut before = Memory::default();
    let text = plugin("x", "1") + &plugin("w", "1");
    let last_good = before.update(scan(&[("a.yaml", &text), ("b.yaml", &plugin("z", "1"))])).last_good.clone();
    let loaded = Memory::recall(&last_good).update(scan(&[("a.yaml", "[")]));
    assert_eq!(plugins(&loaded), [("w", 1), ("x", 1)]);
    assert_eq!(loaded.last_good.keys().collect::<Vec<_>>(), last_good.keys().take(1).collect::<Vec<_>>());
    let loaded = Memory::recall(&last_good).update(scan(&[("a.yaml", &plugin("w", "2"))]));
    assert_eq!((plugins(&loaded), loaded.faults.as_slice()), (vec![("w", 2)], &[][..]));
    assert_eq!(*Memory::recall(&LastGood::new()).update(scan(&[])), Loaded::default());
}

#[test]
fn whatever_text_a_plugin_holds_survives_a_restart() {
    let odd = r#""\x7f\u0085\u2028\ufeff\uffff\0 é 😀 \\ \" \t\n""#;
    let text = plugin("x", "1").replace("url: r/a", &format!("url: r/a, pluginConfig: {{k: {odd}}}"));
    let before = Memory::default().update(scan(&[("a.yaml", &text)]));
    assert_eq!(before.faults, []);
    let after = Memory::recall(&before.last_good).update(scan(&[("a.yaml", "[")]));
    assert_eq!(after.plugins, before.plugins);
}

#[test]
fn an_unchanged_plugin_stays_the_same_value() {
    let mut memory = Memory::default();
    let first = memory.update(scan(&[("a.yaml", &plugin("x", "1"))]));
    let second = memory.update(scan(&[("a.yaml", &(plugin("x", "1") + &plugin("z", "1")))]));
    let (first, second) = (first.plugins.values().next().unwrap(), second.plugins.values().next().unwrap());
    assert!(std::sync::Arc::ptr_eq(first, second));
}

#[test]
fn a_look_at_one_file_leaves_the_others_as_they_are() {
    let mut memory = Memory::default();
    memory.update(Scan {
        hidden: vec![Hidden { path: "conf".into(), reason: "cannot be read: no".into(), is_gone: false }],
        ..scan(&[("a.yaml", &plugin("x", "1")), ("b.yaml", &plugin("z", "1"))])
    });
    let loaded = memory.update(Scan { is_partial: true, ..scan(&[("b.yaml", &plugin("z", "2"))]) });
    assert_eq!(plugins(&loaded), [("x", 1), ("z", 2)]);
    assert_eq!(faults(&loaded.faults), ["conf:0 cannot be read: no"]);
    let loaded = memory.update(scan(&[("b.yaml", &plugin("z", "2"))]));
    assert_eq!((plugins(&loaded), loaded.faults.len()), (vec![("z", 2)], 0));
}

#[test]
fn what_says_nothing_new_is_the_same_value() {
    let mut memory = Memory::default();
    let first = memory.update(scan(&[("a.yaml", &plugin("x", "1"))]));
    assert!(std::sync::Arc::ptr_eq(&first, &memory.update(scan(&[("a.yaml", &plugin("x", "1"))]))));
    // Other bytes, and nothing else.
    assert!(std::sync::Arc::ptr_eq(&first, &memory.update(scan(&[("a.yaml", &(plugin("x", "1") + "# words\n"))]))));
    assert!(!std::sync::Arc::ptr_eq(&first, &memory.update(scan(&[("a.yaml", &plugin("x", "2"))]))));
}
