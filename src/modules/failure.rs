//! A row of failed attempts to get one module: what failed, since when, and what comes next.

use jiff::Timestamp;

/// What status says of a module that is not to be had. Ends with the next success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Of the last attempt.
    pub reason: String,
    /// When the first attempt of the row failed.
    pub since: Timestamp,
    /// Failed ones in a row.
    pub attempts: u32,
    pub next: NextTry,
}

/// When a failed module is asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTry {
    /// On schedule. A time that has passed is an attempt under way.
    At(Timestamp),
    /// Its file must become another one.
    WhenFileChanges,
    /// The pull secret must come, or become another one.
    WhenSecretChanges,
    /// Nothing but another specification can help.
    WhenPluginChanges,
}

impl NextTry {
    pub fn after(wait: std::time::Duration) -> Self {
        Self::At(Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX))
    }

    /// In words, where there is no time to name.
    pub fn condition(self) -> Option<&'static str> {
        match self {
            Self::At(_) => None,
            Self::WhenFileChanges => Some("when the file changes"),
            Self::WhenSecretChanges => Some("when the secret changes"),
            Self::WhenPluginChanges => Some("when the plugin is changed"),
        }
    }
}

impl Failure {
    /// This failure as the one after `earlier`, if that row has not ended.
    pub fn following(self, earlier: Option<&Self>) -> Self {
        match earlier {
            Some(earlier) => {
                Self { since: earlier.since, attempts: earlier.attempts.saturating_add(self.attempts), ..self }
            }
            None => self,
        }
    }

    pub fn first(reason: String, next: NextTry) -> Self {
        Self { reason, since: Timestamp::now(), attempts: 1, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_its_beginning_and_shows_the_last_reason() {
        let first =
            Failure { since: Timestamp::UNIX_EPOCH, ..Failure::first("a".to_owned(), NextTry::WhenFileChanges) };
        let second = Failure::first("b".to_owned(), NextTry::WhenPluginChanges).following(Some(&first));
        let expected = Failure {
            reason: "b".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            attempts: 2,
            next: NextTry::WhenPluginChanges,
        };
        assert_eq!(second, expected);
        assert_eq!(second.clone().following(None), second);
    }
}
