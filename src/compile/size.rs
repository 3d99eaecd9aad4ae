//! How much may travel inline: a chain carries all its modules again whenever one line of one plugin changes.
//!
//! A plugin that does not fit goes on in the revision that was there before, if any; else it is left out with the reason,
//! and its fail strategy stands in for it (design, section 5, rule 14).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Kind, Member, ModuleServer};
use crate::model::{Module, PluginRevision};

/// Of all modules in one ECDS resource. Envoy holds a response whole before it reads it.
const MAX_INLINE_BYTES: usize = 32 << 20;

/// What a plugin is in a resource that has no room for what is to run.
#[derive(Clone, Debug)]
pub enum Misfit {
    /// This older revision, which some proxy has accepted.
    Before(Arc<PluginRevision>),
    LeftOut,
}

/// Which of these plugins, indexes into `plugins`, do not fit into one resource. What some proxy has accepted gets its room
/// first, so that nothing new pushes out what runs. Among equals, that is the older plugin; where none is older, the one
/// that runs earlier.
pub fn misfits(plugins: &[Member], in_resource: &[usize], by_digest: Option<&ModuleServer>) -> BTreeMap<usize, Misfit> {
    let bytes = |index: usize| member_bytes(&plugins[index], by_digest);
    if in_resource.iter().map(|index| bytes(*index)).sum::<usize>() <= MAX_INLINE_BYTES {
        return BTreeMap::new();
    }
    let mut by_age: Vec<_> = in_resource.iter().copied().filter(|index| plugins[*index].revision().is_some()).collect();
    by_age.sort_by_key(|index| plugins[*index].plugin.created);
    let mut room = MAX_INLINE_BYTES;
    let mut kept = BTreeMap::new();
    for index in &by_age {
        let Some(accepted) = &plugins[*index].accepted else { continue };
        if let Some(left) = room.checked_sub(inline_bytes(accepted, by_digest)) {
            room = left;
            kept.insert(*index, accepted);
        }
    }
    let mut misfits = BTreeMap::new();
    for index in by_age {
        let accepted = kept.get(&index);
        let own = accepted.map_or(0, |accepted| inline_bytes(accepted, by_digest));
        match (room + own).checked_sub(bytes(index)) {
            Some(left) => room = left,
            None => {
                let before = accepted.map(|accepted| Misfit::Before(Arc::clone(accepted)));
                misfits.insert(index, before.unwrap_or(Misfit::LeftOut));
            }
        }
    }
    misfits
}

/// Whether some resource of the kind might have no room for all its plugins, were all modules inside.
pub fn is_tight(kind: &Kind) -> bool {
    kind.plugins.iter().map(|member| member_bytes(member, None)).sum::<usize>() > MAX_INLINE_BYTES
}

/// Why it is among [`misfits`].
pub fn reason(member: &Member, misfit: &Misfit) -> String {
    let mebibytes = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let (module, most) = (mebibytes(member_bytes(member, None)), mebibytes(MAX_INLINE_BYTES));
    let instead = match misfit {
        Misfit::Before(_) => ": the revision before goes on",
        Misfit::LeftOut => "",
    };
    format!(
        "its module of {module} does not fit into a chain of at most {most} beside what has its room there{instead}"
    )
}

fn member_bytes(member: &Member, by_digest: Option<&ModuleServer>) -> usize {
    member.revision().map_or(0, |revision| inline_bytes(revision, by_digest))
}

fn inline_bytes(revision: &PluginRevision, by_digest: Option<&ModuleServer>) -> usize {
    let is_inline = |module: &&Arc<Module>| !by_digest.is_some_and(|server| server.serves(module));
    revision.module().filter(is_inline).map_or(0, |module| module.bytes.len())
}
