//! `linkspan run`: the endpoint, from the configuration to the last signal.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::ConfigArgs;
use super::exit::{Exit, Failure};
use super::watch::Watch;
use super::{log, no_runtime, source};
use crate::config::{Config, Loaded, TunnelAuth};
use crate::control::Code;
use crate::lifecycle::Drain;
use crate::link::{Link, LinkError, Reloader};
use crate::tunnel::secret;

/// How long open streams and the batch under way may take to finish after the first signal. Docker kills after 10 s.
const GRACE: Duration = Duration::from_secs(8);

/// Runs until SIGINT or SIGTERM and drains; a second signal ends the process at once.
///
/// # Errors
/// Configuration, a weak secret, a port that cannot be opened, or a failure the endpoint cannot go on with.
pub(crate) fn run(args: &ConfigArgs) -> Result<Exit, Failure> {
    log::install()?;
    let (loaded, files) = source::load_noting(args)?;
    warn_of(&loaded);
    refuse_weak_secret(&loaded.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build();
    let runtime = runtime.map_err(no_runtime)?;
    let ended = runtime.block_on(serve(&loaded, files, args));
    // Tasks were waited for; a blocked name look-up of the system's resolver is not worth waiting for.
    runtime.shutdown_background();
    ended
}

/// Threads of the runtime: one for every two processors, unless `TOKIO_WORKER_THREADS` says otherwise.
///
/// One alone moves 1.8 GB/s through the tunnel, and each byte costs an eighth less than with two, whose waking of each other is
/// then a fifth of all work.
fn workers() -> usize {
    let told = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|text| text.parse().ok()).filter(|&count| count > 0);
    told.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |count| count.get().div_ceil(2)))
}

/// Tells what lets the endpoint start but should be looked at.
fn warn_of(loaded: &Loaded) {
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
}

fn refuse_weak_secret(config: &Config) -> Result<(), Failure> {
    let TunnelAuth::Noise { secret } = &config.tunnel.auth else {
        return Ok(());
    };
    secret::check_strength(secret)
        .map_err(|weak| Failure::coded(Exit::Usage, Code::SECRET_STRONG, weak.to_string()).without_cause())
}

/// Binds, runs and drains. The only place that knows the composition root.
async fn serve(loaded: &Loaded, files: BTreeSet<PathBuf>, args: &ConfigArgs) -> Result<Exit, Failure> {
    let config = &loaded.config;
    let mut signals = Signals::new().map_err(no_runtime)?;
    let mut changes = Changes::new(files).map_err(no_runtime)?;
    let link = Box::pin(Link::bind(loaded)).await.map_err(|error| refused(&error))?;
    let reloader = link.reloader();
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
    let exit = loop {
        tokio::select! {
            () = &mut running => return Ok(Exit::Ok),
            exit = signals.next() => break exit,
            () = changes.next() => changes.read_again(args, &reloader).await,
        }
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

/// Tells when the configuration is to be read again: it changed on disk, or SIGHUP came.
struct Changes {
    hangup: Signal,
    watch: Option<Watch>,
}

impl Changes {
    fn new(files: BTreeSet<PathBuf>) -> std::io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, watch: watch(files) })
    }

    async fn next(&mut self) {
        let changed = async {
            match &mut self.watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.hangup.recv() => {}
            () = changed => {}
        }
    }

    /// Reads the configuration and puts it into effect; one that is of no use changes nothing.
    async fn read_again(&mut self, args: &ConfigArgs, reloader: &Reloader) {
        let (args, reloader) = (args.clone(), reloader.clone());
        // Files may be slow, and a certificate is read with each change.
        let read = tokio::task::spawn_blocking(move || {
            let outcome = source::load_noting(&args).and_then(|(loaded, files)| {
                refuse_weak_secret(&loaded.config)?;
                warn_of(&loaded);
                Ok((loaded, files))
            });
            match outcome {
                Ok((loaded, files)) => (reloader.apply(&loaded).map_err(|error| error.to_string()), Some(files)),
                Err(failure) => {
                    reloader.failed(&failure.what);
                    (Err(failure.what), None)
                }
            }
        });
        let Ok((outcome, files)) = read.await else { return };
        match outcome {
            Ok(applied) => {
                tracing::info!(changed = ?applied.changed, carriers_closed = applied.closed, "configuration read again");
                if !applied.waiting.is_empty() {
                    tracing::warn!(keys = ?applied.waiting, "these keys differ from what runs: a restart is needed");
                }
            }
            Err(error) => {
                let code = Code::CONFIG_RELOADED.to_string();
                tracing::error!(code, error, "the changed configuration is not in effect, what ran goes on");
            }
        }
        if let Some(files) = files
            && !self.watch.as_ref().is_some_and(|watch| watch.is_over(&files))
        {
            self.watch = watch(files);
        }
    }
}

/// A watch, where the system gives one: else SIGHUP alone has the configuration read again.
fn watch(files: BTreeSet<PathBuf>) -> Option<Watch> {
    Watch::new(files)
        .inspect_err(|error| tracing::warn!(%error, "changes of the configuration are seen on SIGHUP only"))
        .ok()
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
