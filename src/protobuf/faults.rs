//! All that is wrong with a message in JSON at once: what of it cannot be read, and what of the rest an Envoy would refuse.
//!
//! A value that cannot be read is taken out, so that the rest can be judged by Envoy's rules.

use serde_json::Value;

use super::envoy::{refusals, violations};
use super::{InvalidMessage, Violation};

/// Every fault of `json` as the message `full_name`; `first` is what `from_json` refused it for, if it did.
pub fn faults(full_name: &str, json: &Value, first: Option<&InvalidMessage>) -> Vec<Violation> {
    let Some(first) = first else { return refusals(full_name, json) };
    let mut unread = violations(full_name, json);
    if unread.is_empty() {
        unread.push(first.violation.clone());
    }
    let mut rest = json.clone();
    for Violation { path, .. } in &unread {
        remove(&mut rest, path);
    }
    // What is missing now may only be missing because it was taken out.
    let is_about_a_gap = |path: &str| unread.iter().any(|it| after(&it.path, path).is_some());
    let refused: Vec<_> = refusals(full_name, &rest).into_iter().filter(|it| !is_about_a_gap(&it.path)).collect();
    unread.extend(refused);
    unread
}

/// Takes the value at `path` out: the field that it is in, so that the items of lists keep their numbers.
fn remove(json: &mut Value, path: &str) {
    let Value::Object(entries) = json else { return };
    let path = path.strip_prefix('.').unwrap_or(path);
    // A key may hold dots, so the longest one wins.
    let fitting = entries.keys().filter(|key| after(path, key).is_some());
    let Some(key) = fitting.max_by_key(|key| key.len()).cloned() else { return };
    let mut tail = after(path, &key).unwrap_or_default();
    let mut index = None;
    if let Some((number, rest)) = tail.strip_prefix('[').and_then(|tail| tail.split_once(']')) {
        (index, tail) = (number.parse::<usize>().ok(), rest);
    }
    // Without its type, nothing in an `Any` can be read.
    if tail.is_empty() || tail == ".@type" {
        entries.remove(&key);
        return;
    }
    let child = entries.get_mut(&key).and_then(|child| match index {
        Some(index) => child.get_mut(index),
        None => Some(child),
    });
    if let Some(child) = child {
        remove(child, tail);
    }
}

/// What is left of `path` after `start`, which ends where a name ends.
fn after<'p>(path: &'p str, start: &str) -> Option<&'p str> {
    let tail = path.strip_prefix(start)?;
    (start.is_empty() || tail.is_empty() || tail.starts_with(['.', '['])).then_some(tail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protobuf::from_json;

    const LISTENER: &str = "envoy.config.listener.v3.Listener";

    fn told(json: &Value) -> Vec<String> {
        let first = from_json(LISTENER, json).err();
        let faults = faults(LISTENER, json, first.as_ref());
        faults.into_iter().map(|fault| format!("{}: {}", fault.path, fault.reason)).collect()
    }

    fn tcp(fields: &Value) -> Value {
        let mut config = json!({"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "c"});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"name": "tcp", "typed_config": config})
    }

    #[test]
    fn a_value_that_cannot_be_read_hides_no_rule_that_another_one_breaks() {
        let chain = |filters: Value| json!({"filter_chains": [{"filters": filters}]});
        let path = "filter_chains[0].filters";
        let soon = tcp(&json!({"stat_prefix": "", "idle_timeout": "soon"}));
        let other = tcp(&json!({"stat_prefix": "x", "max_connect_attempts": 0}));
        assert_eq!(
            told(&chain(json!([soon, other]))),
            [
                format!(
                    "{path}[0].typed_config.idle_timeout: must be a length of time in seconds, such as 1.5s, not \"soon\""
                ),
                format!("{path}[0].typed_config.stat_prefix: must not be empty"),
                format!("{path}[1].typed_config.max_connect_attempts: 0 is out of range, allowed is >= 1"),
            ]
        );
    }

    #[test]
    fn what_was_taken_out_is_not_missed() {
        // The prefix is required, and there; its type is wrong.
        assert_eq!(told(&json!({"filter_chains": [{"filters": [tcp(&json!({"stat_prefix": 5}))]}]})).len(), 1);
        // One of the address' fields is required.
        assert_eq!(told(&json!({"address": {"socket_address": "x"}})).len(), 1);
        // Of a filter without type nothing more is known.
        assert_eq!(told(&json!({"filter_chains": [{"filters": [{"name": "x", "typed_config": {"a": 1}}]}]})).len(), 1);
        assert_eq!(told(&json!([])).len(), 1);
    }
}
