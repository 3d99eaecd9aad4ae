//! How a plugin is called: its kind, namespace and name, and the names that follow from them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PluginType;

/// The kind of resource a plugin was written as. Two kinds may hold the same namespace and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PluginKind {
    WasmPlugin,
    TrafficExtension,
    ServiceMeshExtension,
    WasmExtension,
}

impl PluginKind {
    pub const ALL: [Self; 4] =
        [Self::WasmPlugin, Self::TrafficExtension, Self::ServiceMeshExtension, Self::WasmExtension];

    /// As in resource names on the wire and in plugin ids: lower case, without separators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WasmPlugin => "wasmplugin",
            Self::TrafficExtension => "trafficextension",
            Self::ServiceMeshExtension => "servicemeshextension",
            Self::WasmExtension => "wasmextension",
        }
    }

    /// As in manifests.
    pub fn kind(self) -> &'static str {
        match self {
            Self::WasmPlugin => "WasmPlugin",
            Self::TrafficExtension => "TrafficExtension",
            Self::ServiceMeshExtension => "ServiceMeshExtension",
            Self::WasmExtension => "WasmExtension",
        }
    }
}

/// The one spelling of a plugin everywhere: command line, metrics, `PluginConfig.name`, `vm_id`.
///
/// ```
/// use wasmplane::model::{PluginId, PluginKind};
/// assert_eq!(PluginId::new(PluginKind::WasmPlugin, "shop", "auth").to_string(), "shop/auth");
/// assert_eq!(
///     PluginId::new(PluginKind::TrafficExtension, "shop", "auth").to_string(),
///     "trafficextension:shop/auth"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PluginId {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub kind: PluginKind,
}

impl PluginId {
    pub fn new(kind: PluginKind, namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into(), kind }
    }

    /// The name of the ECDS resource that carries this plugin alone. HTTP and NETWORK never share one, as Envoy
    /// refuses a name that two filter types use.
    pub fn extension_name(&self, plugin_type: PluginType) -> String {
        let network = match plugin_type {
            PluginType::Http => "",
            PluginType::Network => "network/",
        };
        format!("extensions.istio.io/{}/{network}{}.{}", self.kind.as_str(), self.namespace, self.name)
    }

    /// The inverse of [`PluginId::extension_name`]. Split at the first dot: namespaces have none, names may.
    pub fn from_extension_name(name: &str) -> Option<(Self, PluginType)> {
        let rest = name.strip_prefix("extensions.istio.io/")?;
        let (kind, rest) = rest.split_once('/')?;
        let kind = PluginKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        let (plugin_type, rest) = match rest.strip_prefix("network/") {
            Some(rest) => (PluginType::Network, rest),
            None => (PluginType::Http, rest),
        };
        let (namespace, name) = rest.split_once('.')?;
        let is_plain = |part: &str| !part.is_empty() && !part.contains('/');
        (is_plain(namespace) && is_plain(name)).then(|| (Self::new(kind, namespace, name), plugin_type))
    }
}

impl fmt::Display for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != PluginKind::WasmPlugin {
            write!(f, "{}:", self.kind.as_str())?;
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The text is no plugin id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a plugin id is namespace/name, with the kind and a colon before it unless it is a WasmPlugin")]
pub struct InvalidPluginId;

impl FromStr for PluginId {
    type Err = InvalidPluginId;

    fn from_str(text: &str) -> Result<Self, InvalidPluginId> {
        let prefixed =
            |kind: &PluginKind| text.strip_prefix(kind.as_str())?.strip_prefix(':').map(|rest| (*kind, rest));
        let (kind, rest) = PluginKind::ALL.iter().find_map(prefixed).unwrap_or((PluginKind::WasmPlugin, text));
        let (namespace, name) = rest.split_once('/').ok_or(InvalidPluginId)?;
        Ok(Self::new(kind, namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_name_and_its_plugin_are_inverses() {
        for kind in PluginKind::ALL {
            for plugin_type in [PluginType::Http, PluginType::Network] {
                let id = PluginId::new(kind, "shop", "auth.v2");
                assert_eq!(PluginId::from_extension_name(&id.extension_name(plugin_type)), Some((id, plugin_type)));
            }
        }
    }

    #[test]
    fn an_id_and_its_text_are_inverses() {
        for kind in PluginKind::ALL {
            let id = PluginId::new(kind, "shop", "auth.v2");
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!("auth".parse::<PluginId>(), Err(InvalidPluginId));
    }

    #[test]
    fn a_malformed_extension_name_is_no_plugin() {
        for name in [
            "",
            "auth",
            "extensions.istio.io/wasmplugin/auth",
            "extensions.istio.io/other/shop.auth",
            "extensions.istio.io/wasmplugin/.auth",
            "extensions.istio.io/wasmplugin/shop.",
            "extensions.istio.io/wasmplugin/a/b.c",
        ] {
            assert_eq!(PluginId::from_extension_name(name), None, "{name}");
        }
    }
}
