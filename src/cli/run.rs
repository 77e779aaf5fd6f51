//! `linkspan run`: the endpoint, from the configuration to the last signal.

use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::ConfigArgs;
use super::exit::{Exit, Failure};
use super::{log, no_runtime, source};
use crate::config::{Config, TunnelAuth};
use crate::control::Code;
use crate::lifecycle::Drain;
use crate::link::{Link, LinkError};
use crate::tunnel::secret;

/// How long open streams and the batch under way may take to finish after the first signal. Docker kills after 10 s.
const GRACE: Duration = Duration::from_secs(8);

/// Runs until SIGINT or SIGTERM and drains; a second signal ends the process at once.
///
/// # Errors
/// Configuration, a weak secret, a port that cannot be opened, or a failure the endpoint cannot go on with.
pub(crate) fn run(args: &ConfigArgs) -> Result<Exit, Failure> {
    log::install()?;
    let loaded = source::load(args)?;
    for warning in &loaded.warnings {
        tracing::warn!(
            code = warning.code.as_str(),
            file = warning.file,
            line = warning.line,
            column = warning.column,
            key = warning.path,
            "configuration: {}",
            warning.problem
        );
    }
    let config = loaded.config;
    refuse_weak_secret(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_runtime)?;
    let ended = runtime.block_on(serve(&config));
    // Tasks were waited for; a blocked name look-up of the system's resolver is not worth waiting for.
    runtime.shutdown_background();
    ended
}

fn refuse_weak_secret(config: &Config) -> Result<(), Failure> {
    let TunnelAuth::Noise { secret } = &config.tunnel.auth else {
        return Ok(());
    };
    secret::check_strength(secret)
        .map_err(|weak| Failure::coded(Exit::Usage, Code::SECRET_STRONG, weak.to_string()).without_cause())
}

/// Binds, runs and drains. The only place that knows the composition root.
async fn serve(config: &Config) -> Result<Exit, Failure> {
    let mut signals = Signals::new().map_err(no_runtime)?;
    let link = Box::pin(Link::bind(config)).await.map_err(|error| refused(&error))?;
    for (what, address) in link.addresses() {
        tracing::info!(what, %address, "listening");
    }
    tracing::info!(
        link = config.link,
        local = config.local.cluster,
        peer = config.peer.cluster,
        version = env!("CARGO_PKG_VERSION"),
        "endpoint started"
    );
    let drain = Drain::new();
    let mut running = pin!(link.run(drain.clone()));
    let exit = tokio::select! {
        () = &mut running => return Ok(Exit::Ok),
        exit = signals.next() => exit,
    };
    tracing::info!(grace_s = GRACE.as_secs(), "signal received, draining; a second one ends at once");
    drain.begin();
    let drained = async {
        running.await;
        drain.drain(GRACE).await
    };
    tokio::select! {
        in_time = drained => match in_time {
            true => tracing::info!("drained"),
            false => tracing::warn!(grace_s = GRACE.as_secs(), "not everything finished in time and was cut"),
        },
        () = tokio::time::sleep(GRACE + Duration::from_secs(1)) => {
            tracing::warn!(grace_s = GRACE.as_secs(), "the endpoint did not end in time and was cut");
        }
        _ = signals.next() => tracing::warn!("second signal, ending at once"),
    }
    Ok(exit)
}

/// The failure to tell a person, from the composition root's.
fn refused(error: &LinkError) -> Failure {
    let exit = match error {
        LinkError::Admin(_) | LinkError::TunnelPort(_) => Exit::Unreachable,
        _ => Exit::Usage,
    };
    Failure::coded(exit, error.code(), error.to_string())
}

/// SIGINT and SIGTERM, from before anything is bound.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The exit code that the next signal asks for.
    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}
