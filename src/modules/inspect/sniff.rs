//! What a file is, by its first bytes. Pure.

/// What the bytes are. Only a core module can be a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A WebAssembly core module, version 1.
    CoreModule,
    /// A component (the component model's binary format).
    Component,
    /// Begins as Wasm does, in a version that nobody has published.
    UnknownWasm,
    Empty,
    Gzip,
    Zstd,
    Xz,
    Zip,
    Tar,
    /// A native program or library.
    Elf,
    Html,
    /// An error, an image's manifest: whatever a server says in JSON.
    Json,
    GitLfsPointer,
    /// WebAssembly's text format.
    Wat,
    Text,
    Unknown,
}

impl Format {
    /// Looks at magic numbers only: whether a module is whole is for validation to say.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Empty;
        }
        if let Some(rest) = bytes.strip_prefix(b"\0asm") {
            return wasm(rest);
        }
        MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, format)| *format).unwrap_or_else(|| {
            match bytes.get(257..262) {
                Some(b"ustar") => Self::Tar,
                _ if is_wat(bytes) => Self::Wat,
                _ => text(bytes),
            }
        })
    }

    /// In words, with an article; also the name in JSON.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::CoreModule => "a WebAssembly module",
            Self::Component => "a WebAssembly component",
            Self::UnknownWasm => "WebAssembly of an unknown version",
            Self::Empty => "an empty file",
            Self::Gzip => "a gzip file",
            Self::Zstd => "a zstd file",
            Self::Xz => "an xz file",
            Self::Zip => "a zip archive",
            Self::Tar => "a tar archive",
            Self::Elf => "a native program (ELF)",
            Self::Html => "an HTML page",
            Self::Json => "a JSON document",
            Self::GitLfsPointer => "a Git LFS pointer",
            Self::Wat => "WebAssembly text",
            Self::Text => "text",
            Self::Unknown => "a file of an unknown kind",
        }
    }

    /// Why it is of no use, and what to do. Not for a core module.
    pub fn instead_of_module(self) -> String {
        format!("not a WebAssembly module but {}: {}", self.describe(), self.advice())
    }

    /// What to do instead; empty for a core module. Said of URLs, files and images alike.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::CoreModule => "",
            Self::Component => {
                "Envoy takes core modules: build for wasm32-wasip1, not wasm32-wasip2, and do not componentize"
            }
            Self::UnknownWasm => "build a core module of version 1",
            Self::Empty => "look at what wrote it",
            Self::Gzip | Self::Zstd | Self::Xz => "publish the unpacked .wasm file",
            Self::Zip | Self::Tar => "publish the .wasm file that is in it",
            Self::Elf => "build for a wasm32 target",
            Self::Html => "look at it: this may be an error page or a login page",
            Self::Json => "look at it: this may be an error, or the manifest of an image (name that as oci://…)",
            Self::GitLfsPointer => "publish the file that it points to (git lfs pull)",
            Self::Wat => "translate it to the binary format (wat2wasm)",
            Self::Text | Self::Unknown => "look at it, and at what wrote it",
        }
    }
}

const MAGIC: [(&[u8], Format); 6] = [
    (b"\xfd7zXZ\0", Format::Xz),
    (b"\x1f\x8b", Format::Gzip),
    (b"\x28\xb5\x2f\xfd", Format::Zstd),
    (b"PK\x03\x04", Format::Zip),
    (b"\x7fELF", Format::Elf),
    (b"version https://git-lfs.github.com/spec", Format::GitLfsPointer),
];

/// The four bytes after the magic: version, then layer (0 = core, 1 = component).
fn wasm(rest: &[u8]) -> Format {
    match rest.get(..4) {
        Some([_, _, 1, 0]) => Format::Component,
        Some([1, 0, 0, 0]) | None => Format::CoreModule,
        Some(_) => Format::UnknownWasm,
    }
}

/// A licence and a few words more may stand before the module.
const WAT_HEAD: usize = 64 << 10;

/// Whether a module comes after white space and comments.
fn is_wat(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(WAT_HEAD)];
    let mut rest = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(head);
    loop {
        rest = rest.trim_ascii_start();
        let end: &[u8] = match rest {
            [b';', b';', ..] => b"\n",
            [b'(', b';', ..] => b";)",
            _ => return rest.starts_with(b"(module"),
        };
        let Some(length) = rest[2..].windows(end.len()).position(|window| window == end) else { return false };
        rest = &rest[2 + length + end.len()..];
    }
}

fn text(bytes: &[u8]) -> Format {
    // A cut through a multi-byte character is no reason to call a text binary.
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).to_lowercase();
    let head = head.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    if head.starts_with("<!doctype html") || head.starts_with("<html") {
        Format::Html
    } else if head.starts_with(['{', '[']) && !head.contains('\0') {
        Format::Json
    } else if head.contains('\0') || head.trim_end_matches('\u{fffd}').contains('\u{fffd}') {
        Format::Unknown
    } else {
        Format::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_what_it_is_and_webassembly_text_behind_comments_too() {
        let tar = [vec![b'a'; 257], b"ustar\x0000".to_vec(), vec![0; 250]].concat();
        let cases: [(&[u8], Format); 22] = [
            (b"\xfd7zXZ\0\0\x04", Format::Xz),
            (b" {\"schemaVersion\": 2}", Format::Json),
            (b"", Format::Empty),
            (b"\0asm\x01\0\0\0", Format::CoreModule),
            (b"\0asm", Format::CoreModule),
            (b"\0asm\x0d\0\x01\0", Format::Component),
            (b"\0asm\x02\0\0\0", Format::UnknownWasm),
            (b"\x1f\x8b\x08\0", Format::Gzip),
            (b"\x28\xb5\x2f\xfd\0", Format::Zstd),
            (b"PK\x03\x04", Format::Zip),
            (&tar, Format::Tar),
            (b"\x7fELF\x02", Format::Elf),
            (b"\n<!DOCTYPE html><html>", Format::Html),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", Format::GitLfsPointer),
            (b"(module)", Format::Wat),
            (b";; a plugin\n;; of ours\n(module)", Format::Wat),
            (b"\n (; (c) ;)\n\t(module $a)", Format::Wat),
            (b";; no more than a comment", Format::Text),
            (b"(; not closed (module)", Format::Text),
            ("grüße".as_bytes(), Format::Text),
            (b"\xff\xfe\x00\x01", Format::Unknown),
            (&"grüße".as_bytes()[..3], Format::Text),
        ];
        for (bytes, format) in cases {
            assert_eq!(Format::of(bytes), format, "{bytes:?}");
        }
    }
}
