//! Can two resources meet on one proxy? Their namespaces and selectors say.

use std::collections::BTreeMap;

use crate::model::{GATEWAY_NAME, Plugin, ProxyTemplate, Selector, WorkloadTarget};

/// Whether some proxy could get both.
pub(super) fn may_meet(plugin: &Plugin, template: &ProxyTemplate, root: &str) -> bool {
    let (own, other) = (&*plugin.id.namespace, &*template.id.namespace);
    let is_near = own == other || other == root;
    match &plugin.target {
        WorkloadTarget::Everything => is_near || own == root,
        WorkloadTarget::Labels(selector) => {
            (is_near || own == root) && agree(Some(selector), template.selector.as_ref())
        }
        // A reference stays in its own namespace, the root's as well (R2.5).
        WorkloadTarget::References(references) => {
            let gateway = |name: &str| Selector(BTreeMap::from([(GATEWAY_NAME.to_owned(), name.to_owned())]));
            let mut gateways = references.iter().filter(|reference| reference.kind == "Gateway");
            is_near && gateways.any(|reference| agree(Some(&gateway(&reference.name)), template.selector.as_ref()))
        }
    }
}

/// Whether some proxy could get both templates.
pub(super) fn may_share(left: &ProxyTemplate, right: &ProxyTemplate, root: &str) -> bool {
    is_in_reach(left, right, root) && agree(left.selector.as_ref(), right.selector.as_ref())
}

/// Whether every proxy that gets the one with more labels gets the other one too.
pub(super) fn surely_share(left: &ProxyTemplate, right: &ProxyTemplate, root: &str) -> bool {
    let labels = |template: &ProxyTemplate| template.selector.clone().unwrap_or_default().0;
    let (left_labels, right_labels) = (labels(left), labels(right));
    let holds = |all: &BTreeMap<_, _>, some: &BTreeMap<String, String>| {
        some.iter().all(|(key, value)| all.get(key) == Some(value))
    };
    is_in_reach(left, right, root) && (holds(&left_labels, &right_labels) || holds(&right_labels, &left_labels))
}

fn is_in_reach(left: &ProxyTemplate, right: &ProxyTemplate, root: &str) -> bool {
    let (left, right) = (&*left.id.namespace, &*right.id.namespace);
    left == right || left == root || right == root
}

/// No label that one wants with one value and the other with another.
fn agree(left: Option<&Selector>, right: Option<&Selector>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return true };
    left.0.iter().all(|(key, value)| right.0.get(key).is_none_or(|other| other == value))
}
