//! An explanation for programs. The fields of the design (section 1.1) keep their shape; others stand beside them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::commands::{mode_name, state_name};
use crate::protobuf::admin::{
    ExplainedChain, ExplainedGap, ExplainedListener, ExplainedPlugin, Explanation, Remark, SkippedPlugin, State,
};

pub fn of(explanation: &Explanation) -> Value {
    let labels: BTreeMap<_, _> = explanation.labels.iter().collect();
    let mut proxy = json!({"namespace": explanation.namespace, "labels": labels});
    if !explanation.id.is_empty() {
        proxy["id"] = json!(explanation.id);
    }
    json!({
        "proxy": proxy,
        "envoyVersion": explanation.envoy_version,
        "mode": mode_name(explanation.mode()),
        "modeReason": explanation.mode_reason,
        "plugins": explanation.plugins.iter().map(plugin).collect::<Vec<_>>(),
        "listeners": explanation.listeners.iter().map(listener).collect::<Vec<_>>(),
        "skipped": skipped(&explanation.skipped),
        "warnings": remarks(&explanation.warnings),
        "rejected": remarks(&explanation.rejected),
    })
}

fn plugin(plugin: &ExplainedPlugin) -> Value {
    let mut view = json!({
        "plugin": plugin.id,
        "type": plugin.r#type,
        "position": plugin.position,
        "priority": plugin.priority,
        "created": optional(&plugin.created),
        "after": optional(&plugin.after),
        "order": optional(&plugin.order),
        "resources": plugin.resources,
    });
    if plugin.state() != State::Unspecified {
        view["state"] = json!(state_name(plugin.state()));
        view["revision"] = optional(&plugin.revision);
        view["message"] = json!(plugin.message);
    }
    view
}

fn listener(listener: &ExplainedListener) -> Value {
    json!({
        "name": listener.name,
        "direction": listener.direction,
        "port": listener.port,
        "protocol": listener.protocol,
        "http": listener.http,
        "network": listener.network,
        "chains": listener.chains.iter().map(chain).collect::<Vec<_>>(),
        "skipped": skipped(&listener.skipped),
    })
}

fn chain(chain: &ExplainedChain) -> Value {
    let details: Vec<_> = chain.gaps.iter().map(gap).collect();
    json!({"name": chain.name, "http": chain.http, "network": chain.network, "details": details})
}

fn gap(gap: &ExplainedGap) -> Value {
    json!({
        "type": gap.r#type,
        "upgrade": optional(&gap.upgrade),
        "positions": [gap.first, gap.last],
        "after": optional(&gap.after),
        "before": optional(&gap.before),
        "plugins": gap.plugins,
        "resources": gap.resources,
    })
}

fn skipped(skipped: &[SkippedPlugin]) -> Vec<Value> {
    skipped.iter().map(|it| json!({"plugin": it.plugin, "reason": it.reason})).collect()
}

fn remarks(remarks: &[Remark]) -> Vec<Value> {
    remarks.iter().map(|it| json!({"resource": it.resource, "reason": it.reason})).collect()
}

fn optional(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}
