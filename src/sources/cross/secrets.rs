//! Plugins whose `imagePullSecret` is not among the manifests, or is of no use for images.

use super::Found;
use crate::model::{ModuleLocation, Plugin, PluginKind, PullSecret};
use crate::sources::Loaded;

pub(super) fn check(loaded: &Loaded, found: &mut Found<'_>) {
    for plugin in loaded.plugins.values() {
        let Some((namespace, name)) = named(plugin) else { continue };
        let reason = match loaded.secrets.get(&(namespace.clone(), name.clone())).map(AsRef::as_ref) {
            Some(PullSecret::Registries(_) | PullSecret::Broken(_)) => continue,
            Some(PullSecret::OfType(found)) => {
                let found: String = found.chars().take(100).collect();
                format!("the Secret \"{name}\" is of type {found}, and images need kubernetes.io/dockerconfigjson")
            }
            // It is there, and its own faults are told.
            None if loaded.faults.iter().any(|fault| fault.resource == format!("Secret {namespace}/{name}")) => {
                continue;
            }
            None => missing(loaded, namespace, name),
        };
        let field = match plugin.id.kind {
            PluginKind::TrafficExtension => "spec.wasm.imagePullSecret",
            _ => "spec.imagePullSecret",
        };
        let id = &plugin.id;
        found.warn(format!("{} {}/{}", id.kind.kind(), id.namespace, id.name), Some(id), field, reason);
    }
}

/// Namespace and name; what is no image needs none.
fn named(plugin: &Plugin) -> Option<&(String, String)> {
    let module = plugin.module().filter(|module| matches!(module.location, ModuleLocation::Oci(_)))?;
    module.pull_secret.as_ref()
}

fn missing(loaded: &Loaded, namespace: &str, name: &str) -> String {
    let mut elsewhere = loaded.secrets.keys().filter(|(_, other)| other == name).map(|(namespace, _)| namespace);
    let elsewhere = elsewhere.next().map(|other| format!(" (there is one in {other}, which is not looked at)"));
    let elsewhere = elsewhere.unwrap_or_default();
    format!(
        "no manifest here has the Secret \"{name}\" in namespace {namespace}{elsewhere}: the image is not pulled without it"
    )
}
