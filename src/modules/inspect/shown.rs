//! Words out of a module as status, logs and terminals may show them: printable, and of limited length. Pure.

/// Longer names are cut; the longest that a toolchain was seen to write has 70.
const NAME: usize = 80;
/// A sentence of the validator, which may quote a name.
const SENTENCE: usize = 300;

/// A name: of an import, an export, a section.
pub fn name(text: &str) -> String {
    cut(text, NAME)
}

pub fn sentence(text: &str) -> String {
    cut(text, SENTENCE)
}

/// Names joined by the separator; those over the limit are counted.
pub fn list<T: AsRef<str>>(names: &[T], most: usize, separator: &str) -> String {
    let mut shown: Vec<String> = names.iter().take(most).map(|text| name(text.as_ref())).collect();
    if names.len() > most {
        shown.push(format!("and {} more", names.len() - most));
    }
    shown.join(separator)
}

/// What a terminal would obey or hide is written as its escape: nobody's import clears a screen or reads backwards.
fn cut(text: &str, most: usize) -> String {
    let printable = |character: char| {
        let is_plain = matches!(character, '"' | '\'' | '\\');
        if is_plain { character.to_string() } else { character.escape_debug().to_string() }
    };
    let mut shown: String = text.chars().take(most).map(printable).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printable_and_short() {
        let cases = [
            ("proxy_log", "proxy_log".to_owned()),
            ("Grüße \"x\"\\'", "Grüße \"x\"\\'".to_owned()),
            ("\x1b[2J\n\u{202e}olleh", "\\u{1b}[2J\\n\\u{202e}olleh".to_owned()),
            (&"a".repeat(81), "a".repeat(80) + "…"),
            (&"a".repeat(80), "a".repeat(80)),
        ];
        for (text, expected) in cases {
            assert_eq!(name(text), expected);
        }
        assert_eq!(list(&["a", "b", "c"], 2, " "), "a b and 1 more");
        assert_eq!(list(&["a", "b"], 2, " "), "a b");
    }
}
