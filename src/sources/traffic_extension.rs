//! The `spec` of a TrafficExtension, turned into a [`Plugin`] (Istio: R1.3 to R1.9): a module or a script.

use super::annotations::{self, Annotations, Subject};
use super::fields::{Field, Object};
use super::metadata::Metadata;
use super::report::Report;
use super::workload::target;
use super::{traffic, wasm_block};
use crate::model::{FailStrategy, LuaProgram, Plugin, PluginId, PluginType, Program};

const FIELDS: [&str; 7] = ["selector", "targetRefs", "phase", "priority", "match", "wasm", "lua"];

/// What the extension runs.
struct Body {
    program: Program,
    plugin_type: PluginType,
    fail_strategy: FailStrategy,
    is_disabled: bool,
}

/// Reads `spec`, as `wasm_plugin::read` does.
pub(super) fn read(
    id: &PluginId,
    metadata: &Metadata<'_>,
    spec: &Field<'_>,
    report: &mut Report<'_>,
) -> Option<Plugin> {
    // What stands one level higher in a WasmPlugin is the likeliest slip.
    let inside = |key: &str| wasm_block::FIELDS.contains(&key).then(|| format!(", did you mean \"spec.wasm.{key}\"?"));
    let spec = spec.object_with(&FIELDS, inside, report)?;
    let target = target(&spec, &["selector", "targetRefs"], report);
    let body = body(id, metadata, &spec, report);
    let traffic = traffic::read(&spec, "UNSPECIFIED", report);
    let (body, traffic) = (body?, traffic?);
    Some(Plugin {
        id: id.clone(),
        created: metadata.created,
        target: target?,
        matches: traffic.matches,
        position: traffic.position,
        priority: traffic.priority,
        plugin_type: body.plugin_type,
        fail_strategy: body.fail_strategy,
        program: body.program,
        is_disabled: body.is_disabled,
    })
}

fn body(id: &PluginId, metadata: &Metadata<'_>, spec: &Object<'_>, report: &mut Report<'_>) -> Option<Body> {
    let (wasm, lua) = (spec.get("wasm"), spec.get("lua"));
    if wasm.is_some() == lua.is_some() {
        let both = if wasm.is_some() { "both are" } else { "neither is" };
        let path = lua.as_ref().map_or(&spec.path, |lua| &lua.path);
        report.fault(path, format!("exactly one of wasm and lua must be set, {both} here"));
    }
    let subject = if wasm.is_none() && lua.is_some() { Subject::Lua } else { Subject::Wasm };
    let annotations = annotations::read(metadata.annotations.as_ref(), subject, report);
    // Both are read where both are there, so that all faults are told.
    let script = lua.and_then(|lua| script(&lua, report));
    let block = wasm.and_then(|wasm| wasm_body(id, &wasm, annotations.clone(), report));
    let script = script.map(|program| Body {
        program: Program::Lua(program),
        plugin_type: PluginType::Http,
        fail_strategy: FailStrategy::default(),
        is_disabled: annotations.is_disabled,
    });
    block.or(script)
}

fn wasm_body(id: &PluginId, wasm: &Field<'_>, annotations: Annotations, report: &mut Report<'_>) -> Option<Body> {
    let wasm = wasm.object(&wasm_block::FIELDS, report)?;
    let mut block = wasm_block::read(id, &wasm, report)?;
    annotations.warn_of_no_effect(block.plugin_type, block.fail_strategy, report);
    block.program.options = annotations.options;
    Some(Body {
        program: Program::Wasm(block.program),
        plugin_type: block.plugin_type,
        fail_strategy: block.fail_strategy,
        is_disabled: annotations.is_disabled,
    })
}

fn script(field: &Field<'_>, report: &mut Report<'_>) -> Option<LuaProgram> {
    let code = field.object(&["inlineCode"], report)?.required("inlineCode", report)?;
    // The CRD counts characters, the webhook bytes; `text_of` refuses more than that of either (R1.8).
    let source = code.text_of(1..=65536, report)?.to_owned();
    Some(LuaProgram { source })
}
