//! What one proxy acknowledged last, by type and name.
//!
//! A list in order: every proxy has one, most have three entries, and a node of a tree has room for eleven.

use std::sync::Arc;

use crate::snapshot::{Identity, ResourceType};

/// No bytes, which would outlive every other use of their modules.
#[derive(Debug, Default)]
pub struct Accepted(Vec<Arc<Identity>>);

impl Accepted {
    pub fn get(&self, resource_type: ResourceType, name: &str) -> Option<&Arc<Identity>> {
        self.position(resource_type, name).ok().map(|position| &self.0[position])
    }

    pub fn insert(&mut self, accepted: Arc<Identity>) {
        match self.position(accepted.resource_type, &accepted.name) {
            Ok(position) => self.0[position] = accepted,
            Err(position) => {
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(1 + self.0.len() / 2);
                }
                self.0.insert(position, accepted);
            }
        }
    }

    pub fn retain(&mut self, keep: impl FnMut(&Arc<Identity>) -> bool) {
        self.0.retain(keep);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order of type and name.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Identity>> {
        self.0.iter()
    }

    fn position(&self, resource_type: ResourceType, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|known| known.key().cmp(&(resource_type, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Resource, Rope, Version};

    #[test]
    fn the_newest_of_each_name_is_kept_in_order() {
        let mut accepted = Accepted::default();
        let listener =
            |name: &str, version| Resource::new(ResourceType::Listener, name, Version::of_text(version), Rope::new());
        let cluster = Resource::new(ResourceType::Cluster, "z", Version::of_text("1"), Rope::new());
        for resource in [listener("b", "1"), listener("a", "1"), cluster, listener("b", "2")] {
            accepted.insert(resource.identity.clone());
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
