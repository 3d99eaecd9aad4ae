//! Manifests alone as if every module were ready: what `explain` and `diff` answer from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Kind, capabilities_of, select};
use crate::model::{
    Code, EnvoyVersion, ModuleRef, ModuleState, Plugin, PluginEntry, PluginRevision, Proxy, ProxyFacts, ProxyTemplate,
};

/// A proxy that is asked about and need not exist.
#[derive(Clone, Debug)]
pub struct Workload {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub root_namespace: String,
}

impl Workload {
    /// As an Envoy of that release would introduce itself.
    pub fn on(&self, release: EnvoyVersion) -> Proxy {
        Proxy {
            node_id: String::new(),
            name: String::new(),
            cluster: String::new(),
            namespace: self.namespace.clone(),
            labels: self.labels.clone(),
            version: Some(release),
            capabilities: capabilities_of(release),
        }
    }
}

/// Sorts `proxy` into its kind; no module is looked at, and nothing that it refused before counts.
pub fn select_offline<'p, 't>(
    proxy: &Proxy,
    root_namespace: &str,
    plugins: impl Iterator<Item = &'p Arc<Plugin>>,
    templates: impl Iterator<Item = &'t Arc<ProxyTemplate>>,
) -> Kind {
    let is_in_reach =
        |plugin: &&Arc<Plugin>| *plugin.id.namespace == *proxy.namespace || *plugin.id.namespace == *root_namespace;
    let entries: Vec<_> = plugins.filter(is_in_reach).map(entry).collect();
    select(proxy, &ProxyFacts::default(), root_namespace, entries.iter(), templates, &[])
}

fn entry(plugin: &Arc<Plugin>) -> PluginEntry {
    let code = plugin.module().map_or(Code::InSpecification, |module| Code::OnProxy(address(module)));
    PluginEntry {
        desired: plugin.clone(),
        module: ModuleState::Ready(code.clone()),
        running: Some(Arc::new(PluginRevision::new(plugin.clone(), code))),
        good: Vec::new(),
    }
}

/// Stands for the bytes: another address or checksum is another module.
fn address(module: &ModuleRef) -> PathBuf {
    match module.sha256 {
        Some(digest) => format!("{}#sha256={digest}", module.location).into(),
        None => module.location.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fixtures::{plugin, wasm};
    use crate::compile::{Mode, Run};
    use crate::model::Digest;

    #[test]
    fn another_checksum_is_another_revision_and_the_release_decides_the_mode() {
        let workload = Workload { namespace: "shop".into(), labels: BTreeMap::new(), root_namespace: "root".into() };
        let revision = |sha256| {
            let mut plugin = plugin("shop/a");
            wasm(&mut plugin).module.sha256 = sha256;
            let proxy = workload.on(EnvoyVersion::new(1, 38, 0));
            let kind = select_offline(&proxy, "root", [Arc::new(plugin)].iter(), [].iter());
            assert_eq!(Mode::of(kind.capabilities), Mode::Filter);
            match &kind.plugins[0].run {
                Run::Revision(revision) => revision.revision,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(revision(None), revision(None));
        assert_ne!(revision(None), revision(Some(Digest::of(b"x"))));
    }
}
