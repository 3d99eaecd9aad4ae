//! The figures, one line per thing done.

use std::time::Duration;

use crate::fleet::Received;
use crate::millis;

pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

struct Row {
    what: String,
    received: Received,
    took: Duration,
    cost: Duration,
}

impl Table {
    pub fn new() -> Self {
        Self { rows: Vec::new(), notes: Vec::new() }
    }

    /// `took` is the time to the last proxy where there are no latencies.
    pub fn row(&mut self, what: &str, received: &Received, took: Duration, cost: Duration) {
        self.rows.push(Row { what: what.to_owned(), received: received.clone(), took, cost });
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub fn print(&self) {
        println!(
            "\n{:<22}{:>9}{:>10}{:>12}{:>9}{:>9}{:>9}{:>10}{:>10}",
            "", "proxies", "messages", "bytes/proxy", "p50 ms", "p99 ms", "last ms", "CPU ms", "us/msg"
        );
        for row in &self.rows {
            println!("{}", row.line());
        }
        println!();
        for note in &self.notes {
            println!("{note}");
        }
    }
}

impl Row {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn line(&self) -> String {
        let Received { messages, bytes, proxies, latencies } = &self.received;
        let per =
            |all: f64, count: usize| if count == 0 { "-".to_owned() } else { format!("{:.1}", all / count as f64) };
        let (p50, p99, last) = match self.took {
            Duration::ZERO => (at(latencies, 50), at(latencies, 99), at(latencies, 100)),
            took => ("-".into(), "-".into(), format!("{:.1}", millis(took))),
        };
        format!(
            "{:<22}{proxies:>9}{messages:>10}{:>12}{p50:>9}{p99:>9}{last:>9}{:>10.1}{:>10}",
            self.what,
            per(*bytes as f64, *proxies),
            millis(self.cost),
            per(millis(self.cost) * 1000.0, *messages),
        )
    }
}

fn at(sorted: &[Duration], percent: usize) -> String {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).map_or_else(|| "-".into(), |latency| format!("{:.1}", millis(*latency)))
}

/// The round whose last proxy was the median one.
pub fn median(mut rounds: Vec<Received>) -> Received {
    rounds.sort_by_key(|round| round.latencies.last().copied());
    rounds.swap_remove(rounds.len() / 2)
}
