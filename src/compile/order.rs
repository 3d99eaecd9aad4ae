//! In which order plugins run, and in which order templates win a clash.

use std::cmp::{Ordering, Reverse};

use crate::model::{Plugin, PluginKind, ProxyTemplate};

/// Position, higher priority first, own namespace before root, older first (absent is oldest), name, kind: a WasmPlugin
/// comes after what else has its name (Istio: R4.5).
pub fn by_run(a: &Plugin, b: &Plugin, namespace: &str) -> Ordering {
    let rank = |plugin: &Plugin| (plugin.position, Reverse(plugin.priority), *plugin.id.namespace != *namespace);
    // `None` is less than any time: absent is oldest.
    let kind = |plugin: &Plugin| (plugin.id.kind == PluginKind::WasmPlugin, plugin.id.kind);
    let rest = |plugin: &Plugin| (plugin.created, plugin.id.name.clone(), kind(plugin));
    rank(a).cmp(&rank(b)).then_with(|| rest(a).cmp(&rest(b)))
}

/// Own namespace before root, older first, name: the first of two that clash wins.
pub fn by_precedence(a: &ProxyTemplate, b: &ProxyTemplate, namespace: &str) -> Ordering {
    let rank = |template: &ProxyTemplate| (*template.id.namespace != *namespace, template.created);
    rank(a).cmp(&rank(b)).then_with(|| a.id.name.cmp(&b.id.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fixtures::plugin;
    use crate::model::Position;

    #[test]
    fn each_criterion_decides_only_where_the_ones_before_it_tie() {
        let old = Some("2024-01-01T00:00:00Z".parse().unwrap());
        let new = Some("2025-01-01T00:00:00Z".parse().unwrap());
        let plugins = [
            ("shop/late", Position::BeforeRouter, 9, old),
            ("root/young", Position::PreAuthN, 5, None),
            ("shop/b", Position::PreAuthN, 5, new),
            ("shop/a", Position::PreAuthN, 5, new),
            ("shop/z", Position::PreAuthN, 5, None),
            ("shop/y", Position::PreAuthN, 5, old),
            ("root/first", Position::PreAuthN, 6, new),
            ("shop/negative", Position::PreAuthN, -5, old),
            ("shop/default", Position::PreAuthN, 0, new),
        ];
        let mut plugins = plugins.map(|(id, position, priority, created)| {
            let mut plugin = plugin(id);
            (plugin.position, plugin.priority, plugin.created) = (position, priority, created);
            plugin
        });
        plugins.sort_by(|a, b| by_run(a, b, "shop"));
        let names = plugins.map(|plugin| plugin.id.name.to_string());
        assert_eq!(names, ["first", "z", "y", "a", "b", "young", "default", "negative", "late"]);
    }
}
