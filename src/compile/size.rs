//! How much may travel inline: a chain carries all its modules again whenever one line of one plugin changes.
//!
//! A plugin that does not fit is left out with the reason, and its fail strategy stands in for it (design, section 5,
//! rule 14).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Member, ModuleServer, Run};
use crate::model::Module;

/// Of all modules in one ECDS resource. Envoy holds a response whole before it reads it.
const MAX_INLINE_BYTES: usize = 32 << 20;

/// Which of these plugins, indexes into `plugins`, do not fit into one resource. The older a plugin, the earlier it gets its
/// room, so that a new one never pushes out one that runs; where none is older, the order in which they run decides.
pub fn left_out(plugins: &[Member], in_resource: &[usize], by_digest: Option<&ModuleServer>) -> BTreeSet<usize> {
    let inline_bytes = |index: usize| inline_bytes(&plugins[index], by_digest);
    if in_resource.iter().map(|index| inline_bytes(*index)).sum::<usize>() <= MAX_INLINE_BYTES {
        return BTreeSet::new();
    }
    let mut by_age = in_resource.to_vec();
    by_age.sort_by_key(|index| plugins[*index].plugin.created);
    let mut room = MAX_INLINE_BYTES;
    by_age.retain(|index| match room.checked_sub(inline_bytes(*index)) {
        Some(left) => {
            room = left;
            false
        }
        None => true,
    });
    by_age.into_iter().collect()
}

/// Why [`left_out`] left it out.
pub fn reason(member: &Member) -> String {
    let mebibytes = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let (module, most) = (mebibytes(inline_bytes(member, None)), mebibytes(MAX_INLINE_BYTES));
    format!("its module of {module} does not fit into a chain of at most {most} beside the plugins that are older")
}

fn inline_bytes(member: &Member, by_digest: Option<&ModuleServer>) -> usize {
    let (Run::Revision(revision) | Run::LastGood(revision, _)) = &member.run else { return 0 };
    let is_inline = |module: &&Arc<Module>| !by_digest.is_some_and(|server| server.serves(module));
    revision.module().filter(is_inline).map_or(0, |module| module.bytes.len())
}
