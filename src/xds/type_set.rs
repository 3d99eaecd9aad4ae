//! A set of resource types, as small as can be: every stream has one.

use crate::snapshot::ResourceType;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeSet(u8);

impl TypeSet {
    pub const ALL: Self = Self(u8::MAX);

    pub fn insert(&mut self, resource_type: ResourceType) {
        self.0 |= bit(resource_type);
    }

    pub fn contains(self, resource_type: ResourceType) -> bool {
        self.0 & bit(resource_type) != 0
    }

    /// Removes it; returns whether it was in.
    pub fn take(&mut self, resource_type: ResourceType) -> bool {
        let was_in = self.contains(resource_type);
        self.0 &= !bit(resource_type);
        was_in
    }
}

fn bit(resource_type: ResourceType) -> u8 {
    1 << resource_type as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_in_or_out_by_itself() {
        for resource_type in ResourceType::ALL {
            let mut set = TypeSet::ALL;
            assert!(set.take(resource_type) && !set.take(resource_type));
            let others = ResourceType::ALL.into_iter().filter(|other| *other != resource_type);
            assert!(others.into_iter().all(|other| set.contains(other)));
            set.insert(resource_type);
            assert_eq!(set, TypeSet::ALL);
        }
    }
}
