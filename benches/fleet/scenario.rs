//! One run: a control plane and a null server, each with a fleet of its own, measured in turn.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::args::Args;
use crate::fleet::Fleet;
use crate::manifests::{Manifests, Touched};
use crate::millis;
use crate::null;
use crate::server::Server;
use crate::side::{Measured, Side};
use crate::table::{Report, Row};

/// Times that all connections are cut.
const RECONNECTS: usize = 3;

pub async fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new(args);
    let mut manifests = Manifests::write(args)?;
    let server = cold_start(&manifests, args, &mut report).await?;
    let mut ours = Side { fleet: Fleet::new(args, server.xds), server };
    // The first pays for what is compiled once. What they receive is what the null server is to write.
    let first = ours.connect(0..1).await?;
    let (others, ours_kb) = ours.connect_others().await?;
    let folder = tempfile::tempdir()?;
    ours.leave_recorded(folder.path(), null::FIRST)?;
    let server = Server::null(folder.path())?;
    let mut null = Side { fleet: Fleet::new(args, server.xds), server };
    report.rows.push(Row::of("connect one", first, null.connect(0..1).await?));
    let (null_others, null_kb) = null.connect_others().await?;
    report.rows.push(Row::of("connect the others", others, null_others));
    report.kilobytes = (ours_kb, null_kb);

    for touched in [Touched::All, Touched::OnePercent, Touched::One] {
        let mut row = Row::new(format!("change touching {touched}"));
        let expected = touched.proxies(args);
        let perf = args.perf.as_ref().filter(|_| touched == Touched::All);
        let _profiles = perf.map(|file| (ours.server.profile(file), null.server.profile(&file.with_extension("null"))));
        // The first change is for warming up.
        for round in 0..=args.rounds {
            let measured = ours.change(expected, |_| manifests.edit(touched)).await?;
            let classes = ours.leave_recorded(folder.path(), null::CHANGE)?;
            let null_measured = null.change(expected, |server| server.tell(&classes)).await?;
            same_bytes(&measured, &null_measured)?;
            if round > 0 {
                row.push(measured, null_measured);
            }
        }
        report.rows.push(row);
    }
    report.note(format!("idle: {:.1} ms of server CPU per second", idle(&ours.server).await?));

    let mut row = Row::new("all come back".into());
    for _ in 0..RECONNECTS {
        row.push(ours.reconnect().await?, null.reconnect().await?);
    }
    report.rows.push(row);
    let (ours_kb, null_kb) = (ours.server.resident_kb()?, null.server.resident_kb()?);
    report.note(format!("at the end: {ours_kb} kB resident, the null server {null_kb} kB"));
    Ok(report)
}

/// Starts a server without plugins, to compare with; the one to be measured with an empty data folder, and once more
/// with what it wrote there.
async fn cold_start(manifests: &Manifests, args: &Args, report: &mut Report) -> anyhow::Result<Server> {
    let bare = Manifests::bare()?;
    drop(start("without plugins", &bare, args, report).await?);
    drop(start("cold", manifests, args, report).await?);
    start("again", manifests, args, report).await
}

async fn start(what: &str, manifests: &Manifests, args: &Args, report: &mut Report) -> anyhow::Result<Server> {
    let begun = Instant::now();
    let server = Server::control_plane(manifests.folder(), args)?;
    server.wait_until_ready().await?;
    let took = begun.elapsed();
    // What is still written to the disk.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (cost, resident) = (server.cost()?.total(), server.resident_kb()?);
    let (took, cost) = (millis(took), millis(cost));
    report.note(format!("start {what}: ready after {took:.0} ms, {cost:.0} ms of CPU, {resident} kB resident"));
    Ok(server)
}

async fn idle(server: &Server) -> anyhow::Result<f64> {
    let before = server.cost()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(millis(server.cost()?.since(before)) / 2.0)
}

/// A comparison of different things would say nothing.
fn same_bytes(ours: &Measured, null: &Measured) -> anyhow::Result<()> {
    let (ours, null) = (&ours.received, &null.received);
    ensure!(
        (ours.messages, ours.bytes, ours.proxies) == (null.messages, null.bytes, null.proxies),
        "the null server wrote {} messages, {} bytes, to {}; ours {}, {}, to {}",
        null.messages,
        null.bytes,
        null.proxies,
        ours.messages,
        ours.bytes,
        ours.proxies
    );
    Ok(())
}
