//! What somebody may have meant. Used wherever a name is not known.

/// `, did you mean "…"?` where one of `known` is close to `text`, else nothing.
pub fn did_you_mean(text: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let text = text.to_lowercase();
    let likeness = |candidate: &str| strsim::jaro_winkler(&text, &candidate.to_lowercase());
    known
        .into_iter()
        .map(|candidate| (likeness(candidate.as_ref()), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| format!(", did you mean \"{}\"?", candidate.as_ref()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_offered_and_none_where_all_are_far() {
        assert_eq!(did_you_mean("selctor", ["spec", "selector"]), ", did you mean \"selector\"?");
        assert_eq!(did_you_mean("authn", ["AUTHZ", "AUTHN"]), ", did you mean \"AUTHN\"?");
        assert_eq!(did_you_mean("bogus", ["selector", "url"]), "");
    }
}
