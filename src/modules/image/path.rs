//! Names in archives, as bytes: they need not be UTF-8. Pure.

/// Without slashes at the ends, empty parts and `.`; relative to the root, whatever it began with.
pub fn normal(written: &[u8], depth: usize) -> Result<Vec<u8>, String> {
    if written.contains(&0) {
        return Err("a name with a NUL".to_owned());
    }
    let parts: Vec<&[u8]> = parts(written).collect();
    if parts.contains(&b"..".as_slice()) {
        return Err("a name that leads out of its folder".to_owned());
    }
    if parts.len() > depth {
        return Err(format!("more than {depth} folders in one another"));
    }
    Ok(parts.join(&b'/'))
}

/// The parts that mean something; `..` among them.
pub fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// The last part of a normal path.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The folders that a normal path goes through, outermost first.
pub fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_below_the_root() {
        let cases = [("/a//b/./c/", "a/b/c"), ("./", ""), ("a..b", "a..b"), ("..a", "..a")];
        for (written, expected) in cases {
            assert_eq!(normal(written.as_bytes(), 5), Ok(expected.as_bytes().to_vec()));
        }
        for written in ["../a", "a/../../b", "a/..", "a\0b", "1/2/3/4/5/6"] {
            assert!(normal(written.as_bytes(), 5).is_err(), "{written}");
        }
        assert_eq!(ancestors(b"a/b/c").collect::<Vec<_>>(), [b"a".as_slice(), b"a/b"]);
        assert_eq!((base_name(b"a/b"), base_name(b"a")), (b"b".as_slice(), b"a".as_slice()));
    }
}
