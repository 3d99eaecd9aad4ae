//! The words of the domain: plugin, module, proxy, template, revision.
//!
//! Comes in: values that some other room has already checked. Goes out: the same values, compared, ordered, spelled.
//! Invariant: no IO, no clock, no Kubernetes, no gRPC.

mod docker_config;
mod host_port;
mod image_reference;
mod module;
mod plugin;
mod plugin_id;
mod proxy;
mod revision;
mod template;

pub use docker_config::{Credential, DOCKER_HUB, DockerConfig, InvalidDockerConfig, PullSecret};
pub use host_port::{HostPort, InvalidHostPort};
pub use image_reference::{ImageReference, InvalidReference};
pub use module::{Code, Digest, InvalidDigest, Module, ModuleLocation, ModuleRef, ModuleState, PullPolicy, shown_url};
pub use plugin::{
    EnvVar, EnvVarSource, FailStrategy, LuaProgram, Plugin, PluginType, Position, Program, ReloadBackoff,
    TargetReference, TrafficMatch, WasmOptions, WasmProgram, WorkloadMode, WorkloadTarget,
};
pub use plugin_id::{InvalidPluginId, PluginId, PluginKind};
pub use proxy::{Capabilities, EnvoyVersion, GATEWAY_NAME, ModuleDelivery, Proxy, ProxyFacts, Selector};
pub use revision::{PluginEntry, PluginRevision, Revision};
pub use template::{
    Direction, ForwardTo, Host, ListenerProtocol, ListenerSpec, NativeKind, NativeResource, ProxyTemplate, TemplateId,
    WithoutConfig,
};
