//! What the proxies that a ProxyTemplate selects listen on.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::Selector;

/// Namespace and name of a ProxyTemplate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TemplateId {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which way the traffic of a listener goes, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Inbound,
    Outbound,
    /// Also native listeners whose `traffic_direction` is UNSPECIFIED.
    Gateway,
}

impl Direction {
    /// As in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "INBOUND",
            Self::Outbound => "OUTBOUND",
            Self::Gateway => "GATEWAY",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerProtocol {
    Http,
    Tcp,
}

impl ListenerProtocol {
    /// As in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tcp => "TCP",
        }
    }
}

/// Where a listener sends its traffic: an address, or a name that Envoy resolves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardTo {
    pub host: Host,
    pub port: u16,
}

/// A listener in the short form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    pub name: String,
    pub direction: Direction,
    /// Bound, and compared with `WasmPlugin.match.ports`.
    pub port: u16,
    pub bind: IpAddr,
    pub protocol: ListenerProtocol,
    /// Absent: HTTP answers 404, TCP closes.
    pub forward_to: Option<ForwardTo>,
}

/// What a listener does while its plugins are not known (design, section 5, rule 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WithoutConfig {
    #[default]
    Deny,
    Allow,
}

/// The type of a native Envoy resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NativeKind {
    Listener,
    Cluster,
    Route,
    Endpoint,
}

impl NativeKind {
    /// In sentences.
    pub fn word(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Cluster => "cluster",
            Self::Route => "route",
            Self::Endpoint => "endpoint assignment",
        }
    }
}

/// One of Envoy's own resources, as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeResource {
    pub kind: NativeKind,
    /// `name`, or `cluster_name` of an endpoint assignment.
    pub name: String,
    /// The protobuf message, encoded.
    pub message: Bytes,
}

/// What the proxies it selects listen on. All templates of a proxy are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTemplate {
    pub id: TemplateId,
    pub created: Option<jiff::Timestamp>,
    /// Absent: the whole namespace; in the root namespace all proxies.
    pub selector: Option<Selector>,
    pub without_config: WithoutConfig,
    pub listeners: Vec<ListenerSpec>,
    pub native: Vec<NativeResource>,
}
