//! Cuts an answer into responses that stay below the limit on their size.
//!
//! Pure. A resource that is larger than the limit goes alone: nothing in the protocol can divide it.

use std::sync::Arc;

use crate::snapshot::Resource;

/// What a response has beside its resources: the frame, its version, type and nonce.
const HEAD_BYTES: usize = 256;
/// What a name among the removed ones has beside its letters.
const NAME_BYTES: usize = 4;

/// The resources of one response, and the names that it removes.
type Batch = (Vec<Arc<Resource>>, Vec<Arc<str>>);

/// One batch at least, be it empty. What is removed comes first.
pub(super) fn split(resources: Vec<Arc<Resource>>, removed: Vec<Arc<str>>, max_response_bytes: usize) -> Vec<Batch> {
    let room = max_response_bytes.saturating_sub(HEAD_BYTES);
    let mut batches = vec![Batch::default()];
    let mut taken = 0;
    let mut current = |batches: &mut Vec<Batch>, bytes: usize| {
        let is_empty = batches.last().is_none_or(|(resources, removed)| resources.is_empty() && removed.is_empty());
        if !is_empty && taken + bytes > room {
            batches.push(Batch::default());
            taken = 0;
        }
        taken += bytes;
        batches.len() - 1
    };
    for name in removed {
        let last = current(&mut batches, name.len() + NAME_BYTES);
        batches[last].1.push(name);
    }
    for resource in resources {
        let last = current(&mut batches, resource.delta_field().len());
        batches[last].0.push(resource);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{ResourceType, Rope, Version};

    fn resource(name: &str, bytes: usize) -> Arc<Resource> {
        let mut body = Rope::new();
        body.bytes(1, vec![b'x'; bytes].into());
        Arc::new(Resource::new(ResourceType::Cluster, name, Version::of_text(name), body))
    }

    fn names(batches: &[Batch]) -> Vec<(Vec<&str>, Vec<&str>)> {
        let names = batches.iter().map(|(resources, removed)| {
            let resources = resources.iter().map(|resource| &*resource.name).collect();
            (resources, removed.iter().map(|name| &**name).collect())
        });
        names.collect()
    }

    #[test]
    fn an_empty_answer_is_one_response() {
        assert_eq!(names(&split(vec![], vec![], 1000)), [(vec![], vec![])]);
    }

    #[test]
    fn what_does_not_fit_goes_into_the_next_response_and_what_never_fits_goes_alone() {
        let resources = vec![resource("a", 400), resource("b", 5000), resource("c", 400), resource("d", 400)];
        let batches = split(resources, vec!["gone".into()], HEAD_BYTES + 1200);
        assert_eq!(names(&batches), [(vec!["a"], vec!["gone"]), (vec!["b"], vec![]), (vec!["c", "d"], vec![])]);
    }

    #[test]
    fn names_that_are_removed_count_too() {
        let removed = (0..10).map(|number| format!("{number}{}", "x".repeat(95)).into()).collect();
        let batches = split(vec![resource("a", 100)], removed, HEAD_BYTES + 400);
        assert_eq!(batches.iter().map(|(_, removed)| removed.len()).collect::<Vec<_>>(), [4, 4, 2]);
    }
}
