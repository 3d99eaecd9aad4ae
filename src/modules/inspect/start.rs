//! What happens before Envoy can speak to a module: the start section, and the segments that are laid out first. Pure.
//!
//! Envoy gives a module no memory and no context until it has started. An import called by the start section ends the
//! Envoy process (1.36.4, 1.37.0, 1.39.3, 1.40.0), but for the three that look at neither.

use std::collections::BTreeSet;

use wasmparser::types::TypesRef;
use wasmparser::{ConstExpr, FunctionBody, Operator};

use super::shown;

/// Imports that a start section may call.
const HARMLESS: [&str; 3] = ["sched_yield", "emscripten_notify_memory_growth", "pthread_equal"];
/// Imports that are called where a program gives up, which a sound one never does.
const LAST_WORDS: [&str; 2] = ["proc_exit", "abort"];
/// Calls inside calls that are followed to find out what is certain to happen.
const MAX_DEPTH: usize = 64;

/// The functions of a module with a start section.
#[derive(Default)]
pub struct Functions<'a> {
    /// `module.name`, in the order of their indexes.
    pub imported: Vec<(&'a str, &'a str)>,
    pub bodies: Vec<FunctionBody<'a>>,
    pub start: Option<u32>,
}

/// What the start section does to imports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Nothing, or there is none.
    #[default]
    Quiet,
    /// Calls this import in any case.
    Calls(String),
    /// Ends in a trap in any case.
    Traps,
    /// Has a way to this import.
    MayCall(String),
}

impl Functions<'_> {
    pub fn start(&self) -> Start {
        let Some(start) = self.start else { return Start::Quiet };
        match self.surely(start, 0, &mut BTreeSet::new()) {
            Walk::Calls(index) => Start::Calls(self.import(index)),
            Walk::Traps => Start::Traps,
            Walk::Returns | Walk::Unknown => {
                self.reachable(start).map_or(Start::Quiet, |index| Start::MayCall(self.import(index)))
            }
        }
    }

    fn import(&self, index: u32) -> String {
        let (module, name) = self.imported[index as usize];
        format!("{}.{}", shown::name(module), shown::name(name))
    }

    fn body(&self, index: u32) -> Option<&FunctionBody<'_>> {
        self.bodies.get((index as usize).checked_sub(self.imported.len())?)
    }

    fn is_harmless(&self, index: u32) -> bool {
        self.imported.get(index as usize).is_some_and(|(_, name)| HARMLESS.contains(name))
    }

    /// Follows a function up to its first decision. `returning` are those that were followed to their end, so that each
    /// is read once: anything else ends the whole walk.
    fn surely(&self, function: u32, depth: usize, returning: &mut BTreeSet<u32>) -> Walk {
        if returning.contains(&function) {
            return Walk::Returns;
        }
        let Some(body) = self.body(function) else {
            return if self.is_harmless(function) { Walk::Returns } else { Walk::Calls(function) };
        };
        let Ok(operators) = body.get_operators_reader() else { return Walk::Unknown };
        for operator in operators {
            match operator {
                Ok(Operator::Call { .. }) if depth == MAX_DEPTH => return Walk::Unknown,
                Ok(Operator::Call { function_index }) => match self.surely(function_index, depth + 1, returning) {
                    Walk::Returns => {}
                    other => return other,
                },
                Ok(Operator::Unreachable) => return Walk::Traps,
                Ok(operator) if is_decision(&operator) => return Walk::Unknown,
                Ok(_) => {}
                Err(_) => return Walk::Unknown,
            }
        }
        returning.insert(function);
        Walk::Returns
    }

    /// An import that calls can lead to; those through tables are not followed.
    fn reachable(&self, start: u32) -> Option<u32> {
        let (mut seen, mut waiting) = (BTreeSet::from([start]), vec![start]);
        while let Some(function) = waiting.pop() {
            let Some(body) = self.body(function) else {
                let is_last_word = LAST_WORDS.contains(&self.imported[function as usize].1);
                if self.is_harmless(function) || is_last_word {
                    continue;
                }
                return Some(function);
            };
            let operators = body.get_operators_reader().into_iter().flatten().flatten();
            waiting.extend(operators.filter_map(|operator| called(&operator)).filter(|callee| seen.insert(*callee)));
        }
        None
    }
}

enum Walk {
    Calls(u32),
    Traps,
    Returns,
    Unknown,
}

fn called(operator: &Operator<'_>) -> Option<u32> {
    match operator {
        Operator::Call { function_index } | Operator::ReturnCall { function_index } => Some(*function_index),
        _ => None,
    }
}

/// After it, what stands next in the code need not be what happens next.
fn is_decision(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::If { .. }
            | Operator::Br { .. }
            | Operator::BrIf { .. }
            | Operator::BrTable { .. }
            | Operator::BrOnNull { .. }
            | Operator::BrOnNonNull { .. }
            | Operator::BrOnCast { .. }
            | Operator::BrOnCastFail { .. }
            | Operator::Return
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::ReturnCallRef { .. }
            | Operator::CallIndirect { .. }
            | Operator::CallRef { .. }
            | Operator::Try { .. }
            | Operator::TryTable { .. }
            | Operator::Throw { .. }
            | Operator::ThrowRef
            | Operator::Rethrow { .. }
    )
}

/// A segment that is laid out before the module starts, and does not fit where it goes.
pub fn overflow(what: &str, offset: &ConstExpr<'_>, length: u64, room: u64) -> Option<String> {
    let end = constant(offset)?.checked_add(length);
    end.is_none_or(|end| end > room).then(|| {
        let end = end.map_or_else(|| "beyond all bounds".to_owned(), |end| format!("at {end}"));
        format!("cannot start: a {what} ends {end}, and there is room for {room}")
    })
}

fn constant(expression: &ConstExpr<'_>) -> Option<u64> {
    let mut operators = expression.get_operators_reader().into_iter();
    let value = match operators.next()?.ok()? {
        Operator::I32Const { value } => u64::from(value.cast_unsigned()),
        Operator::I64Const { value } => value.cast_unsigned(),
        _ => return None,
    };
    matches!(operators.next()?.ok()?, Operator::End).then_some(value)
}

/// In bytes.
pub fn memory_room(types: TypesRef<'_>, index: u32) -> u64 {
    let memory = types.memory_at(index);
    memory.initial.saturating_mul(1 << memory.page_size_log2.unwrap_or(16))
}

#[cfg(test)]
mod tests {
    use crate::modules::inspect::{Contents, start::Start};

    const IMPORTS: &str = r#"(import "env" "log" (func $log)) (import "env" "abort" (func $abort))
        (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))"#;

    fn start(functions: &str) -> Start {
        let text = format!("(module {IMPORTS} {functions} (start $s))");
        Contents::read(&wat::parse_str(text).unwrap()).unwrap().start
    }

    #[test]
    fn what_is_certain_to_happen_is_told_from_what_may() {
        let calls = || Start::Calls("env.log".to_owned());
        let may = || Start::MayCall("env.log".to_owned());
        let cases = [
            ("(func $s)", Start::Quiet),
            ("(func $s (drop (call $yield)))", Start::Quiet),
            ("(func $s call $log)", calls()),
            ("(func $s block (drop (call $yield)) loop call $f end end) (func $f call $log)", calls()),
            ("(func $s unreachable)", Start::Traps),
            ("(func $s (if (i32.const 0) (then call $log)))", may()),
            ("(func $s return_call $f) (func $f call $log)", may()),
            ("(func $s call $s call $log)", may()),
            ("(func $s (if (i32.const 0) (then call $abort)))", Start::Quiet),
            ("(func $s (if (i32.const 0) (then call $f))) (func $f call $s)", Start::Quiet),
        ];
        for (functions, expected) in cases {
            assert_eq!(start(functions), expected, "{functions}");
        }
    }

    #[test]
    fn a_start_section_whose_calls_double_at_every_level_is_inspected_to_an_end() {
        let level = |number| format!("(func $f{number} call $f{0} call $f{0})", number + 1);
        let levels: String = (0..60).map(level).collect();
        let end = |last: &str| start(&format!("{levels} (func $f60 {last}) (func $s call $f0)"));
        assert_eq!(end("nop"), Start::Quiet);
        assert_eq!(end("call $log"), Start::Calls("env.log".to_owned()));
    }
}
