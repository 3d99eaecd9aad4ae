//! Narrows a refusal that names nobody down to one plugin, by halving what the client never accepted.
//!
//! Pure. Comes in: refusals and acknowledgements. Goes out: what to set aside in the next attempt, and whom to blame in
//! the end. Invariant: no attempt repeats one that was refused, as each holds less than those before it; so there is no
//! loop, and one culprit among `n` suspects costs at most `log2 n + 1` attempts. A client may refuse everything: after
//! two culprits, what is left is blamed as one, so that no change costs more than `2 log2 n + 4` attempts.

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
    /// These it was: one, or those that are left after [`CULPRITS`]. Whatever was set aside is free again.
    Blamed(Vec<Suspect>, Arc<str>),
}

/// Found one by one among what was new at the same time. Who refuses what is left thereafter probably refuses everything.
const CULPRITS: usize = 2;

/// One proxy's search. There is one at a time, as what it sets aside is gone from every resource.
#[derive(Debug, Default)]
pub struct Hunt {
    trial: Option<Trial>,
    /// Resources that were refused during the trial of another, by name. One that is to be sent in the same version
    /// after it is hunted through next, as the client is not asked the same twice.
    open: BTreeMap<Arc<str>, Open>,
    /// By the name of the resource, what has been searched through since it was refused with all of it.
    searched: BTreeMap<Arc<str>, Searched>,
}

/// What was new in a resource when it was refused at first.
#[derive(Debug)]
struct Searched {
    /// Neither found to be a culprit nor accepted.
    left: Vec<Suspect>,
    culprits: usize,
}

#[derive(Debug)]
struct Trial {
    /// Of the resource.
    name: Arc<str>,
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
        self.trial.is_none() && self.open.is_empty() && self.searched.is_empty()
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
    pub fn refused(&mut self, resource: &Resource, suspects: Vec<Suspect>, message: &Arc<str>) -> Step {
        if suspects.is_empty() {
            return Step::Nobody;
        }
        let is_here = |trial: &Trial| trial.name == resource.name;
        if suspects.len() == 1 || self.is_given_up(&resource.name, &suspects) {
            self.trial.take_if(|trial| is_here(trial));
            return self.blame(&resource.name, suspects, message.clone());
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
        self.trial.take_if(|trial| *trial.name == *name);
    }

    /// The client acknowledged a resource of that name.
    pub fn accepted(&mut self, name: &str, holds: impl Fn(&Suspect) -> bool) -> Step {
        if self.open.get(name).is_some_and(|open| open.suspects.iter().all(&holds)) {
            self.open.remove(name);
        }
        if let Some(searched) = self.searched.get_mut(name) {
            searched.left.retain(|it| !holds(it));
            if searched.left.is_empty() {
                self.searched.remove(name);
            }
        }
        // The way back after a refusal is acknowledged as well, and proves nothing: it holds nothing new.
        let is_proof = |trial: &mut Trial| *trial.name == *name && trial.trying.iter().all(&holds);
        let Some(mut trial) = self.trial.take_if(is_proof) else { return Step::None };
        let Some(guilty) = trial.aside.pop() else { return Step::Narrowed };
        if guilty.len() == 1 {
            return self.blame(name, guilty, trial.message);
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
                self.searched.remove(&trial.name);
                true
            });
        }
        // Nothing is set aside by now: what is not to be sent is gone, or was edited.
        self.searched.retain(|name, searched| {
            let resource = resolve(name);
            searched.left.retain(|it| resource.as_ref().is_some_and(|resource| it.is_in(resource)));
            !searched.left.is_empty()
        });
        self.open.retain(|name, open| resolve(name).is_some_and(|resource| resource.version == open.version));
        match self.open.pop_first() {
            Some((name, Open { suspects, message, .. })) => {
                self.begin(name, suspects, message);
                true
            }
            None => false,
        }
    }

    /// Whether all of these were searched through before, and as many culprits found as are worth it.
    fn is_given_up(&self, name: &str, suspects: &[Suspect]) -> bool {
        let given_up = self.searched.get(name).filter(|searched| searched.culprits >= CULPRITS);
        given_up.is_some_and(|searched| suspects.iter().all(|it| searched.left.contains(it)))
    }

    fn blame(&mut self, name: &str, blamed: Vec<Suspect>, message: Arc<str>) -> Step {
        if let Some(searched) = self.searched.get_mut(name) {
            searched.left.retain(|it| !blamed.contains(it));
            searched.culprits += 1;
            if searched.left.is_empty() {
                self.searched.remove(name);
            }
        }
        Step::Blamed(blamed, message)
    }

    fn begin(&mut self, name: Arc<str>, suspects: Vec<Suspect>, message: Arc<str>) {
        // Something that is new by now is searched through with the same patience.
        let is_known = |searched: &Searched| suspects.iter().all(|it| searched.left.contains(it));
        if !self.searched.get(&name).is_some_and(is_known) {
            self.searched.insert(name.clone(), Searched { left: suspects.clone(), culprits: 0 });
        }
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
        let part =
            |it: &Suspect| Part { owner: it.plugin.to_string().into(), revision: it.revision.to_string().into() };
        let parts: Vec<_> = parts.iter().map(part).collect();
        Arc::new(Resource::of_parts(ResourceType::ExtensionConfig, name, version, parts, Rope::new()))
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
            if let Step::Blamed(suspects, _) = step {
                blamed.extend(suspects);
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
    fn two_bad_plugins_among_sixteen_are_found_and_the_others_run() {
        let all: Vec<_> = (0..16).map(|number| suspect(number, number % 5 == 0)).collect();
        for one in 0..16 {
            for other in one + 1..16 {
                let bad = [all[one].clone(), all[other].clone()];
                let (mut blamed, attempts) = hunt_through(&all, &bad);
                blamed.sort_by_key(|it| it.revision);
                assert_eq!(blamed, bad);
                assert!(attempts <= 2 * 4 + 4, "{attempts} attempts for {one} and {other}");
            }
        }
    }

    #[test]
    fn a_proxy_that_refuses_everything_costs_a_few_messages_more_than_one_bad_plugin() {
        for count in 2..=64_usize {
            for scripts in [0, count / 2, count] {
                let all: Vec<_> = (0..count).map(|number| suspect(number, number < scripts)).collect();
                let (mut blamed, attempts) = hunt_through(&all, &all);
                blamed.sort_by_key(|it| it.revision);
                assert_eq!(blamed, all);
                let at_most = 2 * count.next_power_of_two().ilog2() as usize + 4;
                assert!(attempts <= at_most, "{attempts} attempts for {count} suspects");
            }
        }
    }

    #[test]
    fn no_set_of_bad_plugins_makes_the_search_long_and_none_is_left_to_be_sent() {
        for count in 1..=8_usize {
            let all: Vec<_> = (0..count).map(|number| suspect(number, number % 3 == 0)).collect();
            for set in 0..1_usize << count {
                let bad: Vec<_> =
                    (0..count).filter(|number| set >> number & 1 == 1).map(|it| all[it].clone()).collect();
                let (blamed, attempts) = hunt_through(&all, &bad);
                assert!(bad.iter().all(|it| blamed.contains(it)));
                // Beyond two, neighbours that were refused with them go along.
                assert!(bad.len() > 2 || blamed.len() == bad.len());
                assert!(attempts <= 2 * count.next_power_of_two().ilog2() as usize + 4);
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
        assert_eq!(hunt.accepted("one", |it| *it == all[0]), Step::Blamed(vec![all[1].clone()], "no".into()));
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
