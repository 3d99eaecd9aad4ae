//! Does a plugin, or a template, ask for this proxy? Namespace, selector and target references decide.
//!
//! Comes in: a specification, and a proxy's namespace and labels. Goes out: yes, or why not.

use std::collections::BTreeMap;

use crate::model::{GATEWAY_NAME, Plugin, ProxyTemplate, TargetReference, WorkloadTarget};

/// Why a plugin does not apply to a proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("namespace {namespace} is neither the proxy's nor the root namespace")]
    Namespace { namespace: String },
    #[error("selector does not match: {key}={value}")]
    Selector { key: String, value: String },
    #[error("targetRefs do not match: the proxy has no label {GATEWAY_NAME}")]
    NoGateway,
    #[error("targetRefs do not match: {references}")]
    References { references: String },
}

/// Whether `plugin` applies to a proxy, its listeners aside (Istio: R2.1 to R2.6).
pub fn applies(
    plugin: &Plugin,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    root_namespace: &str,
) -> Result<(), Reason> {
    let own = &*plugin.id.namespace;
    if own != namespace && own != root_namespace {
        return Err(Reason::Namespace { namespace: own.to_owned() });
    }
    match &plugin.target {
        WorkloadTarget::Everything => Ok(()),
        WorkloadTarget::Labels(selector) => match selector.mismatch(labels) {
            None => Ok(()),
            Some((key, value)) => Err(Reason::Selector { key: key.to_owned(), value: value.to_owned() }),
        },
        WorkloadTarget::References(references) => {
            let gateway = labels.get(GATEWAY_NAME).ok_or(Reason::NoGateway)?;
            // The root namespace gives no extra reach (R2.5); the other kinds mean waypoints (R2.6 to R2.8).
            if own == namespace && references.iter().any(|reference| is_gateway(reference, gateway)) {
                return Ok(());
            }
            let words: Vec<_> = references.iter().map(|it| format!("{} {own}/{}", it.kind, it.name)).collect();
            Err(Reason::References { references: words.join(", ") })
        }
    }
}

/// Whether `template` describes listeners of a proxy.
pub fn template_applies(
    template: &ProxyTemplate,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    root_namespace: &str,
) -> bool {
    let own = &*template.id.namespace;
    (own == namespace || own == root_namespace)
        && template.selector.as_ref().is_none_or(|selector| selector.matches(labels))
}

fn is_gateway(reference: &TargetReference, name: &str) -> bool {
    reference.group == "gateway.networking.k8s.io" && reference.kind == "Gateway" && reference.name == name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fixtures::{labels, plugin};
    use crate::model::Selector;

    fn why_not(plugin: &Plugin, namespace: &str, pairs: &[(&str, &str)]) -> Option<String> {
        applies(plugin, namespace, &labels(pairs), "root").err().map(|reason| reason.to_string())
    }

    #[test]
    fn a_plugin_reaches_its_own_namespace_and_the_root_reaches_all() {
        assert_eq!(why_not(&plugin("shop/a"), "shop", &[]), None);
        assert_eq!(why_not(&plugin("root/a"), "shop", &[]), None);
        assert_eq!(
            why_not(&plugin("other/a"), "shop", &[]).unwrap(),
            "namespace other is neither the proxy's nor the root namespace"
        );
    }

    #[test]
    fn a_selector_names_the_label_that_is_missing() {
        let mut plugin = plugin("shop/a");
        plugin.target = WorkloadTarget::Labels(Selector(labels(&[("app", "api")])));
        assert_eq!(why_not(&plugin, "shop", &[("app", "api"), ("v", "1")]), None);
        assert_eq!(why_not(&plugin, "shop", &[("app", "web")]).unwrap(), "selector does not match: app=api");
    }

    #[test]
    fn a_target_reference_wants_a_gateway_of_its_own_namespace() {
        let reference = |kind: &str, name: &str| TargetReference {
            group: "gateway.networking.k8s.io".into(),
            kind: kind.into(),
            name: name.into(),
        };
        let gateway = [(GATEWAY_NAME, "gw")];
        let mut own = plugin("shop/a");
        own.target = WorkloadTarget::References(vec![reference("Gateway", "other"), reference("Gateway", "gw")]);
        let mut root = plugin("root/a");
        root.target = own.target.clone();
        let mut class = plugin("shop/a");
        class.target = WorkloadTarget::References(vec![reference("GatewayClass", "gw")]);

        assert_eq!(why_not(&own, "shop", &gateway), None);
        assert!(why_not(&own, "shop", &[]).unwrap().contains("no label"));
        assert_eq!(why_not(&class, "shop", &gateway).unwrap(), "targetRefs do not match: GatewayClass shop/gw");
        assert!(why_not(&root, "shop", &gateway).is_some());
    }
}
