//! A fleet of simulated Envoys around one `wasmplane serve`: what a change costs and how long it takes.
//!
//! Comes in: the size of the fleet. Goes out: a table on stdout. Nothing is asserted; `README.md` says how to run it.

mod args;
mod fleet;
mod manifests;
mod message;
mod node;
mod proxy;
mod server;
mod table;

use std::ops::Range;
use std::time::{Duration, Instant};

use clap::Parser as _;

use crate::args::Args;
use crate::fleet::{Fleet, Received};
use crate::manifests::{Manifests, Touched};
use crate::server::Server;
use crate::table::{Table, median};

/// Longer than any message is under way, so that a second one for the same change would be seen.
const QUIET: Duration = Duration::from_millis(300);

fn main() {
    let args = Args::parse();
    args.warn_of_limits();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.client_threads)
        .enable_all()
        .build()
        .expect("a runtime can be started");
    // The figures are for reading; a run that fails says so and is no failed build.
    if let Err(error) = runtime.block_on(run(&args)) {
        println!("the run ended early: {error:#}");
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    println!(
        "{} proxies, {} plugins on each of them, {:?} mode, modules of {} bytes, medians of {} rounds",
        args.proxies, args.plugins, args.mode, args.module_bytes, args.rounds
    );
    let mut manifests = Manifests::write(args)?;
    let started = Instant::now();
    let server = Server::start(manifests.folder(), args)?;
    let fleet = Fleet::new(args, server.xds);
    server.wait_until_ready().await?;
    let ready_after = started.elapsed();

    let mut table = Table::new();
    table.note(format!("server ready after {:.0} ms, {} kB resident", millis(ready_after), server.resident_kb()?));
    // The first pays for what is compiled once.
    connect(&mut table, "connect one", 0..1, &fleet, &server).await?;
    connect(&mut table, "connect the others", 1..fleet.len(), &fleet, &server).await?;

    for touched in [Touched::All, Touched::OnePercent, Touched::One] {
        change(&mut table, touched, args, &fleet, &server, &mut manifests).await?;
    }
    table.note(format!("after the changes {}", per_proxy(&server, args)?));
    reconnect(&mut table, &fleet, &server).await?;
    change(&mut table, Touched::All, args, &fleet, &server, &mut manifests).await?;
    table.note(format!("at the end {}", per_proxy(&server, args)?));

    let idle = server.cost()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    table.note(format!("idle: {:.1} ms of server CPU per second", millis(server.cost()?.since(idle)) / 2.0));
    table.print();
    Ok(())
}

/// Proxies connect as fast as they can, and take their first configuration.
async fn connect(
    table: &mut Table,
    what: &str,
    which: Range<usize>,
    fleet: &Fleet,
    server: &Server,
) -> anyhow::Result<()> {
    let resident_before = server.resident_kb()?;
    let before = server.cost()?;
    let proxies = which.len();
    let took = fleet.connect(which).await?;
    tokio::time::sleep(QUIET).await;
    let received = fleet.take_received();
    table.row(what, &received, took, server.cost()?.since(before));
    let grown = server.resident_kb()?.saturating_sub(resident_before);
    table.note(format!("{what}: {:.1} kB resident per proxy", kilobytes(grown, proxies)));
    Ok(())
}

/// All connections are cut, and come back with the versions that they hold.
async fn reconnect(table: &mut Table, fleet: &Fleet, server: &Server) -> anyhow::Result<()> {
    fleet.disconnect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    table.note(format!("all gone: {} kB resident", server.resident_kb()?));
    let before = server.cost()?;
    let took = fleet.connect(0..fleet.len()).await?;
    // Nothing is sent, so that only the server's CPU tells when it has looked at them all.
    let mut cost = server.cost()?;
    loop {
        tokio::time::sleep(QUIET).await;
        let now = server.cost()?;
        if now.since(cost) < Duration::from_millis(20) {
            break;
        }
        cost = now;
    }
    table.row("reconnect all", &fleet.take_received(), took, server.cost()?.since(before));
    Ok(())
}

/// Edits one plugin, again and again.
async fn change(
    table: &mut Table,
    touched: Touched,
    args: &Args,
    fleet: &Fleet,
    server: &Server,
    manifests: &mut Manifests,
) -> anyhow::Result<()> {
    let expected = touched.proxies(args);
    let mut rounds: Vec<Received> = Vec::new();
    let mut cost = Duration::ZERO;
    // The first change is for warming up.
    for round in 0..=args.rounds {
        let _profile = (touched == Touched::All && round == 1).then(|| server.profile(args)).flatten();
        let before = server.cost()?;
        fleet.expect(expected);
        manifests.edit(touched)?;
        fleet.wait().await?;
        tokio::time::sleep(QUIET).await;
        let received = fleet.take_received();
        if round > 0 {
            cost += server.cost()?.since(before);
            rounds.push(received);
        }
    }
    let rounds_count = u32::try_from(args.rounds)?;
    table.row(&format!("change touching {touched}"), &median(rounds), Duration::ZERO, cost / rounds_count);
    Ok(())
}

fn per_proxy(server: &Server, args: &Args) -> anyhow::Result<String> {
    let resident = server.resident_kb()?;
    Ok(format!("{resident} kB resident, {:.1} kB per proxy", kilobytes(resident, args.proxies)))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn kilobytes(all: u64, proxies: usize) -> f64 {
    all as f64 / proxies as f64
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
