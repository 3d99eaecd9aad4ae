//! `spec.url`, taken apart: which scheme, and is there a module at the end of it (Istio: R1.9).
//!
//! Stricter than Istio where a URL could never work: what Istio admits and later drops is refused here.

use std::path::PathBuf;

use crate::model::ModuleLocation;
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
        "file" if rest.starts_with('/') => Ok(ModuleLocation::File(PathBuf::from(rest))),
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

/// `host[:port]/path[:tag][@digest]`; whether the registry knows it is another room's question.
fn image(reference: &str) -> Result<ModuleLocation, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@+[]".contains(c);
    if let Some(odd) = reference.chars().find(|c| !is_allowed(*c)) {
        return Err(format!("url cannot be parsed as an image reference: it contains {odd:?}"));
    }
    let host = reference.split('/').next().unwrap_or_default();
    if host.is_empty() || reference.ends_with('/') {
        return Err("url names no image, such as oci://registry.example.com/plugin:v1".to_owned());
    }
    let has_path = reference.contains('/');
    // Without a path, what follows the colon is a tag; within brackets it is part of an address.
    if let Some((_, port)) = host.rsplit_once(':').filter(|(_, port)| has_path && !port.contains(']'))
        && !matches!(port.parse::<u16>(), Ok(1..))
    {
        return Err(format!("\"{port}\" is no port"));
    }
    Ok(ModuleLocation::Oci(reference.to_owned()))
}

fn http(url: &str) -> Result<ModuleLocation, String> {
    url::Url::parse(url).map_err(|error| format!("url cannot be parsed: {error}"))?;
    Ok(ModuleLocation::Http(url.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(url: &str) -> String {
        parse(url).unwrap_err()
    }

    #[test]
    fn a_url_without_scheme_is_an_image() {
        for image in ["test", "ghcr.io/a/b:v1", "xn--a.b/c", "ghcr.io/a/b@sha256:aa"] {
            assert_eq!(parse(image), Ok(ModuleLocation::Oci(image.into())));
        }
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
            "http://",
        ];
        for url in urls {
            assert!(parse(url).is_err(), "{url}");
        }
        assert!(reason("htp://h/a").contains("did you mean \"http\"?"), "{}", reason("htp://h/a"));
        assert!(reason("oci:r/a").ends_with("write oci://r/a"));
    }
}
