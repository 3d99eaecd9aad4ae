//! Proxies that are served the same.

use std::fmt;
use std::str::FromStr;

use crate::args::Args;
use crate::manifests::Touched;

/// Which plugins a proxy has beside those of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Plain,
    /// With the plugin of one in a hundred.
    Canary,
    /// With that, and with the plugin that only one has.
    Only,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Canary, Self::Only];

    pub fn of(index: usize) -> Self {
        if Touched::One.has(index) {
            Self::Only
        } else if Touched::OnePercent.has(index) {
            Self::Canary
        } else {
            Self::Plain
        }
    }

    /// The first proxy of the class, if the fleet has one.
    pub fn first(self, args: &Args) -> Option<usize> {
        (0..args.proxies).find(|index| Self::of(*index) == self)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Canary => "canary",
            Self::Only => "only",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Class {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|class| class.name() == text);
        known.ok_or_else(|| anyhow::anyhow!("{text:?} is no class of proxies"))
    }
}

/// Something for each class.
pub struct PerClass<T>([T; 3]);

impl<T> PerClass<T> {
    pub fn of(make: impl FnMut(Class) -> T) -> Self {
        Self(Class::ALL.map(make))
    }

    pub fn get(&self, class: Class) -> &T {
        &self.0[class as usize]
    }
}
