//! Does a plugin ask for this listener?

use crate::model::{Direction, Plugin};

/// Whether `spec.match` holds for a listener: entries are ORed, inside one mode AND ports must hold (Istio: R3).
pub fn matches_listener(plugin: &Plugin, direction: Direction, port: u16) -> bool {
    plugin.matches.is_empty() || plugin.matches.iter().any(|entry| entry.holds(direction, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::fixtures::plugin;
    use crate::model::{TrafficMatch, WorkloadMode};

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
}
