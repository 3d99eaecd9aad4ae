//! The shapes of names: Kubernetes objects, labels, environment variables. Pure questions about text.

/// An RFC 1123 label, as namespaces are: up to 63 of `a-z`, `0-9`, `-`, beginning and ending without a dash.
pub(super) fn is_dns_label(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_allowed) && !text.starts_with('-') && !text.ends_with('-')
}

/// Labels joined by dots, at most 253 characters, as most objects' names are.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(is_allowed) && !part.starts_with('-') && !part.ends_with('-');
    text.len() <= 253 && text.split('.').all(is_part)
}

/// A host name: as a subdomain, but upper case and underscores are in use, and a last dot is allowed.
pub(super) fn is_host_name(text: &str) -> bool {
    let plain = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase().replace('_', "x");
    // All digits and dots is an address that was mistyped, not a name.
    is_dns_subdomain(&plain) && !plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// What a label's value may be: empty, or up to 63 of letters, digits, `-`, `_`, `.`, with an alphanumeric at both ends.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified_name(text)
}

/// What a label's key may be: a name, or `prefix/name` with a DNS subdomain in front.
pub(super) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_qualified_name(name),
        None => is_qualified_name(text),
    }
}

fn is_qualified_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let has_alphanumeric_ends = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(is_allowed) && has_alphanumeric_ends
}

/// What C and most shells take as a variable's name.
pub(super) fn is_c_identifier(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(is_allowed) && !text.starts_with(|first: char| first.is_ascii_digit()) && !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_shapes_that_kubernetes_gives_them() {
        assert!(is_dns_label("shop-1") && !is_dns_label("shop.a") && !is_dns_label("Shop") && !is_dns_label(""));
        assert!(is_dns_subdomain("auth.v2") && !is_dns_subdomain("auth..v2") && !is_dns_subdomain("a_b"));
        assert!(!is_dns_subdomain(&"a".repeat(254)));
        assert!(is_label_key("app.kubernetes.io/name") && is_label_key("App_1") && !is_label_key("a b"));
        assert!(is_label_value("") && is_label_value("v1.2") && !is_label_value("-x"));
        assert!(is_c_identifier("_A1") && !is_c_identifier("1A") && !is_c_identifier("A-B"));
        assert!(is_host_name("my_Host.local.") && !is_host_name("10.0.0.300") && !is_host_name("a b"));
    }
}
