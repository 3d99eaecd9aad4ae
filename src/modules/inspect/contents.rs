//! What a core module consists of, once it has been validated to its last byte. Pure.

use std::fmt;

use wasmparser::types::{EntityType, TypesRef};
use wasmparser::{
    CustomSectionReader, Data, DataKind, Element, ElementItems, ElementKind, Parser, Payload, TypeRef, Validator,
    WasmFeatures,
};

use super::sections::{Producer, module_name, producers};
use super::start::{Functions, Start, memory_room, overflow};
use super::{shape, shown};

/// An import or export: a function with its type, or what else it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// `i32 i32 -> i32`, spelled as Envoy's messages do.
    Function(String),
    /// With its size at the start, in pages of 64 KiB.
    Memory {
        pages: u64,
    },
    Table,
    Global,
    Tag,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(signature) => f.write_str(signature),
            Self::Memory { .. } => f.write_str("memory"),
            Self::Table => f.write_str("table"),
            Self::Global => f.write_str("global"),
            Self::Tag => f.write_str("tag"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    pub module: String,
    pub name: String,
    pub item: Item,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub name: String,
    pub item: Item,
}

/// The outside of a module: what it asks for, what it offers, what is written beside the code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub imports: Vec<Import>,
    /// In the module's order, which decides which ABI marker counts.
    pub exports: Vec<Export>,
    /// A start section names a function that runs at instantiation.
    pub has_start: bool,
    /// What that function does to imports.
    pub start: Start,
    pub custom_sections: Vec<String>,
    /// By the name section; empty without one.
    pub name: String,
    /// Languages and tools, by the producers section.
    pub producers: Vec<Producer>,
    /// What keeps it from loading into any Envoy, whatever its ABI: one sentence each.
    pub faults: Vec<String>,
    /// The largest memory at the start, exported or not, in pages.
    pub memory_pages: u64,
    /// Bytes of functions, which Envoy compiles.
    pub code_size: usize,
}

impl Contents {
    /// Validates the whole module. The error says what is wrong, and at which byte.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let said = |error: wasmparser::BinaryReaderError| shown::sentence(&error.to_string());
        let types = Validator::new_with_features(features()).validate_all(bytes).map_err(said)?;
        let types = types.as_ref();
        let mut contents = Self::of_types(types);
        let mut functions = Functions::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(said)? {
                Payload::ImportSection(imports) => {
                    let imports = imports.into_imports().map_while(Result::ok);
                    let is_function =
                        |import: &wasmparser::Import<'_>| matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
                    functions.imported =
                        imports.filter(is_function).map(|import| (import.module, import.name)).collect();
                }
                Payload::CodeSectionStart { size, .. } => contents.code_size = size as usize,
                Payload::StartSection { func, .. } => functions.start = Some(func),
                Payload::CodeSectionEntry(body) if functions.start.is_some() => functions.bodies.push(body),
                Payload::CustomSection(section) => contents.take_custom(&section),
                Payload::DataSection(segments) => {
                    let mut segments = segments.into_iter().map_while(Result::ok);
                    contents.faults.extend(segments.find_map(|segment| data_fault(types, &segment)));
                }
                Payload::ElementSection(segments) => {
                    let mut segments = segments.into_iter().map_while(Result::ok);
                    contents.faults.extend(segments.find_map(|segment| element_fault(types, &segment)));
                }
                _ => {}
            }
        }
        contents.has_start = functions.start.is_some();
        contents.start = functions.start();
        contents.faults.extend(start_fault(&contents.start));
        Ok(contents)
    }

    fn take_custom(&mut self, section: &CustomSectionReader<'_>) {
        self.custom_sections.push(section.name().to_owned());
        match section.name() {
            "producers" => self.producers = producers(section),
            "name" => match module_name(section) {
                Some(name) => self.name = name,
                None => self.faults.push(
                    "its name section is damaged, and Envoy reads it: remove it, as `wasm-tools strip` does".to_owned(),
                ),
            },
            _ => {}
        }
    }

    fn of_types(types: TypesRef<'_>) -> Self {
        let imports = types.core_imports().into_iter().flatten().map(|(module, name, entity)| Import {
            module: module.to_owned(),
            name: name.to_owned(),
            item: item(types, entity),
        });
        let exports = types
            .core_exports()
            .into_iter()
            .flatten()
            .map(|(name, entity)| Export { name: name.to_owned(), item: item(types, entity) });
        let pages = (0..types.memory_count()).map(|index| types.memory_at(index).initial);
        Self {
            imports: imports.collect(),
            exports: exports.collect(),
            memory_pages: pages.max().unwrap_or_default(),
            faults: shape::faults(types),
            ..Self::default()
        }
    }

    /// The type of an exported function.
    pub fn function(&self, name: &str) -> Option<&str> {
        self.exports.iter().find(|export| export.name == name).and_then(|export| match &export.item {
            Item::Function(signature) => Some(signature.as_str()),
            _ => None,
        })
    }

    /// Host and module see the same memory: it is exported, under whatever name, or imported (Envoy then makes it).
    pub fn has_shared_memory(&self) -> bool {
        let exported = self.exports.iter().map(|export| &export.item);
        let imported = self.imports.iter().map(|import| &import.item);
        exported.chain(imported).any(|item| matches!(item, Item::Memory { .. }))
    }
}

fn data_fault(types: TypesRef<'_>, segment: &Data<'_>) -> Option<String> {
    let DataKind::Active { memory_index, offset_expr } = &segment.kind else { return None };
    overflow("data segment", offset_expr, segment.data.len() as u64, memory_room(types, *memory_index))
}

fn element_fault(types: TypesRef<'_>, segment: &Element<'_>) -> Option<String> {
    let ElementKind::Active { table_index, offset_expr } = &segment.kind else { return None };
    let count = match &segment.items {
        ElementItems::Functions(functions) => functions.count(),
        ElementItems::Expressions(_, expressions) => expressions.count(),
    };
    let room = types.table_at(table_index.unwrap_or_default()).initial;
    overflow("segment of its table", offset_expr, u64::from(count), room)
}

fn start_fault(start: &Start) -> Option<String> {
    match start {
        Start::Calls(import) => Some(format!(
            "its start section calls {import}, on which Envoy would crash: run that code in _initialize instead"
        )),
        Start::Traps => Some("cannot start: its start section traps".to_owned()),
        Start::Quiet | Start::MayCall(_) => None,
    }
}

/// What V8 in Envoy 1.36 to 1.40 compiles (probed on 1.36.4 and 1.40.0), legacy exceptions included, wide arithmetic not.
fn features() -> WasmFeatures {
    WasmFeatures::default().union(WasmFeatures::LEGACY_EXCEPTIONS).difference(WasmFeatures::WIDE_ARITHMETIC)
}

fn item(types: TypesRef<'_>, entity: EntityType) -> Item {
    match entity {
        EntityType::Func(id) | EntityType::FuncExact(id) => {
            let function = types[id].unwrap_func();
            Item::Function(format!("{} -> {}", spell(function.params()), spell(function.results())))
        }
        EntityType::Memory(memory) => Item::Memory { pages: memory.initial },
        EntityType::Table(_) => Item::Table,
        EntityType::Global(_) => Item::Global,
        EntityType::Tag(_) => Item::Tag,
    }
}

fn spell(types: &[wasmparser::ValType]) -> String {
    if types.is_empty() {
        return "void".to_owned();
    }
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_taken_apart() {
        let bytes = wat::parse_str(
            r#"(module
                (import "env" "log" (func (param i32 i64) (result i32)))
                (memory (export "mem") 3)
                (func $f (export "run"))
                (start $f)
                (@custom "note" "x"))"#,
        )
        .unwrap();
        let contents = Contents::read(&bytes).unwrap();
        let expected = Contents {
            imports: vec![Import {
                module: "env".to_owned(),
                name: "log".to_owned(),
                item: Item::Function("i32 i64 -> i32".to_owned()),
            }],
            exports: vec![
                Export { name: "mem".to_owned(), item: Item::Memory { pages: 3 } },
                Export { name: "run".to_owned(), item: Item::Function("void -> void".to_owned()) },
            ],
            has_start: true,
            custom_sections: vec!["note".to_owned(), "name".to_owned()],
            memory_pages: 3,
            code_size: 3,
            ..Contents::default()
        };
        assert_eq!(contents, expected);
    }

    #[test]
    fn a_truncated_module_is_not_believed() {
        let bytes = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "f") nop nop nop))"#).unwrap();
        for length in 8..bytes.len() {
            let whole_sections_only = Contents::read(&bytes[..length]);
            assert!(whole_sections_only.as_ref().is_err() || whole_sections_only.unwrap().function("f").is_none());
        }
    }
}
