//! Keeps carriers there: on the dialling side one loop a slot, for ever; on the listening side whoever was proved comes in.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::carrier_task::CarrierTask;
use super::handle::{CarrierHandle, Phase};
use super::shared::Shared;
use crate::lifecycle::{Backoff, Drain};
use crate::net::BoxFuture;
use crate::tunnel::carrier::{CarrierError, Established};

/// Pause after the first failure, and at most.
const REDIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Least time between two log lines of the same failure.
const QUIET: Duration = Duration::from_secs(60);
/// Carriers at once, those that still join or say farewell included.
const MOST_CARRIERS: usize = 64;
/// A listening side says so when nobody came for this long.
const LONELY: Duration = Duration::from_secs(15);

/// Makes a carrier; the dialling side's way to the peer.
pub(super) trait Connect: Send + Sync + 'static {
    /// One attempt, with deadlines of its own.
    fn connect(&self) -> BoxFuture<'_, Result<Established, CarrierError>>;
}

/// Dialling side: keeps `carriers` carriers, and more as sending has use for them where it may `grow`.
pub(super) async fn keep_all(shared: Arc<Shared>, connect: Arc<dyn Connect>, carriers: u8, grow: bool, drain: Drain) {
    let mut wanted = shared.wanted.subscribe();
    let mut kept = 0;
    let mut want = carriers;
    loop {
        for slot in kept..want {
            drain.spawn(keep(Arc::clone(&shared), Arc::clone(&connect), slot, drain.clone()));
        }
        kept = kept.max(want);
        tokio::select! {
            () = drain.draining() => return,
            changed = wanted.changed(), if grow => {
                if changed.is_err() {
                    return;
                }
                want = *wanted.borrow_and_update();
            }
        }
    }
}

/// Dialling side: keeps the carrier of one slot.
async fn keep(shared: Arc<Shared>, connect: Arc<dyn Connect>, slot: u8, drain: Drain) {
    let mut backoff = Backoff::new(REDIAL.0, REDIAL.1);
    let mut repeated = Repeated::default();
    loop {
        let connected = tokio::select! {
            biased;
            () = drain.draining() => return,
            connected = connect.connect() => connected,
        };
        match connected {
            Ok(established) => {
                let end = live(&shared, slot, established, &drain, &mut backoff).await;
                if let Some(end) = end
                    && repeated.is_new(&end)
                {
                    debug!(link = shared.names.link, slot, end, "carrier to be replaced");
                }
            }
            Err(error) => {
                let error = error.to_string();
                if repeated.is_new(&error) {
                    warn!(link = shared.names.link, error, "cannot reach the peer; trying on");
                }
                shared.note_error(error);
            }
        }
        tokio::select! {
            biased;
            () = drain.draining() => return,
            () = tokio::time::sleep(backoff.next(random())) => {}
        }
    }
}

/// Runs a carrier until it needs to be replaced: it ended, or it is silent and no other carries. Why it ended, if it did.
async fn live(
    shared: &Arc<Shared>,
    slot: u8,
    established: Established,
    drain: &Drain,
    backoff: &mut Backoff,
) -> Option<String> {
    let handle = start(shared, slot, established, drain);
    let mut phase = handle.phase.subscribe();
    loop {
        let present = phase.borrow_and_update().clone();
        match present {
            Phase::Attached => backoff.reset(),
            // The old carrier lives on until the new one takes its slot: whichever heals first.
            Phase::Suspect if !shared.has_healthy() => return None,
            Phase::Ended(end) => {
                if !drain.is_draining() && !matches!(end.label(), "lost" | "closed" | "silent" | "fenced") {
                    warn!(link = shared.names.link, slot, %end, "carrier failed");
                }
                return Some(end.to_string());
            }
            Phase::Joining | Phase::Suspect | Phase::Closing(_) => {}
        }
        if phase.changed().await.is_err() {
            return None;
        }
    }
}

/// Listening side: takes in carriers as they are proved.
pub(super) async fn take(shared: Arc<Shared>, mut established: mpsc::Receiver<Established>, drain: Drain) {
    let lonely = tokio::time::sleep(LONELY);
    tokio::pin!(lonely);
    let mut waiting = true;
    loop {
        tokio::select! {
            biased;
            () = drain.draining() => return,
            next = established.recv() => {
                let Some(next) = next else { return };
                waiting = false;
                if shared.carriers() >= MOST_CARRIERS {
                    warn!(link = shared.names.link, limit = MOST_CARRIERS, peer = %next.peer, "too many carriers, one dropped");
                    continue;
                }
                let handle = start(&shared, 0, next, &drain);
                let (link, address) = (shared.names.link.clone(), handle.address.clone());
                drain.spawn(report_refusal(link, address, handle));
            }
            () = &mut lonely, if waiting => {
                waiting = false;
                let text = "no peer has connected; one of the two sides must dial this address, and its firewall must let it in";
                warn!(link = shared.names.link, "{text}");
                shared.note_error(text.to_owned());
            }
        }
    }
}

/// Says so when a carrier was not let in.
async fn report_refusal(link: String, address: String, handle: Arc<CarrierHandle>) {
    let mut phase = handle.phase.subscribe();
    drop(handle);
    if let Ok(ended) = phase.wait_for(|phase| matches!(phase, Phase::Attached | Phase::Ended(_))).await
        && let Phase::Ended(end) = &*ended
    {
        warn!(link, address, %end, "carrier not attached");
    }
}

fn start(shared: &Arc<Shared>, slot: u8, established: Established, drain: &Drain) -> Arc<CarrierHandle> {
    let handle = CarrierHandle::new(&established.peer, established.proof.clone(), &established.socket);
    let task = CarrierTask::new(shared, &handle, slot, established);
    drain.spawn(task.run());
    handle
}

/// Tells a failure that was logged already.
#[derive(Default)]
struct Repeated(Option<(String, Instant)>);

impl Repeated {
    fn is_new(&mut self, text: &str) -> bool {
        if self.0.as_ref().is_some_and(|(last, at)| last == text && at.elapsed() < QUIET) {
            return false;
        }
        self.0 = Some((text.to_owned(), Instant::now()));
        true
    }
}

/// A number for jitter.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the pause is the shortest of its step, which works too.
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_le_bytes(bytes)
}
