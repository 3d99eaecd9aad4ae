//! The words for how far a plugin has come, and its summary over all proxies.

use crate::model::Revision;

/// How far a plugin has come on one proxy (design, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKind {
    NotLoaded,
    Pending,
    /// Every resource that carries this revision, and every listener that names it, was acknowledged.
    Programmed,
    Rejected,
    StandIn,
    Unsupported,
}

impl StateKind {
    pub const ALL: [Self; 6] =
        [Self::NotLoaded, Self::Pending, Self::Programmed, Self::Rejected, Self::StandIn, Self::Unsupported];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotLoaded => "NotLoaded",
            Self::Pending => "Pending",
            Self::Programmed => "Programmed",
            Self::Rejected => "Rejected",
            Self::StandIn => "StandIn",
            Self::Unsupported => "Unsupported",
        }
    }
}

/// A plugin on one proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginState {
    pub kind: StateKind,
    /// What runs there; `None` when nothing of the plugin is known to.
    pub revision: Option<Revision>,
    /// Why, where the state is not the one hoped for.
    pub message: String,
}

/// Number of proxies in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u32; StateKind::ALL.len()]);

impl Counts {
    pub fn of(&self, kind: StateKind) -> u32 {
        self.0[kind as usize]
    }

    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }
}

/// Different messages kept per plugin.
const MESSAGES: usize = 5;

/// A plugin over all proxies that it applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginSummary {
    pub counts: Counts,
    /// The first five different ones.
    pub messages: Vec<String>,
}

impl PluginSummary {
    pub fn add(&mut self, state: &PluginState) {
        self.counts.0[state.kind as usize] += 1;
        let is_news = !state.message.is_empty() && !self.messages.contains(&state.message);
        let is_answer = !matches!(state.kind, StateKind::Pending | StateKind::Programmed);
        if is_news && is_answer && self.messages.len() < MESSAGES {
            self.messages.push(state.message.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_states_and_keeps_the_first_five_different_messages() {
        let mut summary = PluginSummary::default();
        for message in ["a", "a", "b", "c", "d", "e", "f"] {
            summary.add(&PluginState { kind: StateKind::Rejected, revision: None, message: message.into() });
        }
        summary.add(&PluginState { kind: StateKind::Programmed, revision: None, message: String::new() });
        assert_eq!(summary.messages, ["a", "b", "c", "d", "e"]);
        assert_eq!((summary.counts.of(StateKind::Rejected), summary.counts.total()), (7, 8));
    }
}
