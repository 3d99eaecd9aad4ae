//! In which order plugins run, and in which order templates win a clash.

use std::cmp::{Ordering, Reverse};

use crate::model::{Plugin, PluginKind, ProxyTemplate};

/// Position, higher priority first, own namespace before root, older first (absent is oldest), name, kind: a WasmPlugin
/// comes after what else has its name (Istio: R4.5).
pub fn by_run(a: &Plugin, b: &Plugin, namespace: &str) -> Ordering {
    let rank = |plugin: &Plugin| (plugin.position, Reverse(plugin.priority), *plugin.id.namespace != *namespace);
    // `None` is less than any time: absent is oldest.
    let kind = |plugin: &Plugin| (plugin.id.kind == PluginKind::WasmPlugin, plugin.id.kind);
    let age = |plugin: &Plugin| plugin.created;
    let by_rest = || age(a).cmp(&age(b)).then_with(|| a.id.name.cmp(&b.id.name)).then_with(|| kind(a).cmp(&kind(b)));
    rank(a).cmp(&rank(b)).then_with(by_rest)
}

/// Why `later` runs after `earlier`, in words: the first criterion of [`by_run`] that tells them apart.
pub fn why_after(earlier: &Plugin, later: &Plugin, namespace: &str) -> String {
    let is_own = |plugin: &Plugin| *plugin.id.namespace == *namespace;
    let age = |plugin: &Plugin| plugin.created.map_or_else(|| "of unknown age".to_owned(), |it| format!("of {it}"));
    if earlier.position != later.position {
        return format!("position {} comes after {}", later.position.as_str(), earlier.position.as_str());
    }
    if earlier.priority != later.priority {
        return format!("priority {} is lower than {}", later.priority, earlier.priority);
    }
    if is_own(earlier) != is_own(later) {
        return format!("namespace {} comes after the proxy's own", later.id.namespace);
    }
    if earlier.created != later.created {
        return format!("it is {}, the other {}", age(later), age(earlier));
    }
    match earlier.id.name == later.id.name {
        true => format!("a {} comes after a {} of its name", later.id.kind.kind(), earlier.id.kind.kind()),
        false => "its name comes later".to_owned(),
    }
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
        let names = plugins.each_ref().map(|plugin| plugin.id.name.to_string());
        assert_eq!(names, ["first", "z", "y", "a", "b", "young", "default", "negative", "late"]);
        let reasons: Vec<_> = plugins.windows(2).map(|pair| why_after(&pair[0], &pair[1], "shop")).collect();
        assert_eq!(
            reasons,
            [
                "priority 5 is lower than 6",
                "it is of 2024-01-01T00:00:00Z, the other of unknown age",
                "it is of 2025-01-01T00:00:00Z, the other of 2024-01-01T00:00:00Z",
                "its name comes later",
                "namespace root comes after the proxy's own",
                "priority 0 is lower than 5",
                "priority -5 is lower than 0",
                "position BeforeRouter comes after PreAuthN",
            ]
        );
    }
}
