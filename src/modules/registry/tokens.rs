//! Access tokens by whose they are, until they run out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::keychain::Whose;
use crate::model::Credential;

/// Whose token, for what. A token is found again only with the same secret, the same credential in it, the same
/// registry and the same scope.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenKey {
    pub whose: Whose,
    pub credential: Option<Credential>,
    pub registry: String,
    pub scope: String,
}

/// Each is about 1 KiB.
const MAX_TOKENS: usize = 1000;
/// What a token server means that does not say how long (distribution specification: 60 s).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);
/// A token that ends on the way is of no use.
const MARGIN: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Tokens(Mutex<HashMap<TokenKey, (HeaderValue, Instant)>>);

impl Tokens {
    pub fn get(&self, key: &TokenKey) -> Option<HeaderValue> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(key).filter(|(_, ends)| Instant::now() < *ends).map(|(token, _)| token.clone())
    }

    /// `lifetime`: seconds, as the token server said.
    pub fn put(&self, key: TokenKey, token: HeaderValue, lifetime: Option<u64>) {
        let lifetime = lifetime.map_or(DEFAULT_LIFETIME, Duration::from_secs).min(LONGEST_LIFETIME);
        let now = Instant::now();
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, (_, ends)| now < *ends);
        }
        if tokens.len() >= MAX_TOKENS {
            tokens.clear();
        }
        tokens.insert(key, (token, now + lifetime.saturating_sub(MARGIN)));
    }

    /// The registry did not take it.
    pub fn forget(&self, key: &TokenKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(whose: Whose, scope: &str) -> TokenKey {
        TokenKey { whose, credential: None, registry: "r.test".to_owned(), scope: scope.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_its_owners_and_ends_with_its_time() {
        let tokens = Tokens::default();
        let (alice, bob) = (Whose::Secret("shop".into(), "alice".into()), Whose::Secret("shop".into(), "bob".into()));
        let token = HeaderValue::from_static("Bearer t");
        tokens.put(key(alice.clone(), "a"), token.clone(), Some(300));
        assert_eq!(tokens.get(&key(alice.clone(), "a")), Some(token.clone()));
        for other in [key(bob, "a"), key(Whose::Operator, "a"), key(alice.clone(), "b")] {
            assert_eq!(tokens.get(&other), None);
        }
        let password = Credential::Password { username: "u".into(), password: "changed".into() };
        assert_eq!(tokens.get(&TokenKey { credential: Some(password), ..key(alice.clone(), "a") }), None);
        tokio::time::advance(Duration::from_secs(295)).await;
        assert_eq!(tokens.get(&key(alice.clone(), "a")), None);
        tokens.put(key(alice.clone(), "a"), token.clone(), Some(0));
        assert_eq!(tokens.get(&key(alice.clone(), "a")), None);
        tokens.put(key(alice.clone(), "a"), token, None);
        tokens.forget(&key(alice.clone(), "a"));
        assert_eq!(tokens.get(&key(alice, "a")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn their_number_is_bounded() {
        let tokens = Tokens::default();
        for number in 0..3 * MAX_TOKENS {
            tokens.put(key(Whose::Operator, &number.to_string()), HeaderValue::from_static("t"), Some(300));
        }
        assert!(tokens.0.lock().unwrap().len() <= MAX_TOKENS);
    }
}
