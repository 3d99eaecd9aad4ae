//! Registry credentials as docker writes them: `dockerconfigjson`, and who of them is for which repository.
//!
//! Pure. Keys are matched as Kubernetes does (globs per part of the host, path prefixes, longest path first), with two
//! differences: a path ends at a slash, and ports must be equal. No message and no `Debug` of this file holds a secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};
use serde_json::Value;

/// What docker calls its own registry, whatever a reference says.
pub const DOCKER_HUB: &str = "index.docker.io";

/// Kubernetes takes no larger secrets either.
const MAX_BYTES: usize = 1 << 20;
const MAX_ENTRIES: usize = 1000;
/// The longest name that DNS knows.
const MAX_HOST: usize = 253;

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Credential {
    Password {
        username: String,
        password: String,
    },
    /// To be changed for an access token at the registry's token server.
    IdentityToken(String),
    /// Shown as it is.
    RegistryToken(String),
}

/// Credentials by registry, or by registry and path.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    /// Best match first.
    entries: Vec<Entry>,
    /// Names of programs (`credsStore`, `credHelpers`) that hold further credentials. They are never run.
    pub helpers: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    host: String,
    port: Option<String>,
    /// Without slashes around it; empty for the whole registry.
    path: String,
    credential: Credential,
}

/// A pull secret as a source has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullSecret {
    Registries(DockerConfig),
    /// It is there, and of no use for pulling: its type.
    OfType(String),
    /// It is there, and cannot be read: why.
    Broken(String),
}

/// Why a text is no dockerconfigjson. Says where, never what stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDockerConfig {
    #[error("is no JSON: line {line}, column {column}")]
    Syntax { line: usize, column: usize },
    #[error("is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("must be an object with \"auths\"")]
    NoAuths,
    #[error("has more than {MAX_ENTRIES} auths")]
    TooMany,
    #[error("auths[\"{registry}\"]{fault}")]
    Entry { registry: String, fault: &'static str },
}

impl DockerConfig {
    pub fn parse(text: &str) -> Result<Self, InvalidDockerConfig> {
        if text.len() > MAX_BYTES {
            return Err(InvalidDockerConfig::TooLarge);
        }
        // The parser's own words could quote what stands there.
        let syntax =
            |error: serde_json::Error| InvalidDockerConfig::Syntax { line: error.line(), column: error.column() };
        let document: Value = serde_json::from_str(text).map_err(syntax)?;
        let helpers = helpers(&document);
        let auths = match document.get("auths") {
            Some(Value::Object(auths)) => auths,
            None if !helpers.is_empty() => return Ok(Self { entries: Vec::new(), helpers }),
            _ => return Err(InvalidDockerConfig::NoAuths),
        };
        if auths.len() > MAX_ENTRIES {
            return Err(InvalidDockerConfig::TooMany);
        }
        let mut entries = Vec::new();
        for (registry, auth) in auths {
            let fault = |fault| InvalidDockerConfig::Entry { registry: registry.clone(), fault };
            // Docker leaves an empty entry where a helper holds the credentials.
            let Some(credential) = credential(auth).map_err(fault)? else { continue };
            let (host, port, path) = split_key(registry).ok_or_else(|| fault(" names no registry"))?;
            entries.push(Entry { host, port, path, credential });
        }
        entries.sort_by(|one, other| other.rank().cmp(&one.rank()));
        Ok(Self { entries, helpers })
    }

    /// All credentials for a repository, best match first. `registry` is `host[:port]`.
    pub fn lookup(&self, registry: &str, repository: &str) -> Vec<&Credential> {
        let Some((host, port, _)) = split_key(registry) else { return Vec::new() };
        let fits = |entry: &&Entry| {
            entry.port == port && host_matches(&entry.host, &host) && path_matches(&entry.path, repository)
        };
        self.entries.iter().filter(fits).map(|entry| &entry.credential).collect()
    }
}

impl Entry {
    /// Longer paths first, then hosts without globs, then as Kubernetes sorts: backwards.
    fn rank(&self) -> (usize, bool, &str, &str) {
        (self.path.len(), !self.host.contains(['*', '?', '[']), &self.host, &self.path)
    }
}

fn helpers(document: &Value) -> Vec<String> {
    let store = document.get("credsStore").and_then(Value::as_str);
    let per_registry = document.get("credHelpers").and_then(Value::as_object).into_iter().flatten();
    store.into_iter().chain(per_registry.filter_map(|(_, helper)| helper.as_str())).map(str::to_owned).collect()
}

fn credential(auth: &Value) -> Result<Option<Credential>, &'static str> {
    let Value::Object(auth) = auth else { return Err(" must be an object") };
    let text = |key: &str| match auth.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(" holds something that is no text"),
    };
    if let Some(token) = text("registrytoken")? {
        return Ok(Some(Credential::RegistryToken(token.to_owned())));
    }
    if let Some(token) = text("identitytoken")? {
        return Ok(Some(Credential::IdentityToken(token.to_owned())));
    }
    if let Some(encoded) = text("auth")? {
        let (username, password) = decode_auth(encoded).ok_or(".auth is no base64 of \"user:password\"")?;
        return Ok(Some(Credential::Password { username, password }));
    }
    match (text("username")?, text("password")?) {
        (None, None) => Ok(None),
        (Some(username), Some(password)) => {
            Ok(Some(Credential::Password { username: username.to_owned(), password: password.to_owned() }))
        }
        (None, Some(_)) => Err(" has a password and no username"),
        (Some(_), None) => Err(" has a username and no password"),
    }
}

/// With or without padding, as both are seen in the wild.
fn decode_auth(encoded: &str) -> Option<(String, String)> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    let decoded = engine.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker ends the password with NUL bytes or a line end at times.
    Some((username.to_owned(), password.trim_end_matches(['\0', '\n', '\r']).to_owned()))
}

impl Credential {
    /// The value of an `Authorization: Basic` header.
    pub fn basic(username: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
    }
}

/// `[https://]host[:port][/path]` of an entry or a registry.
fn split_key(key: &str) -> Option<(String, Option<String>, String)> {
    let key = key.trim();
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (authority, path) = key.split_once('/').unwrap_or((key, ""));
    // Docker's own keys name the API's version, which is no part of a repository.
    let path = ["v1", "v2"].iter().fold(path, |path, version| match path.strip_prefix(version) {
        Some("") => "",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    });
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|digit| digit.is_ascii_digit()) && !port.is_empty() => {
            (host, Some(port))
        }
        _ => (authority, None),
    };
    if host.is_empty() || host.len() > MAX_HOST {
        return None;
    }
    let host = host.to_ascii_lowercase();
    let host = if matches!(host.as_str(), "docker.io" | "registry-1.docker.io") { DOCKER_HUB.to_owned() } else { host };
    Some((host, port.map(str::to_owned), path.trim_matches('/').to_owned()))
}

/// Part by part, so that `*.example.com` is no pattern for `a.b.example.com`.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (patterns, parts): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
    pattern == host
        || patterns.len() == parts.len()
            && patterns.iter().zip(&parts).all(|(pattern, part)| glob_matches(pattern.as_bytes(), part.as_bytes()))
}

/// `*`, `?` and `[a-z]`. Goes back to the last star only, so that many of them cost no more than one.
fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            (pattern, retry) = (rest, Some((rest, text)));
        } else if pattern.is_empty() && text.is_empty() {
            return true;
        } else if let Some((rest_of_pattern, rest)) = take_one(pattern, text) {
            (pattern, text) = (rest_of_pattern, rest);
        } else {
            let Some((after_star, [_, longer @ ..])) = retry else { return false };
            (pattern, text, retry) = (after_star, longer, Some((after_star, longer)));
        }
    }
}

/// What is left of both once a part of the pattern has taken one byte.
fn take_one<'p, 't>(pattern: &'p [u8], text: &'t [u8]) -> Option<(&'p [u8], &'t [u8])> {
    let (byte, text) = text.split_first()?;
    let (first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some((rest, text)),
        b'[' => {
            let end = rest.iter().position(|byte| *byte == b']')?;
            class_matches(&rest[..end], *byte).then_some((&rest[end + 1..], text))
        }
        literal => (literal == byte).then_some((rest, text)),
    }
}

fn class_matches(class: &[u8], byte: u8) -> bool {
    let (is_negated, class) = class.strip_prefix(b"^").map_or((false, class), |class| (true, class));
    let is_in = match class {
        [first, b'-', last] => (*first..=*last).contains(&byte),
        _ => class.contains(&byte),
    };
    is_in != is_negated
}

fn path_matches(prefix: &str, repository: &str) -> bool {
    prefix.is_empty() || repository.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(redacted)",
            Self::IdentityToken(_) => "IdentityToken(redacted)",
            Self::RegistryToken(_) => "RegistryToken(redacted)",
        })
    }
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |entry: &Entry| format!("{}/{}", entry.host, entry.path);
        f.debug_list().entries(self.entries.iter().map(of)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &[&str]) -> DockerConfig {
        let auths: serde_json::Map<_, _> = keys
            .iter()
            .map(|key| ((*key).to_owned(), serde_json::json!({"username": key, "password": "hunter2"})))
            .collect();
        DockerConfig::parse(&serde_json::json!({ "auths": auths }).to_string()).unwrap()
    }

    /// The keys that fit, best first.
    fn found(config: &DockerConfig, registry: &str, repository: &str) -> Vec<String> {
        let name = |credential: &&Credential| match credential {
            Credential::Password { username, .. } => username.clone(),
            other => panic!("{other:?}"),
        };
        config.lookup(registry, repository).iter().map(name).collect()
    }

    #[test]
    fn the_longest_path_wins_and_a_path_ends_at_a_slash() {
        let config = config(&["r.test", "r.test/team", "r.test/team/plugin", "r.test:5000"]);
        assert_eq!(found(&config, "r.test", "team/plugin"), ["r.test/team/plugin", "r.test/team", "r.test"]);
        assert_eq!(found(&config, "r.test", "team/plugins"), ["r.test/team", "r.test"]);
        assert_eq!(found(&config, "r.test", "teams/plugin"), ["r.test"]);
        assert_eq!(found(&config, "r.test:5000", "team/plugin"), ["r.test:5000"]);
        assert_eq!(found(&config, "r.test:5001", "team/plugin"), [""; 0]);
        assert_eq!(found(&config, "other.test", "team/plugin"), [""; 0]);
    }

    #[test]
    fn globs_stand_for_parts_of_a_host_and_give_way_to_names() {
        let config = config(&["*.r.test", "a?.r.test", "[b-c]1.r.test", "a1.r.test", "*.*.r.test/x"]);
        assert_eq!(found(&config, "a1.r.test", "p"), ["a1.r.test", "a?.r.test", "*.r.test"]);
        assert_eq!(found(&config, "b1.r.test", "p"), ["[b-c]1.r.test", "*.r.test"]);
        assert_eq!(found(&config, "r.test", "p"), [""; 0]);
        assert_eq!(found(&config, "a.b.r.test", "x/y"), ["*.*.r.test/x"]);
        let stars = "*a".repeat(60);
        assert!(!glob_matches(stars.as_bytes(), &[b'a'; 59]) && glob_matches(stars.as_bytes(), &[b'a'; 60]));
        assert!(!glob_matches(b"a[", b"ab") && glob_matches(b"[^a]*", b"bc") && !glob_matches(b"[^a]*", b"ac"));
    }

    #[test]
    fn docker_hub_is_known_by_all_its_names() {
        for key in [
            "https://index.docker.io/v1/",
            "docker.io",
            "index.docker.io",
            "registry-1.docker.io",
            "http://docker.io/v2",
        ] {
            assert_eq!(found(&config(&[key]), DOCKER_HUB, "library/x"), [key], "{key}");
        }
        assert_eq!(found(&config(&["docker.io/me"]), DOCKER_HUB, "you/x"), [""; 0]);
    }

    #[test]
    fn every_way_to_write_a_credential_is_read() {
        let parse = |auth: &str| DockerConfig::parse(&format!("{{\"auths\": {{\"r\": {auth}}}}}")).unwrap();
        let of = |auth: &str| parse(auth).lookup("r", "p").first().map(|it| (*it).clone());
        let password = Some(Credential::Password { username: "u".into(), password: "p:q".into() });
        assert_eq!(of(r#"{"auth": "dTpwOnE="}"#), password);
        assert_eq!(of(r#"{"auth": "dTpwOnE", "username": "x"}"#), password);
        assert_eq!(of(r#"{"auth": "dTpwOnEA"}"#), password);
        assert_eq!(of(r#"{"username": "u", "password": "p:q", "email": "e", "auth": ""}"#), password);
        assert_eq!(of(r#"{"auth": "dTpw", "identitytoken": "t"}"#), Some(Credential::IdentityToken("t".into())));
        assert_eq!(of(r#"{"registrytoken": "t"}"#), Some(Credential::RegistryToken("t".into())));
        assert_eq!(of("{}"), None);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let error = |text: &str| DockerConfig::parse(text).unwrap_err().to_string();
        assert_eq!(error("{\"auths\":\n hunter2"), "is no JSON: line 2, column 2");
        for text in ["[]", "{}", "{\"auths\": \"hunter2\"}"] {
            assert_eq!(error(text), "must be an object with \"auths\"");
        }
        let faults = [
            (r#""hunter2""#, " must be an object"),
            (r#"{"auth": "hunter2!"}"#, ".auth is no base64 of \"user:password\""),
            (r#"{"auth": 5}"#, " holds something that is no text"),
            (r#"{"username": "hunter2"}"#, " has a username and no password"),
            (r#"{"password": "hunter2"}"#, " has a password and no username"),
        ];
        for (auth, fault) in faults {
            assert_eq!(error(&format!("{{\"auths\": {{\"r.test\": {auth}}}}}")), format!("auths[\"r.test\"]{fault}"));
        }
        let config = config(&["r.test"]);
        assert!(!format!("{config:?} {:?}", config.lookup("r.test", "p")).contains("hunter2"));
    }

    #[test]
    fn programs_are_noted_and_no_credential() {
        let config =
            DockerConfig::parse(r#"{"auths": {"r": {}}, "credsStore": "desktop", "credHelpers": {"r": "ecr"}}"#);
        let config = config.unwrap();
        assert_eq!((config.helpers.clone(), config.lookup("r", "p")), (vec!["desktop".into(), "ecr".into()], vec![]));
    }
}
