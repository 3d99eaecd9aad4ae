//! One state of one plugin: its specification together with the code it runs.

use std::fmt;
use std::sync::Arc;

use serde_json::json;

use super::{
    Code, Digest, EnvVarSource, Module, ModuleState, Plugin, PluginId, PluginType, Program, WasmOptions, WasmProgram,
};

/// Hash of what Envoy would be given for a plugin: code, configuration, environment, fail strategy. Not of where
/// the plugin applies or stands, so that a refused revision stays refused when it is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision([u8; 8]);

impl Revision {
    /// The inverse of `Display`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A plugin that can run: its specification and its code.
#[derive(Clone, Debug)]
pub struct PluginRevision {
    pub plugin: Arc<Plugin>,
    pub code: Code,
    pub revision: Revision,
}

impl PluginRevision {
    pub fn new(plugin: Arc<Plugin>, code: Code) -> Self {
        let revision = revision_of(&plugin, &code);
        Self { plugin, code, revision }
    }

    pub fn id(&self) -> &PluginId {
        &self.plugin.id
    }

    /// Envoy's `root_id`.
    pub fn root_id(&self) -> &str {
        self.plugin.wasm().map(|program| root_id(program, &self.code)).unwrap_or_default()
    }

    /// The module that wasmplane delivers, if it does.
    pub fn module(&self) -> Option<&Arc<Module>> {
        match &self.code {
            Code::Module(module) => Some(module),
            Code::OnProxy(_) | Code::InSpecification => None,
        }
    }
}

/// The plugin's own, else what the module's image says; empty where neither does.
fn root_id<'a>(program: &'a WasmProgram, code: &'a Code) -> &'a str {
    match code {
        Code::Module(module) if program.root_id.is_empty() => module.root_id.as_deref().unwrap_or_default(),
        _ => &program.root_id,
    }
}

fn revision_of(plugin: &Plugin, code: &Code) -> Revision {
    let program = match &plugin.program {
        Program::Wasm(program) => wasm_source(program, root_id(program, code)),
        Program::Lua(program) => json!([program.source]),
    };
    let code = match code {
        Code::Module(module) => module.digest.to_string(),
        Code::OnProxy(path) => path.display().to_string(),
        Code::InSpecification => String::new(),
    };
    let is_network = plugin.plugin_type == PluginType::Network;
    let source = json!([plugin.id.to_string(), is_network, plugin.fail_strategy.as_str(), code, program]);
    // serde_json sorts the keys of a map: equal content, equal text.
    let digest = Digest::of(source.to_string().as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.as_bytes()[..8]);
    Revision(bytes)
}

fn wasm_source(program: &WasmProgram, root_id: &str) -> serde_json::Value {
    let env: Vec<_> = program
        .env
        .iter()
        .map(|variable| match &variable.source {
            EnvVarSource::Inline(value) => json!([variable.name, value]),
            EnvVarSource::Host => json!([variable.name]),
        })
        .collect();
    let WasmOptions { allow_on_headers_stop_iteration, allowed_capabilities, reload_backoff } = &program.options;
    let backoff = reload_backoff.map(|backoff| json!([backoff.base, backoff.max]));
    json!([program.config, root_id, env, allow_on_headers_stop_iteration, allowed_capabilities, backoff])
}

/// All that is known of one plugin at one moment; what selection looks at.
#[derive(Clone, Debug)]
pub struct PluginEntry {
    /// What the operator wrote last.
    pub desired: Arc<Plugin>,
    /// The state of the module that `desired` asks for.
    pub module: ModuleState,
    /// What proxies are to run: `desired` once its module is ready, else the revision before.
    pub running: Option<Arc<PluginRevision>>,
    /// Revisions that some proxy accepted, newest first. What a proxy ran before takes the place of a revision that it
    /// refused; where that is not known, the first that it did not refuse.
    pub good: Vec<Arc<PluginRevision>>,
}
