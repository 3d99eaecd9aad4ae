//! How far each resource of one proxy has come.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::progress::Progress;
use crate::snapshot::{ResourceType, Version};

/// One resource that a proxy is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceStatus {
    pub resource_type: ResourceType,
    pub name: String,
    /// The version that it is to have.
    pub wanted: Version,
    /// The version that it acknowledged last.
    pub accepted: Option<Version>,
    /// Its words, where it refused the wanted version.
    pub refused: Option<Arc<str>>,
}

impl Progress {
    /// What the proxy is to have, in order. An ECDS name that carries no plugin is in no list.
    pub fn resources(&self) -> Vec<ResourceStatus> {
        let Some(compiled) = &self.expected else { return Vec::new() };
        let mut wanted: BTreeMap<(ResourceType, &str), &Version> = BTreeMap::new();
        for resource_type in ResourceType::ALL {
            let all = compiled.snapshot.all(resource_type).into_iter().flatten();
            wanted.extend(all.map(|(name, resource)| ((resource_type, name.as_str()), &resource.version)));
        }
        wanted.extend(compiled.carriers.iter().map(|carrier| (carrier.key(), &carrier.version)));
        let status = |((resource_type, name), version): ((ResourceType, &str), &Version)| {
            let key = (resource_type, name.to_owned());
            let refused = self.errors.get(&key).filter(|refused| refused.version == *version);
            ResourceStatus {
                resource_type,
                wanted: version.clone(),
                accepted: self.accepted.get(key.0, &key.1).map(|accepted| accepted.version.clone()),
                refused: refused.map(|refused| refused.message.clone()),
                name: key.1,
            }
        };
        wanted.into_iter().map(status).collect()
    }
}
