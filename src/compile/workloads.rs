//! Proxies that manifests speak of, where none is there to be asked: one for each combination that can matter.
//!
//! The rule: in each namespace that has a template or plugin, and for each template that reaches it, a proxy with just
//! the template's selector labels (and one without labels); then each of these with the labels of one plugin selector
//! added, or the name of a Gateway that a plugin refers to. Plugins that need two selectors at once beside the template's
//! are not combined, so that the number stays within [`MAX_WORKLOADS`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Workload;
use crate::model::{GATEWAY_NAME, Plugin, ProxyTemplate, WorkloadTarget};

/// More are left out, and the caller says so.
pub const MAX_WORKLOADS: usize = 2_000;

type Labels = BTreeMap<String, String>;

/// The workloads of a set of manifests, those with few labels first; at most [`MAX_WORKLOADS`], and how many there are.
pub fn representatives<'a>(
    plugins: impl Iterator<Item = &'a Arc<Plugin>>,
    templates: impl Iterator<Item = &'a Arc<ProxyTemplate>>,
    root_namespace: &str,
) -> (Vec<Workload>, usize) {
    let (plugins, templates): (Vec<_>, Vec<_>) = (plugins.collect(), templates.collect());
    let of_plugins = plugins.iter().map(|plugin| &*plugin.id.namespace);
    let namespaces: BTreeSet<&str> = of_plugins.chain(templates.iter().map(|it| &*it.id.namespace)).collect();
    let mut found: BTreeSet<(usize, &str, Labels)> = BTreeSet::new();
    for namespace in namespaces {
        let reaches = |other: &str| other == namespace || other == root_namespace;
        let selectors = templates.iter().filter(|template| reaches(&template.id.namespace));
        let selectors = selectors.filter_map(|template| Some(template.selector.as_ref()?.0.clone()));
        let bases: BTreeSet<Labels> = selectors.chain([Labels::new()]).collect();
        let added: BTreeSet<Labels> =
            plugins.iter().filter(|it| reaches(&it.id.namespace)).flat_map(|plugin| labels_of(plugin)).collect();
        for base in bases {
            let joined = added.iter().filter_map(|added| join(&base, added));
            found.extend(joined.chain([base.clone()]).map(|labels| (labels.len(), namespace, labels)));
        }
    }
    let number = found.len();
    let workload = |(_, namespace, labels): (usize, &str, Labels)| Workload {
        namespace: namespace.to_owned(),
        labels,
        root_namespace: root_namespace.to_owned(),
    };
    (found.into_iter().take(MAX_WORKLOADS).map(workload).collect(), number)
}

/// The labels with which a proxy is what the plugin asks for; one set per Gateway.
fn labels_of(plugin: &Plugin) -> Vec<Labels> {
    match &plugin.target {
        WorkloadTarget::Everything => Vec::new(),
        WorkloadTarget::Labels(selector) => vec![selector.0.clone()],
        WorkloadTarget::References(references) => references
            .iter()
            .filter(|reference| reference.kind == "Gateway")
            .map(|reference| Labels::from([(GATEWAY_NAME.to_owned(), reference.name.clone())]))
            .collect(),
    }
}

/// Both, unless they contradict one another.
fn join(one: &Labels, other: &Labels) -> Option<Labels> {
    let agrees = |(key, value): (&String, &String)| one.get(key).is_none_or(|it| it == value);
    other.iter().all(agrees).then(|| one.clone().into_iter().chain(other.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fixtures::{labels, plugin, template};
    use crate::model::{Selector, TargetReference};

    #[test]
    fn templates_and_plugin_selectors_make_the_workloads_of_each_namespace() {
        let mut web = template("shop/web");
        web.selector = Some(Selector(labels(&[("app", "web")])));
        let mut canary = plugin("shop/canary");
        canary.target = WorkloadTarget::Labels(Selector(labels(&[("track", "canary")])));
        let mut api = plugin("root/api");
        api.target = WorkloadTarget::Labels(Selector(labels(&[("app", "api")])));
        let mut gateway = plugin("edge/gateway");
        let reference = TargetReference { group: String::new(), kind: "Gateway".into(), name: "gw".into() };
        gateway.target = WorkloadTarget::References(vec![reference]);

        let plugins = [canary, api, gateway].map(Arc::new);
        let (workloads, number) = representatives(plugins.iter(), [Arc::new(web)].iter(), "root");
        let told: Vec<_> = workloads
            .iter()
            .map(|it| {
                let labels: Vec<_> = it.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("{} {}", it.namespace, labels.join(","))
            })
            .collect();
        assert_eq!(
            told,
            [
                "edge ",
                "root ",
                "shop ",
                "edge app=api",
                "edge gateway.networking.k8s.io/gateway-name=gw",
                "root app=api",
                "shop app=api",
                "shop app=web",
                "shop track=canary",
                "shop app=web,track=canary",
            ]
        );
        assert_eq!(number, 10);
    }
}
