//! A difference for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::commands::mode_name;
use crate::protobuf::admin::{Change, DiffManifestsResponse, ManifestDiff, ProxyDiff};

/// Ids that are named; the rest is counted.
const NAMED: usize = 5;

/// Which proxies a difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookedAt {
    /// One of each kind that the manifests speak of.
    Kinds,
    Connected,
}

pub fn of(diff: &DiffManifestsResponse, looked_at: LookedAt) -> String {
    let mut out = String::new();
    for manifest in &diff.manifests {
        write_manifest(&mut out, manifest);
    }
    for proxy in &diff.proxies {
        write_proxy(&mut out, proxy);
    }
    for rejected in &diff.rejected {
        let _ = writeln!(out, "rejected {}: {}", rejected.resource, rejected.reason);
    }
    for warning in &diff.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    let _ = writeln!(out, "{}", summary(diff, looked_at));
    out
}

pub fn change_word(change: Change) -> &'static str {
    match change {
        Change::Unspecified => "unknown",
        Change::Added => "added",
        Change::Changed => "changed",
        Change::Removed => "removed",
    }
}

fn write_manifest(out: &mut String, manifest: &ManifestDiff) {
    let _ = writeln!(out, "{} {}", manifest.resource, change_word(manifest.change()));
    for field in &manifest.fields {
        let show = |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.to_owned() };
        let _ = writeln!(out, "  {}: {} -> {}", field.field, show(&field.old), show(&field.new));
    }
}

fn write_proxy(out: &mut String, proxy: &ProxyDiff) {
    let envoy = if proxy.envoy_version.is_empty() { "of unknown release" } else { &proxy.envoy_version };
    let _ = writeln!(out, "{}, Envoy {envoy}, {}", who(proxy), mode_name(proxy.mode()));
    for resource in &proxy.resources {
        let _ = writeln!(out, "  {} {} {}", change_word(resource.change()), resource.r#type, resource.name);
    }
    for listener in &proxy.listeners {
        let is_drained = proxy.drains.contains(listener);
        let _ = match is_drained {
            true => writeln!(out, "  listener {listener} drains"),
            false => writeln!(out, "  touches listener {listener}, no drain"),
        };
    }
}

fn who(proxy: &ProxyDiff) -> String {
    if let [first, ..] = &proxy.ids[..] {
        let named = proxy.ids.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        return match proxy.ids.len() {
            1 => format!("proxy {first}"),
            number if number > NAMED => format!("{number} proxies: {named} and {} more", number - NAMED),
            number => format!("{number} proxies: {named}"),
        };
    }
    let labels: BTreeMap<_, _> = proxy.labels.iter().collect();
    let labels = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let with = if labels.is_empty() { String::new() } else { format!(" with {labels}") };
    format!("proxies in {}{with}", proxy.namespace)
}

fn summary(diff: &DiffManifestsResponse, looked_at: LookedAt) -> String {
    let (one, many) = match looked_at {
        LookedAt::Kinds => ("kind of proxy", "kinds of proxies"),
        LookedAt::Connected => ("proxy", "proxies"),
    };
    let compared = if diff.compared == 1 { format!("1 {one}") } else { format!("{} {many}", diff.compared) };
    if diff.proxies.is_empty() {
        let what = if diff.manifests.is_empty() { "nothing changes" } else { "nothing that is served changes" };
        return format!("{what} for {compared}");
    }
    let changing: usize = diff.proxies.iter().map(|proxy| proxy.ids.len().max(1)).sum();
    let drains: usize = diff.proxies.iter().map(|proxy| proxy.ids.len().max(1) * proxy.drains.len()).sum();
    let drains = match drains {
        0 => "no listener drains".to_owned(),
        1 => "1 listener drains".to_owned(),
        number => format!("{number} listeners drain"),
    };
    format!("{changing} of {compared} would change, {drains}")
}
