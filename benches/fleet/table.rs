//! The figures, as tables in Markdown.

use std::time::Duration;

use crate::args::Args;
use crate::millis;
use crate::side::Measured;

/// All that one run has measured.
pub struct Report {
    title: String,
    pub rows: Vec<Row>,
    /// Memory per proxy, ours and the null server's.
    pub kilobytes: (f64, f64),
    notes: Vec<String>,
}

/// One thing done, several times, by both servers in turn.
pub struct Row {
    what: String,
    rounds: Vec<(Measured, Measured)>,
}

impl Row {
    pub fn new(what: String) -> Self {
        Self { what, rounds: Vec::new() }
    }

    pub fn of(what: &str, ours: Measured, null: Measured) -> Self {
        Self { what: what.to_owned(), rounds: vec![(ours, null)] }
    }

    pub fn push(&mut self, ours: Measured, null: Measured) {
        self.rounds.push((ours, null));
    }

    fn print(&self) {
        let name = |server: &str| format!("{}{server}", self.what);
        line(&name(""), self.rounds.iter().map(|(ours, _)| ours));
        line(&name(", null server"), self.rounds.iter().map(|(_, null)| null));
        let (took, cost) = (self.ratio(|it| it.took), self.ratio(|it| it.cost));
        println!("| {:<34} | | | | | | {took} | {cost} | |", name(", ratio"));
    }

    /// Of each round, ours to the null server's that came right after it.
    fn ratio(&self, of: impl Fn(&Measured) -> Duration) -> Spread {
        Spread::of(self.rounds.iter().map(|(ours, null)| of(ours).as_secs_f64() / of(null).as_secs_f64()), 2)
    }
}

impl Report {
    pub fn new(args: &Args) -> Self {
        let unlike = if args.unique_labels { ", no two proxies alike" } else { "" };
        let title = format!(
            "{} proxies × {} plugins, {} mode, modules of {} bytes{unlike}",
            args.proxies,
            args.plugins,
            args.mode.name(),
            args.module_bytes
        );
        Self { title, rows: Vec::new(), kilobytes: (0.0, 0.0), notes: Vec::new() }
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub fn print(&self) {
        println!("\n### {}\n", self.title);
        println!("| | proxies | messages | bytes/proxy | p50 ms | p99 ms | last ms | CPU ms | µs/message |");
        println!("|---|---|---|---|---|---|---|---|---|");
        for row in &self.rows {
            row.print();
        }
        let (ours, null) = self.kilobytes;
        println!("\n- memory per proxy: {ours:.1} kB, null server {null:.1} kB, ratio {:.2}", ours / null);
        for note in &self.notes {
            println!("- {note}");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn line<'a>(what: &str, measured: impl Iterator<Item = &'a Measured> + Clone) {
    let Some(one) = measured.clone().next() else { return };
    let (messages, proxies) = (one.received.messages, one.received.proxies);
    let bytes = one.received.bytes.checked_div(proxies).unwrap_or_default();
    let latency =
        |percent| Spread::of(measured.clone().filter_map(|it| at(&it.received.latencies, percent)), 1).middle();
    let took = Spread::of(measured.clone().map(|it| millis(it.took)), 1);
    let cost = Spread::of(measured.clone().map(|it| millis(it.cost)), 1);
    let each = if messages == 0 { "-".to_owned() } else { format!("{:.0}", cost.median * 1000.0 / messages as f64) };
    let (p50, p99) = (latency(50), latency(99));
    println!("| {what:<34} | {proxies} | {messages} | {bytes} | {p50} | {p99} | {took} | {cost} | {each} |");
}

/// In milliseconds.
fn at(sorted: &[Duration], percent: usize) -> Option<f64> {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).map(|latency| millis(*latency))
}

/// The median of several rounds, and between what they lie.
struct Spread {
    median: f64,
    range: Option<(f64, f64)>,
    decimals: usize,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>, decimals: usize) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let range = values.first().copied().zip(values.last().copied());
        Self {
            median: values.get(values.len() / 2).copied().unwrap_or(f64::NAN),
            range: range.filter(|_| values.len() > 1),
            decimals,
        }
    }

    fn middle(&self) -> String {
        if self.median.is_nan() { "-".to_owned() } else { format!("{:.*}", self.decimals, self.median) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.middle())?;
        match self.range {
            Some((least, most)) => write!(f, " ({least:.*}–{most:.*})", self.decimals, self.decimals),
            None => Ok(()),
        }
    }
}
