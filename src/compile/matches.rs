//! Does a plugin ask for this listener?

use crate::model::{Direction, Plugin, TrafficMatch, WorkloadMode};

/// Whether `spec.match` holds for a listener: entries are ORed, inside one mode AND ports must hold (Istio: R3).
pub fn matches_listener(plugin: &Plugin, direction: Direction, port: u16) -> bool {
    plugin.matches.is_empty() || plugin.matches.iter().any(|entry| entry.holds(direction, port))
}

/// Why no entry of `spec.match` holds for a listener, entry by entry. The plugin has entries.
pub fn why_no_match(plugin: &Plugin, direction: Direction, port: u16) -> String {
    let entries = plugin.matches.iter().enumerate().map(|(index, entry)| {
        let mode = TrafficMatch { ports: Vec::new(), ..entry.clone() };
        if !mode.holds(direction, port) {
            let mode = if entry.mode == WorkloadMode::Server { "SERVER" } else { "CLIENT" };
            return format!("match[{index}] wants mode {mode} and the listener is {}", direction.as_str());
        }
        let ports: Vec<_> = entry.ports.iter().map(ToString::to_string).collect();
        let has = if port == 0 { "no port".to_owned() } else { format!("port {port}") };
        format!("match[{index}] wants port {} and the listener has {has}", ports.join(" or "))
    });
    entries.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fixtures::plugin;

    #[test]
    fn the_case_table_of_istio_holds() {
        use Direction::{Gateway, Inbound, Outbound};
        use WorkloadMode::{Client, ClientAndServer, Server};
        let on = [
            (Inbound, 8080),
            (Inbound, 9090),
            (Outbound, 8080),
            (Outbound, 9090),
            (Gateway, 8080),
            (Gateway, 9090),
            (Gateway, 0),
        ];
        type Entries = &'static [(WorkloadMode, &'static [u16])];
        let cases: [(Entries, [u8; 7]); 7] = [
            (&[], [1, 1, 1, 1, 1, 1, 1]),
            (&[(ClientAndServer, &[])], [1, 1, 1, 1, 1, 1, 1]),
            (&[(Client, &[])], [0, 0, 1, 1, 1, 1, 1]),
            (&[(Server, &[])], [1, 1, 0, 0, 0, 0, 0]),
            (&[(ClientAndServer, &[8080])], [1, 0, 1, 0, 1, 0, 0]),
            (&[(Server, &[8080])], [1, 0, 0, 0, 0, 0, 0]),
            (&[(Server, &[8080]), (Client, &[9090])], [1, 0, 0, 1, 0, 1, 0]),
        ];
        for (entries, expected) in cases {
            let mut plugin = plugin("shop/a");
            plugin.matches =
                entries.iter().map(|(mode, ports)| TrafficMatch { mode: *mode, ports: ports.to_vec() }).collect();
            let found = on.map(|(direction, port)| u8::from(matches_listener(&plugin, direction, port)));
            assert_eq!(found, expected, "{entries:?}");
        }
    }

    #[test]
    fn what_keeps_a_plugin_off_a_listener_is_said_entry_by_entry() {
        let mut plugin = plugin("shop/a");
        plugin.matches = vec![
            TrafficMatch { mode: WorkloadMode::Server, ports: vec![9090] },
            TrafficMatch { mode: WorkloadMode::Client, ports: vec![80, 81] },
        ];
        assert_eq!(
            why_no_match(&plugin, Direction::Outbound, 8080),
            "match[0] wants mode SERVER and the listener is OUTBOUND; \
             match[1] wants port 80 or 81 and the listener has port 8080"
        );
    }
}
