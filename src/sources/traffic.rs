//! Which traffic a plugin sees and when: `match`, `phase` and `priority` (Istio: R1.2, R1.4), in every kind alike.

use super::fields::{Field, Object};
use super::report::Report;
use crate::model::{Position, TrafficMatch, WorkloadMode};

const MODES: [(&str, WorkloadMode); 4] = [
    ("UNDEFINED", WorkloadMode::ClientAndServer),
    ("CLIENT", WorkloadMode::Client),
    ("SERVER", WorkloadMode::Server),
    ("CLIENT_AND_SERVER", WorkloadMode::ClientAndServer),
];

/// What the fields say.
pub(super) struct Traffic {
    pub matches: Vec<TrafficMatch>,
    pub priority: i32,
    pub position: Position,
}

/// Reads the three fields; `unspecified` is how this kind spells the phase that is none.
pub(super) fn read(spec: &Object<'_>, unspecified: &str, report: &mut Report<'_>) -> Option<Traffic> {
    let phases = [
        (unspecified, Position::BeforeRouter),
        ("AUTHN", Position::PreAuthN),
        ("AUTHZ", Position::PreAuthZ),
        ("STATS", Position::PreStats),
    ];
    let matches = spec.get("match").map_or(Some(Vec::new()), |field| matches(&field, report));
    let priority = spec.get("priority").map_or(Some(0), |field| priority(&field, report));
    let position = spec.choice("phase", &phases, report);
    Some(Traffic { matches: matches?, priority: priority?, position })
}

fn priority(field: &Field<'_>, report: &mut Report<'_>) -> Option<i32> {
    field.integer(i32::MIN.into()..=i32::MAX.into(), report).and_then(|priority| i32::try_from(priority).ok())
}

fn matches(field: &Field<'_>, report: &mut Report<'_>) -> Option<Vec<TrafficMatch>> {
    let items = field.list(usize::MAX, report)?;
    Some(items.iter().filter_map(|item| traffic_match(item, report)).collect())
}

fn traffic_match(field: &Field<'_>, report: &mut Report<'_>) -> Option<TrafficMatch> {
    let object = field.object(&["mode", "ports"], report)?;
    let mode = object.choice("mode", &MODES, report);
    let mut ports = Vec::new();
    for item in object.get("ports").and_then(|field| field.list(usize::MAX, report)).unwrap_or_default() {
        let number = item.object(&["number"], report).and_then(|port| port.required("number", report));
        let Some(port) = number.and_then(|number| number.port(report)) else { continue };
        if ports.contains(&port) {
            report.fault(&format!("{}.number", item.path), format!("duplicate port {port} in one entry"));
        }
        ports.push(port);
    }
    Some(TrafficMatch { mode, ports })
}
