//! What stands beside a module's code: who made it, what it is called. Pure.

use wasmparser::{BinaryReader, CustomSectionReader, KnownCustom, ProducersSectionReader};

/// More than this are left out: toolchains write three.
const MAX_PRODUCERS: usize = 16;

/// `language: Rust`, `processed-by: rustc 1.90.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// `language`, `processed-by` or `sdk`.
    pub field: String,
    pub name: String,
    pub version: String,
}

/// A damaged list is read as far as it goes: nothing depends on it.
pub fn producers(section: &CustomSectionReader<'_>) -> Vec<Producer> {
    let KnownCustom::Producers(reader) = section.as_known() else { return Vec::new() };
    all(reader).take(MAX_PRODUCERS).collect()
}

fn all(reader: ProducersSectionReader<'_>) -> impl Iterator<Item = Producer> {
    reader.into_iter().map_while(Result::ok).flat_map(|field| {
        field.values.into_iter().map_while(Result::ok).map(move |value| Producer {
            field: field.name.to_owned(),
            name: value.name.to_owned(),
            version: value.version.to_owned(),
        })
    })
}

/// The ids of the name section's parts.
const MODULE_NAME: u8 = 0;
const FUNCTION_NAMES: u8 = 1;

/// What the name section calls the module. Envoy reads that section, too, and refuses a module whose functions' names
/// it cannot follow: `None` is such a one.
pub fn module_name(section: &CustomSectionReader<'_>) -> Option<String> {
    let mut reader = section.data_reader();
    let mut name = String::new();
    while !reader.eof() {
        let id = reader.read_u8().ok()?;
        let size = reader.read_var_u32().ok()?;
        let content = reader.read_bytes(size as usize).ok()?;
        match id {
            MODULE_NAME => name = called(content).unwrap_or_default(),
            FUNCTION_NAMES => function_names(content)?,
            _ => {}
        }
    }
    Some(name)
}

fn called(content: &[u8]) -> Option<String> {
    Some(BinaryReader::new(content, 0).read_string().ok()?.to_owned())
}

/// Names need not be UTF-8, but the list must end where its section does.
fn function_names(content: &[u8]) -> Option<()> {
    let mut reader = BinaryReader::new(content, 0);
    for _ in 0..reader.read_var_u32().ok()? {
        reader.read_var_u32().ok()?;
        let length = reader.read_var_u32().ok()?;
        reader.read_bytes(length as usize).ok()?;
    }
    reader.eof().then_some(())
}
