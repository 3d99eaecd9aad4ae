//! What a client asks for within one type: names, a wildcard, or both.
//!
//! Pure: no clock, no channel, no await. The rules are those of the xDS protocol, "How the client specifies what
//! resources to return".

use std::collections::BTreeSet;
use std::sync::Arc;

const WILDCARD: &str = "*";

/// A client's subscription to one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Asked for everything, by `*` or by naming nothing in the first request of a type that permits it.
    pub is_wildcard: bool,
    /// Asked for by name.
    pub names: BTreeSet<Arc<str>>,
    /// No request has named anything yet: an empty list then means everything, later nothing.
    is_legacy: bool,
    /// Of the names. Asked for with every request.
    bytes: usize,
}

/// How a request changed a subscription.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// To be answered anew even where the client was sent them before.
    pub asked: BTreeSet<Arc<str>>,
    /// No longer the client's concern.
    pub dropped: BTreeSet<Arc<str>>,
    /// The wildcard has come or gone.
    pub is_other_wildcard: bool,
}

impl Changed {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Subscription {
    /// The subscription that the first request of a type opens. Naming nothing means everything only where
    /// `permits_wildcard` (listeners and clusters); for ECDS it means nothing. Here and below, a name that is among the
    /// `known` ones is not kept a second time.
    pub fn open(names: &[String], permits_wildcard: bool, known: &BTreeSet<Arc<str>>) -> Self {
        let names: BTreeSet<_> = names.iter().map(|name| shared(name, known)).collect();
        let is_legacy = permits_wildcard && names.is_empty();
        let mut subscription = Self { is_wildcard: is_legacy, names, is_legacy, bytes: 0 };
        subscription.take_wildcard();
        subscription.bytes = subscription.names.iter().map(|name| name.len()).sum();
        subscription
    }

    /// The length of all names.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn covers(&self, name: &str) -> bool {
        self.is_wildcard || self.names.contains(name)
    }

    /// State of the world: the list replaces the former one. An empty list keeps a wildcard that was opened by an empty
    /// list, and otherwise means nothing.
    pub fn replace(&mut self, names: &[String], known: &BTreeSet<Arc<str>>) -> Changed {
        if names.is_empty() && self.is_legacy {
            return Changed::default();
        }
        // As most requests are, which only answer.
        if !self.is_wildcard && names.iter().map(String::as_str).eq(self.names.iter().map(|name| &**name)) {
            return Changed::default();
        }
        let mut next = Self { names: names.iter().map(|name| shared(name, known)).collect(), ..Self::default() };
        next.take_wildcard();
        next.bytes = next.names.iter().map(|name| name.len()).sum();
        let changed = Changed {
            asked: next.names.difference(&self.names).cloned().collect(),
            dropped: self.names.iter().filter(|name| !next.covers(name)).cloned().collect(),
            is_other_wildcard: next.is_wildcard != self.is_wildcard,
        };
        *self = next;
        changed
    }

    /// Delta: subscriptions first, then unsubscriptions.
    pub fn update(&mut self, subscribe: &[String], unsubscribe: &[String], known: &BTreeSet<Arc<str>>) -> Changed {
        let mut changed = Changed::default();
        let had_wildcard = self.is_wildcard;
        for name in subscribe {
            if name == WILDCARD {
                self.is_wildcard = true;
            } else {
                let name = self.names.get(name.as_str()).cloned().unwrap_or_else(|| shared(name, known));
                if self.names.insert(name.clone()) {
                    self.bytes += name.len();
                }
                changed.asked.insert(name);
            }
        }
        for name in unsubscribe {
            if name == WILDCARD {
                self.is_wildcard = false;
            } else if let Some(name) = self.names.take(name.as_str()) {
                self.bytes -= name.len();
                changed.asked.remove(&name);
                // Under a wildcard the resource has to be sent again, or its absence said.
                let set = if self.is_wildcard { &mut changed.asked } else { &mut changed.dropped };
                set.insert(name);
            }
        }
        changed.is_other_wildcard = self.is_wildcard != had_wildcard;
        changed
    }

    fn take_wildcard(&mut self) {
        if self.names.remove(WILDCARD) {
            self.is_wildcard = true;
        }
    }
}

fn shared(name: &str, known: &BTreeSet<Arc<str>>) -> Arc<str> {
    known.get(name).cloned().unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &BTreeSet<Arc<str>> = &BTreeSet::new();

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn set(of: &[&str]) -> BTreeSet<Arc<str>> {
        of.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn naming_nothing_at_first_means_everything_only_where_the_type_permits_it() {
        assert!(Subscription::open(&[], true, NONE).is_wildcard);
        assert!(!Subscription::open(&[], false, NONE).is_wildcard);
        assert!(!Subscription::open(&names(&["a"]), true, NONE).is_wildcard);
    }

    #[test]
    fn a_star_is_a_wildcard_beside_names() {
        let subscription = Subscription::open(&names(&["*", "a"]), true, NONE);
        assert_eq!(subscription, Subscription { is_wildcard: true, names: set(&["a"]), is_legacy: false, bytes: 1 });
    }

    #[test]
    fn an_empty_list_after_names_is_nothing_and_not_everything() {
        let mut subscription = Subscription::open(&[], true, NONE);
        assert_eq!(subscription.replace(&[], NONE), Changed::default());
        subscription.replace(&names(&["a"]), NONE);
        let changed = subscription.replace(&[], NONE);
        assert_eq!(changed.dropped, set(&["a"]));
        assert!(!subscription.is_wildcard && subscription.replace(&[], NONE).is_nothing());
    }

    #[test]
    fn an_empty_list_after_a_star_is_nothing_too() {
        let mut subscription = Subscription::open(&names(&["*"]), true, NONE);
        assert!(subscription.replace(&[], NONE).is_other_wildcard);
        assert_eq!(subscription, Subscription::default());
    }

    #[test]
    fn a_longer_list_asks_only_for_what_is_new() {
        let mut subscription = Subscription::open(&names(&["a", "b"]), false, NONE);
        let changed = subscription.replace(&names(&["b", "c"]), NONE);
        assert_eq!(changed, Changed { asked: set(&["c"]), dropped: set(&["a"]), ..Changed::default() });
    }

    #[test]
    fn a_name_subscribed_again_is_asked_for_again() {
        let mut subscription = Subscription::open(&names(&["a"]), false, NONE);
        assert_eq!(subscription.update(&names(&["a"]), &[], NONE).asked, set(&["a"]));
    }

    #[test]
    fn unsubscription_is_applied_after_subscription() {
        let mut subscription = Subscription::default();
        let changed = subscription.update(&names(&["a"]), &names(&["a"]), NONE);
        assert_eq!(changed, Changed { dropped: set(&["a"]), ..Changed::default() });
        assert!(!subscription.covers("a"));
    }

    #[test]
    fn the_length_of_all_names_is_kept_in_step() {
        let mut subscription = Subscription::open(&names(&["*", "ab", "c"]), true, NONE);
        subscription.update(&names(&["ab", "def", "*"]), &names(&["c", "nothing"]), NONE);
        assert_eq!(subscription.bytes(), 5);
        subscription.replace(&names(&["x", "*"]), NONE);
        assert_eq!(subscription.bytes(), 1);
    }

    #[test]
    fn a_name_unsubscribed_under_a_wildcard_is_answered_again() {
        let mut subscription = Subscription::open(&names(&["*", "a"]), true, NONE);
        let changed = subscription.update(&[], &names(&["a"]), NONE);
        assert_eq!(changed, Changed { asked: set(&["a"]), ..Changed::default() });
        subscription.update(&[], &names(&["*"]), NONE);
        assert!(!subscription.covers("a"));
    }
}
