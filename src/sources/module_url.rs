//! `spec.url`, taken apart: which scheme, and is there a module at the end of it (Istio: R1.9).
//!
//! Stricter than Istio where a URL could never work: what Istio admits and later drops is refused here.

use std::path::PathBuf;

use super::fields::shown_text;
use crate::model::{ImageReference, InvalidReference, ModuleLocation};
use crate::protobuf::did_you_mean;

const SCHEMES: [&str; 4] = ["oci", "http", "https", "file"];

/// Reads `url`, or says why it names no module.
pub(super) fn parse(url: &str) -> Result<ModuleLocation, String> {
    if url.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if let Some(odd) = url.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("url cannot be parsed: it contains {odd:?}"));
    }
    match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => with_scheme(&scheme.to_ascii_lowercase(), rest),
        _ => without_scheme(url),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn with_scheme(scheme: &str, rest: &str) -> Result<ModuleLocation, String> {
    match scheme {
        "oci" => image(rest),
        "http" | "https" => http(&format!("{scheme}://{rest}")),
        "file" if rest.ends_with('/') => Err("url names no file, such as file:///opt/plugin.wasm".to_owned()),
        "file" if rest.starts_with('/') => check_escapes(rest).map(|()| ModuleLocation::File(PathBuf::from(rest))),
        "file" => Err(format!("a file url needs an absolute path, such as file:///{rest}")),
        _ => {
            let suggestion = did_you_mean(scheme, SCHEMES);
            let allowed = "url scheme must be one of http, https, file, oci";
            Err(format!("{allowed} (none means oci), not \"{scheme}\"{suggestion}"))
        }
    }
}

fn without_scheme(url: &str) -> Result<ModuleLocation, String> {
    if url.starts_with('/') {
        return Err(format!("a path needs its scheme: write file://{url}"));
    }
    let first = url.split('/').next().unwrap_or(url);
    let Some((before, after)) = first.split_once(':') else { return image(url) };
    if SCHEMES.contains(&before.to_ascii_lowercase().as_str()) {
        let rest = format!("{after}{}", &url[first.len()..]);
        return Err(format!("the scheme lacks its slashes: write {}://{rest}", before.to_ascii_lowercase()));
    }
    // Istio reads the host as a scheme and so refuses it, or admits it and drops it later.
    Err(format!(
        "url scheme must be one of http, https, file, oci; for an image at a registry's port write oci://{url}"
    ))
}

/// `host[:port]/path[:tag][@digest]`; whether a registry can have it is asked by [`doubt`].
fn image(reference: &str) -> Result<ModuleLocation, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@+[]".contains(c);
    if let Some(odd) = reference.chars().find(|c| !is_allowed(*c)) {
        return Err(format!("url cannot be parsed as an image reference: it contains {odd:?}"));
    }
    let host = reference.split('/').next().unwrap_or_default();
    if host.is_empty() || reference.ends_with('/') {
        return Err("url names no image, such as oci://registry.example.com/plugin:v1".to_owned());
    }
    if let (_, Some(port)) = port(host)
        && reference.contains('/')
        && !matches!(port.parse::<u16>(), Ok(1..))
    {
        return Err(format!("\"{port}\" is no port"));
    }
    Ok(ModuleLocation::Oci(reference.to_owned()))
}

/// A host, and what follows its colon; within brackets a colon is part of an address.
fn port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    }
}

/// What no registry can have, though Istio takes it: the pull would fail, in these words. The scheme is not part of
/// `reference`.
pub(super) fn doubt(reference: &str) -> Option<String> {
    let error = reference.parse::<ImageReference>().err()?;
    match &error {
        InvalidReference::Repository { repository } if repository.contains(|c: char| c.is_ascii_uppercase()) => {
            let written =
                repository.strip_prefix("library/").filter(|_| !reference.contains('/')).unwrap_or(repository);
            Some(format!("an image's name has no capitals: write {}", shown_text(&written.to_ascii_lowercase())))
        }
        _ => Some(error.to_string()),
    }
}

fn http(url: &str) -> Result<ModuleLocation, String> {
    check_escapes(url)?;
    let parsed = url::Url::parse(url).map_err(|error| format!("url cannot be parsed: {error}"))?;
    // The parser looks for a host behind any number of slashes.
    let is_nameless = url.split_once("://").is_some_and(|(_, rest)| rest.starts_with(['/', '?', '#', '\\']));
    if is_nameless || parsed.host().is_none() {
        return Err("url names no host".to_owned());
    }
    match parsed.port() {
        Some(0) => Err("\"0\" is no port".to_owned()),
        _ => Ok(ModuleLocation::Http(url.to_owned())),
    }
}

/// Istio reads a path as Go does, which knows no lone percent sign.
fn check_escapes(url: &str) -> Result<(), String> {
    let path = url.split('?').next().unwrap_or(url);
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    match path.match_indices('%').find(|(at, _)| !is_escape(&path[at + 1..])) {
        Some((at, _)) => {
            let shown: String = path[at..].chars().take(3).collect();
            Err(format!("url cannot be parsed: {shown:?} is no percent escape, write %25 for the sign itself"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(url: &str) -> String {
        parse(url).unwrap_err()
    }

    #[test]
    fn a_url_without_scheme_is_an_image() {
        for image in ["test", "ghcr.io/a/b:v1", "xn--a.b/c", "library/a_b.c-d", "GHCR.io/a"] {
            assert_eq!(parse(image), Ok(ModuleLocation::Oci(image.into())));
        }
        let pinned = format!("ghcr.io/a/b:v1@sha256:{}", "a".repeat(64));
        assert_eq!(parse(&pinned), Ok(ModuleLocation::Oci(pinned)));
        assert_eq!(parse("OCI://r:5000/a"), Ok(ModuleLocation::Oci("r:5000/a".into())));
        assert_eq!(parse("oci://[::1]:5000/a"), Ok(ModuleLocation::Oci("[::1]:5000/a".into())));
    }

    #[test]
    fn the_other_schemes_are_http_and_file() {
        assert_eq!(parse("HTTP://r/a"), Ok(ModuleLocation::Http("http://r/a".into())));
        assert_eq!(parse("https://h:1/a.wasm?x=y"), Ok(ModuleLocation::Http("https://h:1/a.wasm?x=y".into())));
        assert_eq!(parse("file:///opt/a.wasm"), Ok(ModuleLocation::File("/opt/a.wasm".into())));
    }

    #[test]
    fn an_image_that_no_registry_can_have_is_doubted_and_all_others_are_not() {
        let pinned = format!("ghcr.io/a/b:v1@sha256:{}", "a".repeat(64));
        for image in
            ["test", "GHCR.io/a/b_c.d-e:V1", "r:5000/a", "10.0.0.1:5000/a", "[::1]:5000/a", "Local.host/a", &pinned]
        {
            assert_eq!(doubt(image), None, "{image}");
        }
        const PARTS: &str = "parts between slashes are made of a-z, 0-9, and single . _ - within";
        for (image, wanted) in [
            ("r.io/Org/a:v1", "an image's name has no capitals: write \"org/a\""),
            ("Org/a", "an image's name has no capitals: write \"org/a\""),
            ("Hello", "an image's name has no capitals: write \"hello\""),
            ("r.io/a:", "tag \"\": at most 128 of a-z, A-Z, 0-9, _ . -, and neither . nor - at first"),
            ("r.io/a:v1:v2", &format!("repository \"a:v1\": {PARTS}")),
            ("a@sha256:aa", "digest \"sha256:aa\": only sha256: with 64 characters of 0-9 and a-f"),
            ("r.io//a", &format!("repository \"/a\": {PARTS}")),
            ("r.test/a..b:v1", &format!("repository \"a..b\": {PARTS}")),
            ("r..io/a", "\"r..io\" is no registry, such as registry.example.com or 10.0.0.1:5000"),
            ("[::x]:5000/a", "\"[::x]:5000\" is no registry, such as registry.example.com or 10.0.0.1:5000"),
        ] {
            assert_eq!(doubt(image).as_deref(), Some(wanted), "{image}");
        }
    }

    #[test]
    fn a_registry_port_without_scheme_is_refused_with_the_advice_to_write_oci() {
        for url in ["localhost:5000/filter", "registry.example.com:5000/a:v1", "10.0.0.1:5000/a:v1", "[::1]:5000/a"] {
            assert!(reason(url).ends_with(&format!("write oci://{url}")), "{url}: {}", reason(url));
        }
    }

    #[test]
    fn what_could_never_work_is_refused() {
        let urls = [
            "ftp://h/a",
            "ws://h",
            "a b",
            " oci://r/a",
            "#%blah$#@",
            "oci://",
            "oci:r/a",
            "file://rel",
            "file:rel",
            "/abs/path",
            "http://[::1",
            "http://h/a b",
            "oci://r/a?x=y#z",
            "r/a:v1?x#y",
            "oci://r:99999/a",
            "oci://u:p@r.io/a",
            "http://",
            "http:///a.wasm",
            "http://h:0/a",
            "http://h/a%zz",
            "file:///a%2",
            "file:///opt/",
        ];
        for url in urls {
            assert!(parse(url).is_err(), "{url}");
        }
        assert!(reason("htp://h/a").contains("did you mean \"http\"?"), "{}", reason("htp://h/a"));
        assert!(reason("oci:r/a").ends_with("write oci://r/a"));
        assert_eq!(
            reason("http://h/50%.wasm"),
            "url cannot be parsed: \"%.w\" is no percent escape, write %25 for the sign itself"
        );
    }
}
