//! A plugin's fields in words, so that two states of it can be told apart.

use crate::model::{
    EnvVar, EnvVarSource, LuaProgram, Plugin, Program, ReloadBackoff, TrafficMatch, WasmOptions, WasmProgram,
    WorkloadMode, WorkloadTarget,
};

/// One field, as operators know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    /// Empty where nothing is set.
    pub text: String,
    /// May hold what not everybody is to see.
    pub is_private: bool,
}

/// All fields, always the same ones in the same order.
pub fn fields(plugin: &Plugin) -> Vec<Field> {
    let (wasm, lua) = match &plugin.program {
        Program::Wasm(wasm) => (Some(wasm), None),
        Program::Lua(lua) => (None, Some(lua)),
    };
    let public = |name, text: String| Field { name, text, is_private: false };
    let private = |name, text: String| Field { name, text, is_private: true };
    let module = |show: fn(&crate::model::ModuleRef) -> String| wasm.map(|it| show(&it.module)).unwrap_or_default();
    let option = |show: fn(&WasmOptions) -> String| wasm.map(|it| show(&it.options)).unwrap_or_default();
    let of_wasm = |show: fn(&WasmProgram) -> String| wasm.map(show).unwrap_or_default();
    vec![
        public("selector", target(&plugin.target)),
        public("match", plugin.matches.iter().map(entry).collect::<Vec<_>>().join(", ")),
        public("phase", plugin.position.as_str().into()),
        public("priority", plugin.priority.to_string()),
        public("creationTimestamp", plugin.created.map(|it| it.to_string()).unwrap_or_default()),
        public("type", plugin.plugin_type.as_str().into()),
        public("failStrategy", plugin.fail_strategy.as_str().into()),
        public("wasmplane.io/disabled", if plugin.is_disabled { "true".into() } else { String::new() }),
        Field {
            name: "url",
            text: module(|module| module.location.whole()),
            is_private: module(|module| module.location.to_string()) != module(|module| module.location.whole()),
        },
        public("sha256", module(|module| module.sha256.map(|it| it.to_string()).unwrap_or_default())),
        public("imagePullPolicy", module(|module| module.pull_policy.as_str().into())),
        public(
            "imagePullSecret",
            module(|module| module.pull_secret.as_ref().map(|(_, name)| name.clone()).unwrap_or_default()),
        ),
        public("pluginName", of_wasm(|wasm| wasm.root_id.clone())),
        private("pluginConfig", of_wasm(config)),
        private("vmConfig.env", of_wasm(|wasm| wasm.env.iter().map(variable).collect::<Vec<_>>().join(", "))),
        public(
            "wasmplane.io/allow-on-headers-stop-iteration",
            option(|it| it.allow_on_headers_stop_iteration.map(|it| it.to_string()).unwrap_or_default()),
        ),
        public("wasmplane.io/allowed-capabilities", option(capabilities)),
        public("wasmplane.io/reload-backoff", option(|it| it.reload_backoff.map(backoff).unwrap_or_default())),
        private("lua.inlineCode", lua.map(|LuaProgram { source }| source.clone()).unwrap_or_default()),
    ]
}

fn target(target: &WorkloadTarget) -> String {
    let words: Vec<_> = match target {
        WorkloadTarget::Everything => Vec::new(),
        WorkloadTarget::Labels(selector) => selector.0.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        WorkloadTarget::References(references) => {
            references.iter().map(|it| format!("targetRef {} {}", it.kind, it.name)).collect()
        }
    };
    words.join(", ")
}

fn entry(entry: &TrafficMatch) -> String {
    let mode = match entry.mode {
        WorkloadMode::Client => "CLIENT",
        WorkloadMode::Server => "SERVER",
        WorkloadMode::ClientAndServer => "CLIENT_AND_SERVER",
    };
    entry.ports.iter().fold(mode.to_owned(), |text, port| format!("{text}:{port}"))
}

fn config(wasm: &WasmProgram) -> String {
    wasm.config.as_ref().map(|config| serde_json::Value::from(config.clone()).to_string()).unwrap_or_default()
}

fn variable(variable: &EnvVar) -> String {
    match &variable.source {
        EnvVarSource::Inline(value) => format!("{}={value}", variable.name),
        EnvVarSource::Host => format!("{} from the host", variable.name),
    }
}

fn capabilities(options: &WasmOptions) -> String {
    let allowed = options.allowed_capabilities.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
    // An empty set allows nothing, which is not the same as no restriction.
    if options.allowed_capabilities.is_some() && allowed.is_empty() { "none".into() } else { allowed }
}

fn backoff(backoff: ReloadBackoff) -> String {
    match backoff.max {
        Some(max) => format!("{:?}..{max:?}", backoff.base),
        None => format!("{:?}", backoff.base),
    }
}
