//! The words of the domain: plugin, module, proxy, template, revision.
//!
//! Comes in: values that some other room has already checked. Goes out: the same values, compared, ordered, spelled.
//! Invariant: no IO, no clock, no Kubernetes, no gRPC.

mod docker_config;
mod module;
mod plugin;
mod proxy;
mod revision;
mod template;

pub use docker_config::{Credential, DOCKER_HUB, DockerConfig, InvalidDockerConfig, PullSecret};
pub use module::{Code, Digest, InvalidDigest, Module, ModuleLocation, ModuleRef, ModuleState, PullPolicy};
pub use plugin::{
    EnvVar, EnvVarSource, FailStrategy, InvalidPluginId, LuaProgram, Plugin, PluginId, PluginKind, PluginType,
    Position, Program, ReloadBackoff, TargetReference, TrafficMatch, WasmOptions, WasmProgram, WorkloadMode,
    WorkloadTarget,
};
pub use proxy::{Capabilities, EnvoyVersion, Proxy, ProxyFacts, Selector};
pub use revision::{PluginEntry, PluginRevision, Revision};
pub use template::{
    Direction, ForwardTo, Host, ListenerProtocol, ListenerSpec, NativeKind, NativeResource, ProxyTemplate, TemplateId,
    WithoutConfig,
};
