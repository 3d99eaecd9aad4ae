//! A plugin as operators mean it, whatever resource they wrote it as.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Direction, GATEWAY_NAME, ModuleRef, PluginId, Selector};

/// Where in a filter chain a plugin stands: the positions of Istio and Maistra together, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Position {
    PreAuthN,
    PostAuthN,
    PreAuthZ,
    PostAuthZ,
    PreStats,
    PostStats,
    BeforeRouter,
}

impl Position {
    pub const ALL: [Self; 7] = [
        Self::PreAuthN,
        Self::PostAuthN,
        Self::PreAuthZ,
        Self::PostAuthZ,
        Self::PreStats,
        Self::PostStats,
        Self::BeforeRouter,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreAuthN => "PreAuthN",
            Self::PostAuthN => "PostAuthN",
            Self::PreAuthZ => "PreAuthZ",
            Self::PostAuthZ => "PostAuthZ",
            Self::PreStats => "PreStats",
            Self::PostStats => "PostStats",
            Self::BeforeRouter => "BeforeRouter",
        }
    }

    /// The inverse of [`Position::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|position| position.as_str() == text)
    }
}

/// `spec.type`: which kind of filter chain the plugin is a filter of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PluginType {
    Http,
    Network,
}

impl PluginType {
    /// As in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Network => "NETWORK",
        }
    }
}

/// `spec.failStrategy`. FAIL_RELOAD counts as FAIL_CLOSE wherever a stand-in is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailStrategy {
    #[default]
    FailClose,
    FailOpen,
    FailReload,
}

impl FailStrategy {
    /// Whether traffic passes where the plugin cannot run.
    pub fn is_open(self) -> bool {
        self == Self::FailOpen
    }

    /// As in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailClose => "FAIL_CLOSE",
            Self::FailOpen => "FAIL_OPEN",
            Self::FailReload => "FAIL_RELOAD",
        }
    }
}

/// Which proxies a plugin or template asks for, its namespace aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadTarget {
    /// No selector and no reference: everything that its namespace reaches.
    Everything,
    /// Proxies that carry all these labels.
    Labels(Selector),
    /// Gateways and the like, ORed. A proxy without the gateway label never matches.
    References(Vec<TargetReference>),
}

impl WorkloadTarget {
    /// Keys of the labels that it looks at.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        let (selector, gateway) = match self {
            Self::Everything => (None, None),
            Self::Labels(selector) => (Some(selector), None),
            Self::References(_) => (None, Some(GATEWAY_NAME)),
        };
        selector.into_iter().flat_map(|selector| selector.0.keys()).map(String::as_str).chain(gateway)
    }
}

/// One entry of `spec.targetRefs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReference {
    pub group: String,
    pub kind: String,
    pub name: String,
}

/// `match[].mode`. Absent and UNDEFINED are `ClientAndServer`: both match any listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WorkloadMode {
    Client,
    Server,
    #[default]
    ClientAndServer,
}

/// One entry of `spec.match`; entries are ORed, inside an entry mode AND ports must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrafficMatch {
    pub mode: WorkloadMode,
    /// Empty means any port.
    pub ports: Vec<u16>,
}

impl TrafficMatch {
    /// Whether a listener of that direction and port has such traffic: mode AND ports (Istio: R3).
    pub fn holds(&self, direction: Direction, port: u16) -> bool {
        let is_mode = match self.mode {
            WorkloadMode::ClientAndServer => true,
            WorkloadMode::Server => direction == Direction::Inbound,
            // A gateway is a client of what stands behind it (R3.3).
            WorkloadMode::Client => direction != Direction::Inbound,
        };
        // Port 0 stands for "no port" and never equals anything (R3.4).
        is_mode && (self.ports.is_empty() || (port != 0 && self.ports.contains(&port)))
    }
}

/// Where an environment variable of the VM gets its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvVarSource {
    /// The text itself.
    Inline(String),
    /// The variable of that name of the Envoy process.
    Host,
}

/// One entry of `spec.vmConfig.env`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    pub name: String,
    pub source: EnvVarSource,
}

/// What a plugin runs.
#[allow(clippy::large_enum_variant, reason = "a plugin is always behind an Arc")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Program {
    Wasm(WasmProgram),
    Lua(LuaProgram),
}

/// A script, part of the specification itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LuaProgram {
    pub source: String,
}

/// A module, and with what it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WasmProgram {
    pub module: ModuleRef,
    /// `pluginConfig`; `None` when absent or empty (the module then sees an empty configuration).
    pub config: Option<serde_json::Map<String, serde_json::Value>>,
    /// `pluginName`: Envoy's `root_id`; empty when absent.
    pub root_id: String,
    pub env: Vec<EnvVar>,
    pub options: WasmOptions,
}

/// Envoy's Wasm settings that no field of Istio's API has. Absent: Envoy's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmOptions {
    /// `PluginConfig.allow_on_headers_stop_iteration`.
    pub allow_on_headers_stop_iteration: Option<bool>,
    /// `PluginConfig.capability_restriction_config`: the only host functions that the module may call.
    pub allowed_capabilities: Option<BTreeSet<String>>,
    /// `PluginConfig.reload_config.backoff`, for FAIL_RELOAD.
    pub reload_backoff: Option<ReloadBackoff>,
}

/// How long Envoy waits before it makes a failed VM anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadBackoff {
    pub base: Duration,
    /// At least `base`; absent: ten times `base`, as Envoy has it.
    pub max: Option<Duration>,
}

/// A plugin, checked and complete: every default is filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plugin {
    pub id: PluginId,
    /// `metadata.creationTimestamp`; absent is oldest.
    pub created: Option<jiff::Timestamp>,
    pub target: WorkloadTarget,
    /// Empty means all traffic.
    pub matches: Vec<TrafficMatch>,
    pub position: Position,
    /// Higher first; absent is 0, as the API says.
    pub priority: i32,
    pub plugin_type: PluginType,
    pub fail_strategy: FailStrategy,
    pub program: Program,
    /// Taken out everywhere by a swap, without being deleted.
    pub is_disabled: bool,
}

impl Plugin {
    /// `None` for a script.
    pub fn wasm(&self) -> Option<&WasmProgram> {
        match &self.program {
            Program::Wasm(program) => Some(program),
            Program::Lua(_) => None,
        }
    }

    /// The module that has to be ready before the plugin can run; `None` for a script.
    pub fn module(&self) -> Option<&ModuleRef> {
        self.wasm().map(|program| &program.module)
    }
}
