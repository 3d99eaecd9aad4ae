//! Plugins whose `match` or `type` fits no listener of the templates that they meet.

use super::shapes::{Shape, listeners};
use super::{Found, reach};
use crate::model::{Direction, Plugin, PluginType, Program, TrafficMatch, WorkloadMode};
use crate::sources::Loaded;

pub(super) fn check(loaded: &Loaded, root: &str, found: &mut Found<'_>) {
    let shapes: Vec<_> = loaded.templates.values().map(|template| (template, listeners(template))).collect();
    for plugin in loaded.plugins.values() {
        let met = shapes.iter().filter(|(template, _)| reach::may_meet(plugin, template, root));
        let met: Vec<&Shape> = met.flat_map(|(_, shapes)| shapes).collect();
        if !met.is_empty() {
            Judge { plugin, found }.plugin(&met);
        }
    }
}

struct Judge<'j, 'l> {
    plugin: &'j Plugin,
    found: &'j mut Found<'l>,
}

impl Judge<'_, '_> {
    fn warn(&mut self, field: &str, reason: String) {
        let id = &self.plugin.id;
        self.found.warn(format!("{} {}/{}", id.kind.kind(), id.namespace, id.name), Some(id), field, reason);
    }

    fn plugin(&mut self, met: &[&Shape]) {
        let carries = |shape: &&&Shape| match self.plugin.plugin_type {
            PluginType::Http => shape.is_http,
            PluginType::Network => shape.has_chains,
        };
        let carriers: Vec<_> = met.iter().filter(carries).copied().collect();
        if carriers.is_empty() {
            let field = if matches!(self.plugin.program, Program::Lua(_)) { "spec.lua" } else { "spec" };
            let wanted = match self.plugin.plugin_type {
                PluginType::Http => "no listener speaks HTTP",
                PluginType::Network => "no listener has a filter chain",
            };
            return self.warn(field, format!("has no effect on the ProxyTemplates here: {wanted}: {}", named(met)));
        }
        let matches = self.plugin.matches.clone();
        for (index, entry) in matches.iter().enumerate() {
            self.entry(&format!("spec.match[{index}]"), entry, &carriers);
        }
        let fits = |entry: &TrafficMatch| carriers.iter().any(|shape| entry.holds(shape.direction, shape.port));
        if !matches.is_empty() && !matches.iter().any(fits) {
            self.warn("spec.match", format!("fits no listener of the ProxyTemplates here: {}", named(&carriers)));
        }
    }

    fn entry(&mut self, path: &str, entry: &TrafficMatch, carriers: &[&Shape]) {
        let any_port = TrafficMatch { mode: entry.mode, ports: Vec::new() };
        let of_mode: Vec<_> =
            carriers.iter().filter(|shape| any_port.holds(shape.direction, shape.port)).copied().collect();
        if of_mode.is_empty() {
            let (mode, wanted) = match entry.mode {
                WorkloadMode::Server => ("SERVER", "no listener is INBOUND"),
                _ => ("CLIENT", "no listener is OUTBOUND or GATEWAY"),
            };
            let reason = format!("{mode} fits no listener of the ProxyTemplates here: {wanted}: {}", named(carriers));
            return self.warn(&format!("{path}.mode"), reason);
        }
        for (index, port) in
            entry.ports.iter().enumerate().filter(|(_, port)| of_mode.iter().all(|it| it.port != **port))
        {
            let field = format!("{path}.ports[{index}].number");
            self.warn(&field, format!("no listener of the ProxyTemplates here has port {port}: {}", named(&of_mode)));
        }
    }
}

/// As operators know them; a few of many.
fn named(shapes: &[&Shape]) -> String {
    const SHOWN: usize = 5;
    let name = |shape: &&Shape| {
        let direction = match shape.direction {
            Direction::Inbound => "INBOUND",
            Direction::Outbound => "OUTBOUND",
            Direction::Gateway => "GATEWAY",
        };
        format!("{} ({direction} {})", shape.name, shape.port)
    };
    let names = shapes.iter().take(SHOWN).map(name).collect::<Vec<_>>().join(", ");
    match shapes.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{names} and {more} more"),
        _ => names,
    }
}
