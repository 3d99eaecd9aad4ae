//! What of a module's outside Envoy cannot take, whatever its release and the module's ABI. Pure.
//!
//! Each rule was seen on Envoy 1.36.4, 1.37.0, 1.39.3 and 1.40.0; `tests/it/real_verdicts.rs` asks them again.

use wasmparser::types::{EntityType, TypesRef};
use wasmparser::{RefType, ValType};

use super::shown;

/// More entries than this in all tables, and V8 refuses the module, or ends for want of memory.
const MAX_TABLE_ENTRIES: u64 = 10_000_000;
/// More than this are counted, not named.
const MAX_NAMED: usize = 3;

/// One sentence per fault.
pub fn faults(types: TypesRef<'_>) -> Vec<String> {
    [unspeakable(types), unmakeable(types), too_many_entries(types)].into_iter().flatten().collect()
}

/// Envoy asks V8 for the type of every import and export, through an interface that ends the process where it has no
/// word for one.
fn unspeakable(types: TypesRef<'_>) -> Option<String> {
    let imports = types.core_imports().into_iter().flatten().map(|(module, name, entity)| {
        let name = || format!("import {}.{}", shown::name(module), shown::name(name));
        (!is_speakable(types, entity)).then(name)
    });
    let exports = types
        .core_exports()
        .into_iter()
        .flatten()
        .map(|(name, entity)| (!is_speakable(types, entity)).then(|| format!("export {}", shown::name(name))));
    let names: Vec<String> = imports.chain(exports).flatten().collect();
    (!names.is_empty()).then(|| {
        format!(
            "types that Envoy would crash on (only numbers, funcref and externref are safe to import or export): {}",
            shown::list(&names, MAX_NAMED, ", ")
        )
    })
}

fn is_speakable(types: TypesRef<'_>, entity: EntityType) -> bool {
    match entity {
        EntityType::Func(id) | EntityType::FuncExact(id) => {
            let function = types[id].unwrap_func();
            function.params().iter().chain(function.results()).all(|value| is_plain(*value))
        }
        EntityType::Table(table) => is_plain(ValType::Ref(table.element_type)),
        EntityType::Global(global) => is_plain(global.content_type),
        EntityType::Memory(_) => true,
        EntityType::Tag(_) => false,
    }
}

fn is_plain(value: ValType) -> bool {
    match value {
        ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64 => true,
        ValType::V128 => false,
        ValType::Ref(reference) => reference == RefType::FUNCREF || reference == RefType::EXTERNREF,
    }
}

/// Envoy makes one plain memory and one plain table for a module that imports them.
fn unmakeable(types: TypesRef<'_>) -> Option<String> {
    let (mut memories, mut tables, mut odd) = (0, 0, 0);
    for (_, _, entity) in types.core_imports().into_iter().flatten() {
        match entity {
            EntityType::Memory(memory) => {
                memories += 1;
                odd += u32::from(memory.memory64 || memory.shared);
            }
            EntityType::Table(table) => {
                tables += 1;
                odd += u32::from(table.table64);
            }
            _ => {}
        }
    }
    let is_fine = memories <= 1 && tables <= 1 && odd == 0;
    (!is_fine).then(|| {
        "imports memories or tables that Envoy does not make: it gives one 32-bit memory that is not shared, and one \
         32-bit table"
            .to_owned()
    })
}

fn too_many_entries(types: TypesRef<'_>) -> Option<String> {
    let entries = (0..types.table_count()).fold(0_u64, |sum, index| sum.saturating_add(types.table_at(index).initial));
    (entries > MAX_TABLE_ENTRIES)
        .then(|| format!("its tables begin with {entries} entries, and Envoy's V8 has room for {MAX_TABLE_ENTRIES}"))
}
