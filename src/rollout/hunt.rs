//! Narrows a refusal that names nobody down to one plugin, by halving what the client never accepted.
//!
//! Pure. Comes in: refusals and acknowledgements. Goes out: what to set aside in the next attempt, and whom to blame in
//! the end. Invariant: no attempt repeats one that was refused, as each holds less than those before it; so `n`
//! suspects cost at most `log2 n + 1` attempts, and there is no loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{PluginId, Revision};
use crate::snapshot::{Resource, Version};

/// Something new in what was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    pub plugin: PluginId,
    pub revision: Revision,
    /// Envoy names a module that it refuses, and never a script.
    pub is_script: bool,
}

/// What an answer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing new is known.
    None,
    /// Nothing was new in it, so nobody is to be blamed.
    Nobody,
    /// Other parts are set aside from now on.
    Narrowed,
    /// This one it was. Whatever was set aside is free again.
    Blamed(Suspect, Arc<str>),
}

/// One proxy's search. There is one at a time, as what it sets aside is gone from every resource.
#[derive(Debug, Default)]
pub struct Hunt {
    trial: Option<Trial>,
    /// Resources that were refused during the trial of another, by name. One that is to be sent in the same version
    /// after it is hunted through next, as the client is not asked the same twice.
    open: BTreeMap<String, Open>,
}

#[derive(Debug)]
struct Trial {
    /// Of the resource.
    name: String,
    message: Arc<str>,
    /// What the next attempt holds. Never empty.
    trying: Vec<Suspect>,
    /// Halves that the next attempt lacks. The refused one is in `trying` or in the last of them.
    aside: Vec<Vec<Suspect>>,
}

#[derive(Debug)]
struct Open {
    version: Version,
    suspects: Vec<Suspect>,
    message: Arc<str>,
}

impl Hunt {
    /// Whether an acknowledgement can mean anything here.
    pub fn is_idle(&self) -> bool {
        self.trial.is_none() && self.open.is_empty()
    }

    /// Envoy's words, where this revision waits for the end of the search.
    pub fn sets_aside(&self, plugin: &PluginId, revision: Revision) -> Option<&str> {
        let trial = self.trial.as_ref()?;
        let mut aside = trial.aside.iter().flatten();
        aside.any(|it| it.revision == revision && it.plugin == *plugin).then_some(&*trial.message)
    }

    /// What is to be left out for now.
    pub fn aside(&self) -> impl Iterator<Item = &Suspect> {
        self.trial.iter().flat_map(|trial| trial.aside.iter().flatten())
    }

    /// The client refused `resource` without naming anybody; `suspects` are new in it.
    pub fn refused(&mut self, resource: &Resource, mut suspects: Vec<Suspect>, message: &Arc<str>) -> Step {
        if suspects.is_empty() {
            return Step::Nobody;
        }
        let is_here = |trial: &Trial| trial.name == resource.name;
        if suspects.len() == 1 {
            if self.trial.as_ref().is_some_and(is_here) {
                self.trial = None;
            }
            return Step::Blamed(suspects.remove(0), message.clone());
        }
        match &mut self.trial {
            Some(trial) if is_here(trial) => trial.split(suspects),
            Some(_) => {
                let open = Open { version: resource.version.clone(), suspects, message: message.clone() };
                self.open.insert(resource.name.clone(), open);
                return Step::None;
            }
            None => self.begin(resource.name.clone(), suspects, message.clone()),
        }
        Step::Narrowed
    }

    /// The client named a plugin in its refusal of this resource: the rest is tried without that one.
    pub fn named(&mut self, name: &str) {
        self.open.remove(name);
        self.trial.take_if(|trial| trial.name == name);
    }

    /// The client acknowledged a resource of that name.
    pub fn accepted(&mut self, name: &str, holds: impl Fn(&Suspect) -> bool) -> Step {
        if self.open.get(name).is_some_and(|open| open.suspects.iter().all(&holds)) {
            self.open.remove(name);
        }
        // The way back after a refusal is acknowledged as well, and proves nothing: it holds nothing new.
        let is_proof = |trial: &mut Trial| trial.name == name && trial.trying.iter().all(&holds);
        let Some(mut trial) = self.trial.take_if(is_proof) else { return Step::None };
        let Some(mut guilty) = trial.aside.pop() else { return Step::Narrowed };
        if guilty.len() == 1 {
            return Step::Blamed(guilty.remove(0), trial.message);
        }
        trial.split(guilty);
        self.trial = Some(trial);
        Step::Narrowed
    }

    /// From now on the client is to be sent what `resolve` says; returns whether other parts are set aside by that. A
    /// trial of what is not to be sent any more ends.
    pub fn expect(&mut self, resolve: impl Fn(&str) -> Option<Arc<Resource>>) -> bool {
        if let Some(trial) = &self.trial {
            let is_sent =
                resolve(&trial.name).is_some_and(|resource| trial.trying.iter().all(|it| it.is_in(&resource)));
            let has_ended = self.trial.take_if(|_| !is_sent);
            return has_ended.is_some_and(|trial| {
                self.open.remove(&trial.name);
                true
            });
        }
        self.open.retain(|name, open| resolve(name).is_some_and(|resource| resource.version == open.version));
        match self.open.pop_first() {
            Some((name, Open { suspects, message, .. })) => {
                self.begin(name, suspects, message);
                true
            }
            None => false,
        }
    }

    fn begin(&mut self, name: String, suspects: Vec<Suspect>, message: Arc<str>) {
        let mut trial = Trial { name, message, trying: Vec::new(), aside: Vec::new() };
        trial.split(suspects);
        self.trial = Some(trial);
    }
}

impl Trial {
    /// Tries one half of the suspects, of which there are two at least: modules before scripts, as a refused module
    /// would mostly have been named.
    fn split(&mut self, suspects: Vec<Suspect>) {
        let half = suspects.len().div_ceil(2);
        let (mut scripts, mut modules): (Vec<_>, Vec<_>) = suspects.into_iter().partition(|it| it.is_script);
        if modules.is_empty() {
            modules = scripts.drain(..half).collect();
        } else if scripts.is_empty() {
            scripts = modules.split_off(half);
        }
        self.trying = modules;
        self.aside.push(scripts);
    }
}

impl Suspect {
    pub fn is_in(&self, resource: &Resource) -> bool {
        let (owner, revision) = (self.plugin.to_string(), self.revision.to_string());
        resource.parts.iter().any(|part| *part.owner == *owner && *part.revision == *revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PluginKind;
    use crate::snapshot::{Part, ResourceType, Rope};

    fn suspect(number: usize, is_script: bool) -> Suspect {
        let plugin = PluginId::new(PluginKind::WasmPlugin, "shop", &format!("p{number}"));
        Suspect { plugin, revision: Revision::parse(&format!("{number:016x}")).unwrap(), is_script }
    }

    fn resource(name: &str, parts: &[Suspect]) -> Arc<Resource> {
        let version = Version::of_text(&format!("{parts:?}"));
        let mut resource = Resource::new(ResourceType::ExtensionConfig, name, version, Rope::new());
        let part =
            |it: &Suspect| Part { owner: it.plugin.to_string().into(), revision: it.revision.to_string().into() };
        resource.parts = parts.iter().map(part).collect();
        Arc::new(resource)
    }

    /// An Envoy that refuses whatever holds one of `bad`, without a name, until it accepts. Whom that blamed, in order,
    /// and the attempts that it took beside the first.
    fn hunt_through(all: &[Suspect], bad: &[Suspect]) -> (Vec<Suspect>, usize) {
        let (mut hunt, mut blamed, mut tried) = (Hunt::default(), Vec::new(), Vec::new());
        let mut held: Vec<Suspect> = Vec::new();
        loop {
            let is_out = |it: &&Suspect| !blamed.contains(*it) && !hunt.aside().any(|aside| aside == *it);
            let sent: Vec<_> = all.iter().filter(is_out).cloned().collect();
            if sent == held {
                assert!(hunt.is_idle());
                return (blamed, tried.len() - 1);
            }
            assert!(!tried.contains(&sent), "asked twice: {sent:?}");
            tried.push(sent.clone());
            let step = match sent.iter().any(|it| bad.contains(it)) {
                true => {
                    let new = sent.iter().filter(|it| !held.contains(it)).cloned().collect();
                    let step = hunt.refused(&resource("c", &sent), new, &"no".into());
                    // Back to what it held.
                    assert_eq!(hunt.accepted("c", |it| held.contains(it)), Step::None);
                    step
                }
                false => {
                    held = sent.clone();
                    hunt.accepted("c", |it| held.contains(it))
                }
            };
            if let Step::Blamed(suspect, _) = step {
                blamed.push(suspect);
            }
        }
    }

    #[test]
    fn one_bad_plugin_among_many_is_found_in_log2_n_plus_1_attempts_and_nobody_else_is_blamed() {
        for count in 1..=40_usize {
            for scripts in [0, 1, count / 2, count] {
                let all: Vec<_> = (0..count).map(|number| suspect(number, number < scripts)).collect();
                // The attempt after the search, with everything but the culprit, comes on top.
                let at_most = count.next_power_of_two().ilog2() as usize + 2;
                for bad in &all {
                    let (blamed, attempts) = hunt_through(&all, std::slice::from_ref(bad));
                    assert_eq!(blamed, std::slice::from_ref(bad));
                    assert!(attempts <= at_most, "{attempts} attempts for {count} suspects, {scripts} of them scripts");
                }
            }
        }
    }

    #[test]
    fn every_set_of_bad_plugins_is_found_and_the_search_ends() {
        for count in 1..=8_usize {
            let all: Vec<_> = (0..count).map(|number| suspect(number, number % 3 == 0)).collect();
            for set in 0..1_usize << count {
                let bad: Vec<_> =
                    (0..count).filter(|number| set >> number & 1 == 1).map(|it| all[it].clone()).collect();
                let (mut blamed, attempts) = hunt_through(&all, &bad);
                blamed.sort_by_key(|it| it.revision);
                assert_eq!(blamed, bad);
                assert!(attempts <= bad.len() * (count.next_power_of_two().ilog2() as usize + 2));
            }
        }
    }

    #[test]
    fn a_chain_that_is_refused_during_the_trial_of_another_is_hunted_through_after_it() {
        let all: Vec<_> = (0..4).map(|number| suspect(number, false)).collect();
        let (one, other) = (resource("one", &all[..2]), resource("other", &all[2..]));
        let mut hunt = Hunt::default();
        assert_eq!(hunt.refused(&one, all[..2].to_vec(), &"no".into()), Step::Narrowed);
        assert_eq!(hunt.refused(&other, all[2..].to_vec(), &"no".into()), Step::None);
        assert_eq!(hunt.accepted("one", |it| *it == all[0]), Step::Blamed(all[1].clone(), "no".into()));
        assert_eq!(hunt.aside().count(), 0);

        // The other chain is to be sent as it was refused: the client is not asked the same again.
        assert!(hunt.expect(|name| (name == "other").then(|| other.clone())));
        assert_eq!(hunt.aside().collect::<Vec<_>>(), [&all[3]]);
        // It is edited: nothing is under trial any more, and the new bytes speak for themselves.
        let edited = resource("other", &[suspect(9, false)]);
        assert!(hunt.expect(|_| Some(edited.clone())));
        assert!(hunt.is_idle() && !hunt.expect(|_| Some(edited.clone())));
    }
}
