//! Envoy's own field rules, as its descriptors carry them (`validate.rules`): what an Envoy would refuse a message for.
//!
//! Comes in: the descriptor of a message type. Goes out: its [`MessageRules`], read by reflection once. A kind of rule
//! that is not known here is passed over: better a NACK too many than a good message refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage as _, Value};
use regex::Regex;

/// What a message must fulfil.
#[derive(Debug, Default)]
pub(super) struct MessageRules {
    /// By field number.
    pub fields: BTreeMap<u32, FieldRules>,
    /// Names of the oneofs of which some field must be set.
    pub required_oneofs: Vec<String>,
}

/// What one field must fulfil; also an item of a list, a key or a value of a map.
#[derive(Debug, Default)]
pub(super) struct FieldRules {
    pub is_required: bool,
    /// Whether a message in it is not looked into.
    pub is_skipped: bool,
    /// Whether an empty value fulfils everything.
    pub ignores_empty: bool,
    pub checks: Vec<Check>,
    pub size: SizeRules,
    pub is_unique: bool,
    pub items: Option<Box<FieldRules>>,
    pub keys: Option<Box<FieldRules>>,
    pub values: Option<Box<FieldRules>>,
}

/// How many items or pairs.
#[derive(Debug, Default)]
pub(super) struct SizeRules {
    pub min: Option<u64>,
    pub max: Option<u64>,
}

/// One thing that a scalar must fulfil.
#[derive(Debug)]
pub(super) enum Check {
    /// Characters.
    MinLen(u64),
    MaxLen(u64),
    /// Bytes.
    MinBytes(u64),
    MaxBytes(u64),
    Prefix(String),
    Suffix(String),
    Contains(String),
    NotContains(String),
    In(Vec<Value>),
    NotIn(Vec<Value>),
    Const(Value),
    HeaderName {
        is_strict: bool,
    },
    HeaderValue {
        is_strict: bool,
    },
    Ip,
    /// The pattern of `path_separated_prefix`, which is told in words.
    PathPrefix,
    /// Any other pattern. What Envoy's RE2 and this crate read differently, no rule of Envoy's has.
    Pattern(Regex),
    /// Numbers, lengths of time in seconds.
    Range(Range),
    DefinedOnly,
}

/// Bounds of a number; where the lower one is above the upper one, the number must be outside them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    pub gt: Option<f64>,
    pub gte: Option<f64>,
    pub lt: Option<f64>,
    pub lte: Option<f64>,
}

type Cache = HashMap<String, Arc<MessageRules>>;

/// The rules of each type that was asked for.
static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);

/// The rules of messages of this type.
pub(super) fn of(descriptor: &MessageDescriptor) -> Arc<MessageRules> {
    let cache = || CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = cache().get(descriptor.full_name()) {
        return known.clone();
    }
    let rules = Arc::new(read(descriptor));
    cache().insert(descriptor.full_name().to_owned(), rules.clone());
    rules
}

fn read(descriptor: &MessageDescriptor) -> MessageRules {
    let is_off = ["validate.disabled", "validate.ignored"]
        .into_iter()
        .any(|name| extension(descriptor, &descriptor.options(), name).is_some_and(|value| value == Value::Bool(true)));
    if is_off {
        return MessageRules::default();
    }
    let fields = descriptor.fields().filter_map(|field| Some((field.number(), of_field(&field)?)));
    let is_required = |oneof: &prost_reflect::OneofDescriptor| {
        extension(descriptor, &oneof.options(), "validate.required") == Some(Value::Bool(true))
    };
    let required_oneofs = descriptor.oneofs().filter(is_required).map(|oneof| oneof.name().to_owned());
    MessageRules { fields: fields.collect(), required_oneofs: required_oneofs.collect() }
}

fn of_field(field: &FieldDescriptor) -> Option<FieldRules> {
    match extension(&field.parent_message().clone(), &field.options(), "validate.rules")? {
        Value::Message(rules) => Some(field_rules(&rules)),
        _ => None,
    }
}

fn extension(descriptor: &MessageDescriptor, options: &DynamicMessage, name: &str) -> Option<Value> {
    let extension = descriptor.parent_pool().get_extension_by_name(name)?;
    options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())
}

/// Reads a `validate.FieldRules`.
fn field_rules(message: &DynamicMessage) -> FieldRules {
    let mut rules = FieldRules::default();
    for (field, value) in message.fields() {
        let Value::Message(of_type) = value else { continue };
        match field.name() {
            "message" => {
                rules.is_required |= flag(of_type, "required");
                rules.is_skipped = flag(of_type, "skip");
            }
            "any" | "timestamp" => rules.is_required |= flag(of_type, "required"),
            "duration" => {
                rules.is_required |= flag(of_type, "required");
                rules.checks.extend(range(of_type));
            }
            "repeated" | "map" => container(&mut rules, of_type),
            "enum" => {
                rules.checks.extend(flag(of_type, "defined_only").then_some(Check::DefinedOnly));
                rules.checks.extend(listed(of_type));
            }
            "string" | "bytes" => rules.checks.extend(text(of_type)),
            _ => {
                rules.checks.extend(range(of_type));
                rules.checks.extend(listed(of_type));
            }
        }
        rules.ignores_empty |= flag(of_type, "ignore_empty");
    }
    rules
}

fn container(rules: &mut FieldRules, of_type: &DynamicMessage) {
    let number = |names: [&str; 2]| names.into_iter().find_map(|name| set(of_type, name)?.as_u64());
    let inner = |name| set(of_type, name)?.as_message().map(|message| Box::new(field_rules(message)));
    rules.size = SizeRules { min: number(["min_items", "min_pairs"]), max: number(["max_items", "max_pairs"]) };
    rules.is_unique = flag(of_type, "unique");
    (rules.items, rules.keys, rules.values) = (inner("items"), inner("keys"), inner("values"));
}

fn text(of_type: &DynamicMessage) -> Vec<Check> {
    // Unless said otherwise only what HTTP allows; else whatever cannot end a line.
    let is_strict = set(of_type, "strict").is_none_or(|value| value == Value::Bool(true));
    let mut checks = listed(of_type);
    for (field, value) in of_type.fields() {
        let number = value.as_u64();
        let words = || value.as_str().map(str::to_owned);
        checks.extend(match field.name() {
            "len" => number.into_iter().flat_map(|len| [Check::MinLen(len), Check::MaxLen(len)]).collect::<Vec<_>>(),
            "min_len" if field.parent_message().name() == "BytesRules" => {
                number.map(Check::MinBytes).into_iter().collect()
            }
            "max_len" if field.parent_message().name() == "BytesRules" => {
                number.map(Check::MaxBytes).into_iter().collect()
            }
            "min_len" => number.map(Check::MinLen).into_iter().collect(),
            "max_len" => number.map(Check::MaxLen).into_iter().collect(),
            "min_bytes" => number.map(Check::MinBytes).into_iter().collect(),
            "max_bytes" => number.map(Check::MaxBytes).into_iter().collect(),
            "prefix" => words().map(Check::Prefix).into_iter().collect(),
            "suffix" => words().map(Check::Suffix).into_iter().collect(),
            "contains" => words().map(Check::Contains).into_iter().collect(),
            "not_contains" => words().map(Check::NotContains).into_iter().collect(),
            "pattern" if value.as_str() == Some("^[^?#]+[^?#/]$") => vec![Check::PathPrefix],
            "pattern" => words().and_then(|it| Regex::new(&it).ok()).map(Check::Pattern).into_iter().collect(),
            "ip" | "ipv4" | "ipv6" if value.as_bool() == Some(true) => vec![Check::Ip],
            "well_known_regex" if value.as_enum_number() == Some(1) => vec![Check::HeaderName { is_strict }],
            "well_known_regex" if value.as_enum_number() == Some(2) => vec![Check::HeaderValue { is_strict }],
            _ => Vec::new(),
        });
    }
    checks
}

/// `in`, `not_in` and `const`.
fn listed(of_type: &DynamicMessage) -> Vec<Check> {
    let list = |name| match set(of_type, name) {
        Some(Value::List(values)) => Some(values),
        _ => None,
    };
    let checks = [list("in").map(Check::In), list("not_in").map(Check::NotIn), set(of_type, "const").map(Check::Const)];
    checks.into_iter().flatten().collect()
}

fn range(of_type: &DynamicMessage) -> Option<Check> {
    let bound = |name| set(of_type, name).as_ref().and_then(number);
    let range = Range { gt: bound("gt"), gte: bound("gte"), lt: bound("lt"), lte: bound("lte") };
    let is_any = [range.gt, range.gte, range.lt, range.lte].iter().any(Option::is_some);
    is_any.then_some(Check::Range(range))
}

/// A number, or a length of time in seconds. Precise enough for every bound that Envoy has.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::I32(number) => Some(f64::from(*number)),
        Value::U32(number) => Some(f64::from(*number)),
        Value::F32(number) => Some(f64::from(*number)),
        Value::F64(number) => Some(*number),
        Value::I64(number) => Some(*number as f64),
        Value::U64(number) => Some(*number as f64),
        Value::Message(message) if message.descriptor().full_name() == "google.protobuf.Duration" => {
            let part = |name| message.get_field_by_name(name).and_then(|value| number(&value));
            Some(part("seconds")? + part("nanos")? / Duration::from_secs(1).as_nanos() as f64)
        }
        _ => None,
    }
}

fn set(message: &DynamicMessage, name: &str) -> Option<Value> {
    message.has_field_by_name(name).then(|| message.get_field_by_name(name))?.map(std::borrow::Cow::into_owned)
}

fn flag(message: &DynamicMessage, name: &str) -> bool {
    set(message, name) == Some(Value::Bool(true))
}
