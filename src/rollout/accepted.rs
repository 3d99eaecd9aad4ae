//! What one proxy acknowledged last, by type and name.
//!
//! A list in order: every proxy has one, most have three entries, and a node of a tree has room for eleven.

use std::sync::Arc;

use crate::snapshot::{Part, Resource, ResourceType, Version};

/// No bytes, which would outlive every other use of their modules.
#[derive(Debug, Default)]
pub struct Accepted(Vec<AcceptedResource>);

#[derive(Debug)]
pub struct AcceptedResource {
    pub resource_type: ResourceType,
    pub name: Box<str>,
    pub version: Version,
    pub parts: Arc<[Part]>,
}

impl AcceptedResource {
    pub fn key(&self) -> (ResourceType, &str) {
        (self.resource_type, &self.name)
    }
}

impl Accepted {
    pub fn get(&self, resource_type: ResourceType, name: &str) -> Option<&AcceptedResource> {
        self.position(resource_type, name).ok().map(|position| &self.0[position])
    }

    pub fn insert(&mut self, resource: &Resource) {
        let Resource { resource_type, name, version, parts, .. } = resource;
        let (version, parts) = (version.clone(), parts.clone());
        match self.position(*resource_type, name) {
            Ok(position) => {
                let known = &mut self.0[position];
                (known.version, known.parts) = (version, parts);
            }
            Err(position) => {
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(1 + self.0.len() / 2);
                }
                let (resource_type, name) = (*resource_type, name.as_str().into());
                self.0.insert(position, AcceptedResource { resource_type, name, version, parts });
            }
        }
    }

    pub fn retain(&mut self, keep: impl FnMut(&AcceptedResource) -> bool) {
        self.0.retain(keep);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order of type and name.
    pub fn iter(&self) -> impl Iterator<Item = &AcceptedResource> {
        self.0.iter()
    }

    fn position(&self, resource_type: ResourceType, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|known| known.key().cmp(&(resource_type, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Rope;

    #[test]
    fn the_newest_of_each_name_is_kept_in_order() {
        let mut accepted = Accepted::default();
        let listener =
            |name: &str, version| Resource::new(ResourceType::Listener, name, Version::of_text(version), Rope::new());
        let cluster = Resource::new(ResourceType::Cluster, "z", Version::of_text("1"), Rope::new());
        for resource in [listener("b", "1"), listener("a", "1"), cluster, listener("b", "2")] {
            accepted.insert(&resource);
        }
        let all: Vec<_> = accepted.iter().map(|it| (it.key(), it.version.clone())).collect();
        let expected = [
            ((ResourceType::Cluster, "z"), Version::of_text("1")),
            ((ResourceType::Listener, "a"), Version::of_text("1")),
            ((ResourceType::Listener, "b"), Version::of_text("2")),
        ];
        assert_eq!(all, expected);
        assert!(accepted.get(ResourceType::Cluster, "b").is_none());
    }
}
