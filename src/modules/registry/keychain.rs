//! Whose credentials a pull is made with, and which of them are for the registry.
//!
//! A plugin that names a secret is pulled with that secret and nothing else; one that names none with the operator's own
//! docker config. Programs that either of them names to ask for credentials (`credsStore`, `credHelpers`) are never run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::PullError;
use crate::model::{Credential, DockerConfig, ImageReference, PullSecret};

/// Pull secrets by namespace and name.
pub type Secrets = Arc<BTreeMap<(String, String), Arc<PullSecret>>>;

/// Who pulls: what one may know is never handed to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whose {
    Operator,
    /// Namespace and name.
    Secret(String, String),
}

/// Credentials for one reference, best first, and in words whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    pub whose: Whose,
    pub credentials: Vec<Credential>,
    pub in_words: String,
}

/// Further matches of one config are tried when the first is refused; this many requests at most.
const MAX_TRIES: usize = 4;

impl Keys {
    /// Of a plugin's secret, as it is now.
    pub fn of_secret(
        (namespace, name): &(String, String),
        secrets: &Secrets,
        reference: &ImageReference,
    ) -> Result<Self, PullError> {
        let useless = |reason: String| PullError::Secret { namespace: namespace.clone(), name: name.clone(), reason };
        let config = match secrets.get(&(namespace.clone(), name.clone())).map(Arc::as_ref) {
            Some(PullSecret::Registries(config)) => config,
            Some(PullSecret::OfType(found)) => {
                let found: String = found.chars().take(100).collect();
                return Err(useless(format!("is a Secret of type {found}, not kubernetes.io/dockerconfigjson")));
            }
            Some(PullSecret::Broken(reason)) => return Err(useless(format!("is broken: {reason}"))),
            None => return Err(useless("there is no such Secret".to_owned())),
        };
        let whose = Whose::Secret(namespace.clone(), name.clone());
        Ok(Self::found(whose, config, reference, &format!("secret {namespace}/{name}")))
    }

    /// Of the operator: `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, read anew each time. Reads a file.
    pub fn of_operator(reference: &ImageReference) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
        Self::of_folder(folder.as_deref(), reference)
    }

    fn of_folder(folder: Option<&Path>, reference: &ImageReference) -> Self {
        let (path, config) = match folder.and_then(operator_config) {
            Some((path, Ok(config))) => (path, config),
            Some((path, Err(error))) => {
                tracing::warn!(path = %path.display(), error, "docker config unreadable: images without imagePullSecret are pulled without credentials");
                let in_words = format!("without credentials: {} {error}", path.display());
                return Self { whose: Whose::Operator, credentials: Vec::new(), in_words };
            }
            None => (PathBuf::new(), DockerConfig::default()),
        };
        Self::found(Whose::Operator, &config, reference, &path.display().to_string())
    }

    fn found(whose: Whose, config: &DockerConfig, reference: &ImageReference, name: &str) -> Self {
        let registry = reference.registry_name();
        let found = config.lookup(&registry, &reference.repository);
        let credentials: Vec<_> = found.into_iter().take(MAX_TRIES).cloned().collect();
        let in_words = match (credentials.is_empty(), &whose, config.helpers.is_empty()) {
            (false, ..) => format!("with {name}"),
            (true, _, false) => format!("without credentials: {name} leaves them to programs, which are not run"),
            (true, Whose::Secret(..), true) => format!("without credentials: {name} has none for {registry}"),
            (true, Whose::Operator, true) => "without credentials".to_owned(),
        };
        Self { whose, credentials, in_words }
    }
}

fn operator_config(folder: &Path) -> Option<(PathBuf, Result<DockerConfig, String>)> {
    let path = folder.join("config.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some((path, Err(format!("cannot be read: {error}")))),
    };
    Some((path, parse_operator_config(&text)))
}

/// Docker's own file may be without `auths`, before the first login.
fn parse_operator_config(text: &str) -> Result<DockerConfig, String> {
    match DockerConfig::parse(text) {
        Err(crate::model::InvalidDockerConfig::NoAuths) if text.trim_start().starts_with('{') => {
            Ok(DockerConfig::default())
        }
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(secret: Option<PullSecret>) -> Secrets {
        let entry = secret.map(|secret| (("shop".to_owned(), "pull".to_owned()), Arc::new(secret)));
        Arc::new(entry.into_iter().collect())
    }

    fn keys(secret: Option<PullSecret>) -> Result<Keys, String> {
        let name = ("shop".to_owned(), "pull".to_owned());
        Keys::of_secret(&name, &secrets(secret), &"r.test/a".parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_missing_or_unfit_secret_is_said_by_its_name() {
        assert_eq!(keys(None), Err("imagePullSecret shop/pull: there is no such Secret".into()));
        let expected = "imagePullSecret shop/pull: is a Secret of type Opaque, not kubernetes.io/dockerconfigjson";
        assert_eq!(keys(Some(PullSecret::OfType("Opaque".into()))), Err(expected.into()));
        let expected = "imagePullSecret shop/pull: is broken: data: must be text";
        assert_eq!(keys(Some(PullSecret::Broken("data: must be text".into()))), Err(expected.into()));
    }

    #[test]
    fn a_secret_for_other_registries_is_told_from_none() {
        let of = |text: &str| keys(Some(PullSecret::Registries(DockerConfig::parse(text).unwrap()))).unwrap();
        let fitting = of(r#"{"auths": {"r.test": {"username": "u", "password": "p"}}}"#);
        assert_eq!((fitting.credentials.len(), fitting.in_words.as_str()), (1, "with secret shop/pull"));
        let other = of(r#"{"auths": {"s.test": {"username": "u", "password": "p"}}}"#);
        assert_eq!(other.in_words, "without credentials: secret shop/pull has none for r.test");
        let helper = of(r#"{"credsStore": "desktop"}"#);
        assert!(helper.credentials.is_empty() && helper.in_words.ends_with("programs, which are not run"));
    }

    #[test]
    fn an_operators_config_that_cannot_be_read_is_told_with_its_path_where_a_pull_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let in_words = || Keys::of_folder(Some(folder.path()), &"r.test/a".parse().unwrap()).in_words;
        assert_eq!(in_words(), "without credentials");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(in_words(), format!("without credentials: {} is no JSON: line 1, column 1", path.display()));
        std::fs::write(&path, [0xff]).unwrap();
        let said = format!("without credentials: {} cannot be read: ", path.display());
        assert!(in_words().starts_with(&said), "{}", in_words());
    }

    #[test]
    fn an_operators_config_before_the_first_login_is_empty() {
        assert_eq!(parse_operator_config("{\"psFormat\": \"x\"}"), Ok(DockerConfig::default()));
        assert!(parse_operator_config("[").is_err() && parse_operator_config("[]").is_err());
    }
}
