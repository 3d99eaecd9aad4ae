//! An explanation for people.

use std::fmt::Write as _;

use crate::commands::{mode_name, state_name};
use crate::protobuf::admin::{
    ExplainedChain, ExplainedGap, ExplainedListener, ExplainedPlugin, Explanation, Remark, SkippedPlugin, State,
};

pub fn of(explanation: &Explanation) -> String {
    let mut out = format!("mode {}: {}\n", mode_name(explanation.mode()), explanation.mode_reason);
    if explanation.listeners.is_empty() {
        out.push_str("no ProxyTemplate describes a listener of this proxy\n");
    }
    for listener in &explanation.listeners {
        write_listener(&mut out, listener);
    }
    write_plugins(&mut out, &explanation.plugins);
    write_skipped(&mut out, "does not run", &explanation.skipped);
    write_remarks(&mut out, "warnings", &explanation.warnings);
    write_remarks(&mut out, "rejected", &explanation.rejected);
    out
}

fn write_listener(out: &mut String, listener: &ExplainedListener) {
    let ExplainedListener { name, direction, port, protocol, .. } = listener;
    let _ = writeln!(out, "listener {name} ({direction} {protocol}, port {port})");
    write_order(out, "http", &listener.http);
    write_order(out, "network", &listener.network);
    // Chains that stand alike are told once.
    let mut told: Vec<&Vec<ExplainedGap>> = Vec::new();
    for chain in &listener.chains {
        if told.contains(&&chain.gaps) {
            continue;
        }
        let alike = listener.chains.iter().filter(|other| other.gaps == chain.gaps);
        write_chain(out, &alike.map(|chain| chain.name.as_str()).collect::<Vec<_>>().join(", "), chain);
        told.push(&chain.gaps);
    }
    for SkippedPlugin { plugin, reason } in &listener.skipped {
        let _ = writeln!(out, "  without {plugin}: {reason}");
    }
}

fn write_order(out: &mut String, word: &str, plugins: &[String]) {
    let plugins = if plugins.is_empty() { "none".to_owned() } else { plugins.join(" -> ") };
    let _ = writeln!(out, "  {word:<8} {plugins}");
}

fn write_chain(out: &mut String, names: &str, chain: &ExplainedChain) {
    let gaps: Vec<_> = chain.gaps.iter().filter(|gap| !gap.plugins.is_empty()).collect();
    if gaps.is_empty() {
        return;
    }
    let _ = writeln!(out, "  chain {names}:");
    for gap in gaps {
        let upgrade = if gap.upgrade.is_empty() { String::new() } else { format!("upgrade {}, ", gap.upgrade) };
        let after = if gap.after.is_empty() { String::new() } else { format!("after {}, ", gap.after) };
        let before = if gap.before.is_empty() { "at the end".to_owned() } else { format!("before {}", gap.before) };
        let _ = writeln!(out, "    {upgrade}{after}{before}: {}", gap.plugins.join(" -> "));
        for resource in &gap.resources {
            let _ = writeln!(out, "      by {resource}");
        }
    }
}

fn write_plugins(out: &mut String, plugins: &[ExplainedPlugin]) {
    if plugins.is_empty() {
        return;
    }
    out.push_str("plugins, in order:\n");
    for plugin in plugins {
        let ExplainedPlugin { id, position, priority, after, order, .. } = plugin;
        let kind = if plugin.r#type == "NETWORK" { ", network" } else { "" };
        let _ = write!(out, "  {id} ({position}, priority {priority}{kind})");
        if !after.is_empty() {
            let _ = write!(out, " after {after}: {order}");
        }
        out.push('\n');
        if plugin.state() != State::Unspecified {
            let message = if plugin.message.is_empty() { String::new() } else { format!(": {}", plugin.message) };
            let revision = if plugin.revision.is_empty() { "nothing of it" } else { &plugin.revision };
            let _ = writeln!(out, "    {}, {revision} runs{message}", state_name(plugin.state()));
        }
    }
}

fn write_skipped(out: &mut String, title: &str, skipped: &[SkippedPlugin]) {
    let lines: Vec<_> = skipped.iter().map(|it| (it.plugin.as_str(), it.reason.as_str())).collect();
    write_lines(out, title, &lines);
}

fn write_remarks(out: &mut String, title: &str, remarks: &[Remark]) {
    let lines: Vec<_> = remarks.iter().map(|it| (it.resource.as_str(), it.reason.as_str())).collect();
    write_lines(out, title, &lines);
}

fn write_lines(out: &mut String, title: &str, lines: &[(&str, &str)]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "{title}:");
    for (subject, reason) in lines {
        let _ = writeln!(out, "  {subject}: {reason}");
    }
}
