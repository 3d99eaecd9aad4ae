//! A client's words about what it refuses, as they may be kept, logged and shown.
//!
//! Pure. Envoy quotes scripts: the beginning of one stands for its name, and what it stumbled over ends the message. A
//! script may hold keys, and is shown by nothing else here either.

use super::delivery::{beginning, bounded};

/// Before the beginning of a script, in Lua's errors.
const SCRIPT: &str = "[string \"";
/// After it; the line follows.
const SCRIPT_END: &str = "\"]:";
/// Lua quotes no more of a script than fits in 60 bytes, all told.
const MOST_QUOTED: usize = 60;
/// Before a piece of the script, which may be a text of any length; with it the message ends.
const NEAR: &str = " near '";

/// The words without what they quote of scripts, and not too many of them.
pub(super) fn presentable(words: &str) -> String {
    let words = bounded(words);
    let Some((before, mut rest)) = words.split_once(SCRIPT) else { return words.to_owned() };
    let mut said = before.to_owned();
    loop {
        said.push_str(SCRIPT);
        said.push('…');
        // The script may hold what ends it.
        let Some(end) = beginning(rest, MOST_QUOTED).rfind(SCRIPT_END) else { return said + "\"]" };
        rest = &rest[end..];
        let Some((message, another)) = rest.split_once(SCRIPT) else { break };
        said.push_str(message);
        rest = another;
    }
    match rest.split_once(NEAR) {
        Some((message, _)) => said + message + NEAR + "…'",
        None => said + rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_script_is_not_quoted_to_whoever_reads_the_log() {
        for (words, shown) in [
            (
                r#"script load error: [string "local key = "hunter2" end"]:1: '=' expected near 'end'"#,
                r#"script load error: [string "…"]:1: '=' expected near '…'"#,
            ),
            (
                r#"script load error: [string "local t = {["a"]:b, ["hunter2"]: this..."]:1: unexpected symbol near ':'"#,
                r#"script load error: [string "…"]:1: unexpected symbol near '…'"#,
            ),
            (
                r#"[string "error("hunter2")"]:1: nil, and then it was called from there: [string "error("hunter2")"]:2: x near 'hunter2
hunter2'"#,
                r#"[string "…"]:1: nil, and then it was called from there: [string "…"]:2: x near '…'"#,
            ),
            // Neither a script's name nor the end of one: nothing of it is believed.
            (r#"[string "hunter2"#, r#"[string "…"]"#),
            (r#"[string "é hunter2 hunter2 hunter2 hunter2 hunter2 hunter2 hunter2 hunter2"]: x"#, r#"[string "…"]"#),
        ] {
            assert_eq!(presentable(words), shown);
        }
    }

    #[test]
    fn other_words_are_told_as_they_are() {
        for words in ["", "Unable to create Wasm plugin shop/auth", "cannot bind '127.0.0.1:80' near 'x'"] {
            assert_eq!(presentable(words), words);
        }
        assert_eq!(presentable(&"é".repeat(1 << 20)).len(), 4096);
    }
}
