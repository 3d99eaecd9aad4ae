//! `wasmplane quickstart`: the main job in one command, on loopback, with nothing installed but Python and this binary.
//!
//! Three requests go through a real Envoy: without the plugin, with it, and after an edit of its configuration. Then
//! everything stays up to play with, until Ctrl-C; nothing is left behind.

mod answer;
mod envoy;
mod manifests;
mod process;
mod world;

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval};

use super::Outcome;
use answer::{Answer, Question};
pub use envoy::{EnvoyUnavailable, NEWEST, any_envoy, envoy_binary};
pub use process::{Ended, LoggedProcess, listening};
use world::World;

/// From a change of a file to the answer that shows it; on a loaded machine an Envoy needs some seconds to start.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

const FIRST_GREETING: &str = "hello";
const SECOND_GREETING: &str = "good day";

/// Runs the main job on loopback: an upstream, an Envoy and the control plane with an example plugin.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after the three requests: 0 if each was answered as it should, else 1.
    #[arg(long)]
    pub once: bool,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Runtime::new()?;
    let played = runtime.block_on(async {
        // Listened to from the start, so that Ctrl-C always ends the children and removes the folder.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            played = play(args.once) => played,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    });
    match played {
        Ok(()) => Ok(Outcome::Fine),
        Err(error) => {
            eprintln!("wasmplane quickstart: {error:#}");
            Ok(Outcome::Finding)
        }
    }
}

async fn play(once: bool) -> anyhow::Result<()> {
    let envoy = any_envoy().await?;
    println!("starting an upstream, wasmplane and {} on loopback", envoy.display());
    let mut world = World::start(&envoy).await?;
    if let Err(error) = show(&mut world).await {
        anyhow::bail!("{error:#}\n{}", world.last_words());
    }
    if once {
        return Ok(());
    }
    print!("{}", what_next(&world));
    let mut polls = interval(Duration::from_secs(1));
    loop {
        polls.tick().await;
        if let Err(error) = world.ensure_running() {
            anyhow::bail!("{error:#}\n{}", world.last_words());
        }
    }
}

/// The three requests.
async fn show(world: &mut World) -> anyhow::Result<()> {
    let question = Question::new(world.port)?;
    println!("  upstream {}   xDS {}   Envoy 127.0.0.1:{}", world.upstream, world.xds, world.port);

    println!("1. GET {} without a plugin", question.url());
    expect(world, &question, None).await?;

    println!("2. the same, {} written", world.plugin_file().display());
    world.write_plugin(FIRST_GREETING)?;
    expect(world, &question, Some(FIRST_GREETING)).await?;

    println!("3. the same, its pluginConfig edited");
    world.write_plugin(SECOND_GREETING)?;
    expect(world, &question, Some(SECOND_GREETING)).await
}

/// Asks until the answer is right, and prints it with the time that it took.
async fn expect(world: &mut World, question: &Question, greeting: Option<&str>) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut polls = interval(POLL);
    loop {
        polls.tick().await;
        let answer: Answer = question.ask().await;
        if answer.is(greeting) {
            println!("   {answer}   (after {:.2} s)", start.elapsed().as_secs_f64());
            return Ok(());
        }
        world.ensure_running()?;
        if start.elapsed() > ANSWER_TIMEOUT {
            anyhow::bail!("after {} s the answer was still: {answer}", ANSWER_TIMEOUT.as_secs());
        }
    }
}

fn what_next(world: &World) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "wasmplane".to_owned());
    let (folder, plugin) = (world.folder().display(), world.plugin_file());
    format!(
        "
All of it stays up until Ctrl-C. In another terminal:
  curl -i http://127.0.0.1:{port}/
  $EDITOR {plugin}     # the next answer shows it
  {program} plugins --server {admin}     # which proxies run it
  {program} proxies --server {admin}
  curl http://{envoy_admin}/config_dump     # what Envoy has
The plugin's source is {folder}/hello.wat; put a module of your own over {folder}/modules/hello.wasm.
",
        port = world.port,
        plugin = plugin.display(),
        admin = world.admin,
        envoy_admin = world.envoy_admin,
    )
}
