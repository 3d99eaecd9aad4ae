//! What a registry asks for with 401: the `WWW-Authenticate` headers. Pure.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// How to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// A token of this token server.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// Headers are short; a longer one is somebody's joke.
const MAX_HEADER: usize = 8192;

/// The best way in that the headers offer: tokens before passwords.
pub fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<_> = values.filter(|value| value.len() <= MAX_HEADER).flat_map(parse).collect();
    let bearer = all.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.or(all.first()).cloned()
}

/// All challenges of one header: `scheme key=value, key="value", scheme …`.
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let word_end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, after) = take_value(value.trim_start());
            if let Some((_, parameters)) = challenges.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            challenges.push((word.to_ascii_lowercase(), Vec::new()));
            rest = after;
        }
        let next = rest.trim_start_matches([' ', ',', '\t']);
        // Nothing taken: what stands here is no challenge.
        if next.len() == header.len() || (word.is_empty() && next == rest) {
            break;
        }
        rest = next;
    }
    challenges.into_iter().filter_map(|(scheme, parameters)| known(&scheme, &parameters)).collect()
}

fn known(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value = |key: &str| parameters.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: value("realm")?, service: value("service") }),
        _ => None,
    }
}

fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        challenge(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn what_registries_send_is_understood() {
        let docker = r#"Bearer realm="https://auth.test/token",service="r.test",scope="repository:a/b:pull,push""#;
        assert_eq!(of(&[docker]), bearer("https://auth.test/token", Some("r.test")));
        assert_eq!(of(&[r#"Basic realm="a, b""#]), Some(Challenge::Basic));
        assert_eq!(of(&["basic"]), Some(Challenge::Basic));
        assert_eq!(of(&[r#"BEARER realm="https://a" , error="invalid_token""#]), bearer("https://a", None));
        assert_eq!(of(&["Bearer realm=https://a,service=s"]), bearer("https://a", Some("s")));
        assert_eq!(of(&[r#"Bearer realm="a\"b\\c""#]), bearer(r#"a"b\c"#, None));
    }

    #[test]
    fn tokens_go_before_passwords_and_the_unknown_is_passed_over() {
        assert_eq!(of(&["Basic realm=x", "Bearer realm=y"]), bearer("y", None));
        assert_eq!(of(&[r#"Negotiate, Basic realm="x", Bearer realm="y""#]), bearer("y", None));
        assert_eq!(of(&["Negotiate abc=="]), None);
        assert_eq!((of(&[]), of(&[""]), of(&["Bearer service=s"])), (None, None, None));
    }

    #[test]
    fn no_header_makes_it_run_forever() {
        for header in ["=", "==", "a==b", ",,,", "\"", "Bearer realm=\"", "Bearer =x", "\\", "Bearer realm=\"\\"] {
            let _nothing_to_compare = of(&[header]);
        }
        assert_eq!(of(&[&"Basic ".repeat(5000)]), None);
    }
}
