//! One encoded xDS resource and what the protocol has to know of it.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::{Rope, Version};
use crate::model::Digest;

/// The xDS types that wasmplane serves, in the order in which additions go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    Cluster,
    Endpoint,
    ExtensionConfig,
    Listener,
    Route,
}

impl ResourceType {
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Endpoint, Self::ExtensionConfig, Self::Listener, Self::Route];

    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// In sentences and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoint => "endpoint",
            Self::ExtensionConfig => "extension",
            Self::Listener => "listener",
            Self::Route => "route",
        }
    }

    /// As operators say it.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Endpoint => "eds",
            Self::ExtensionConfig => "ecds",
            Self::Listener => "lds",
            Self::Route => "rds",
        }
    }

    /// The inverse of [`ResourceType::type_url`].
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.type_url() == type_url)
    }
}

/// Something a resource is made of that a client accepts or refuses with it: for an ECDS chain, one plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    /// What stays the same when the part changes (a plugin id). A part that moves from one resource to another has
    /// to be accepted there before it leaves here.
    pub owner: Arc<str>,
    /// Its content (a plugin revision). What one client of a build accepted, others of that build will accept.
    pub revision: Arc<str>,
}

/// Which resource it is, without its bytes: for all that remember what a client was sent or holds. Shared by them.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    pub resource_type: ResourceType,
    pub name: Arc<str>,
    pub version: Version,
    /// What accepting this resource proves. Empty where nothing can be refused.
    pub parts: Arc<[Part]>,
}

/// One encoded resource. Shared by all proxies that are served it.
#[derive(Debug)]
pub struct Resource {
    pub identity: Arc<Identity>,
    /// The protobuf message.
    pub body: Rope,
    /// Other resources that a client of this one will ask for or needs: clusters and routes of a listener, its ECDS
    /// names, clusters of a route, the endpoint assignment of a cluster.
    pub references: Vec<(ResourceType, Arc<str>)>,
    /// Modules that the client must hold in its code cache before it is sent this.
    pub fetched: Arc<[Digest]>,
    /// A part is left out as it is not to be had yet. A client that came back may have it, and must not lose it.
    pub is_partial: bool,
    /// What to send in its place when the client refuses it and holds nothing yet.
    pub stand_in: Option<Arc<Resource>>,
    delta_field: OnceLock<Rope>,
    sotw_field: OnceLock<Rope>,
}

impl Resource {
    /// One of no parts.
    pub fn new(resource_type: ResourceType, name: impl Into<Arc<str>>, version: Version, body: Rope) -> Self {
        Self::of_parts(resource_type, name, version, [], body)
    }

    pub fn of_parts(
        resource_type: ResourceType,
        name: impl Into<Arc<str>>,
        version: Version,
        parts: impl Into<Arc<[Part]>>,
        body: Rope,
    ) -> Self {
        Self {
            identity: Arc::new(Identity { resource_type, name: name.into(), version, parts: parts.into() }),
            body,
            references: Vec::new(),
            fetched: Arc::default(),
            is_partial: false,
            stand_in: None,
            delta_field: OnceLock::new(),
            sotw_field: OnceLock::new(),
        }
    }

    /// This resource as one `resources` field of a `DeltaDiscoveryResponse`. Encoded once.
    pub fn delta_field(&self) -> &Rope {
        self.delta_field.get_or_init(|| {
            // envoy.service.discovery.v3.Resource: version = 1, resource = 2, name = 3.
            let mut resource = Rope::new();
            resource.string(1, self.version.as_str());
            resource.message(2, &self.any());
            resource.string(3, &self.name);
            let mut field = Rope::new();
            field.message(2, &resource);
            field.packed()
        })
    }

    /// This resource as one `resources` field of a `DiscoveryResponse`. Encoded once.
    pub fn sotw_field(&self) -> &Rope {
        self.sotw_field.get_or_init(|| {
            let mut field = Rope::new();
            field.message(2, &self.any());
            field.packed()
        })
    }

    fn any(&self) -> Rope {
        Rope::any(self.resource_type.type_url(), &self.body)
    }
}

impl Deref for Resource {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.identity
    }
}

impl Identity {
    /// What tells it from all others that one client can hold.
    pub fn key(&self) -> (ResourceType, &str) {
        (self.resource_type, &self.name)
    }

    /// Whether a client that holds the one holds the other. Their parts may differ: a plugin's revision may be another one
    /// although its bytes are the same.
    pub fn is_same_version(&self, other: &Self) -> bool {
        self.key() == other.key() && self.version == other.version
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_shared_fields_decode_as_the_protocol_says() {
        let mut body = Rope::new();
        body.string(1, "cluster-name");
        let resource = Resource::new(ResourceType::Cluster, "c", Version::of_text("x"), body);

        let delta = DeltaDiscoveryResponse::decode(resource.delta_field().to_bytes()).unwrap();
        let sotw = DiscoveryResponse::decode(resource.sotw_field().to_bytes()).unwrap();

        let sent = &delta.resources[0];
        assert_eq!((sent.name.as_str(), sent.version.as_str()), ("c", resource.version.as_str()));
        assert_eq!(sent.resource.as_ref(), sotw.resources.first());
        assert_eq!(sotw.resources[0].type_url, ResourceType::Cluster.type_url());
        assert_eq!(sotw.resources[0].value, resource.body.to_bytes());
    }
}
