//! One end of a tunnel: drives one session, keeps its carriers, gives its streams.
//!
//! [`Endpoint::new`] builds and spawns nothing; the [`Driver`] binds, then runs until it is drained. Streams asked for by the
//! peer go to the exit through a bounded channel; streams asked for here are opened by [`Endpoint::dialer`].
//!
//! Rules kept here: the session's lock is never held across a system call or an await; each carrier is one task which owns its
//! socket; each wake-up does a bounded amount of work; a carrier's end is never a stream's end.

mod carrier_task;
mod failure;
mod handle;
mod keyring;
mod offer;
mod shared;
mod status;
mod supervisor;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trust_tests;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{mpsc, watch};
use tracing::warn;

pub(super) use shared::{Reader, Shared};
pub use status::{CarrierStatus, TunnelState, TunnelStatus};

use super::Offer;
use super::carrier::{self, Acceptor, CarrierError, Established, Trust};
use super::entry::TunnelDial;
use super::session::{FIRST_CARRIERS, PIECES, SLOTS, Session, SessionConfig, Side};
use crate::config::{Carriers, TunnelAuth, TunnelConfig, TunnelRole};
use crate::lifecycle::Drain;
use crate::net::{BoxFuture, files};
use keyring::Hkdf;
use shared::Names;
use supervisor::Connect;

/// Proved carriers that wait to be taken in.
const ESTABLISHED: usize = 16;
/// Descriptors for all that is no stream: carriers, handshakes, listeners.
const OTHER_FILES: u64 = 1024;
/// Longest name of a link, in bytes.
const MAX_LINK: usize = 63;

/// Why an endpoint cannot be built or bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The name of the link is empty or too long.
    #[error("link name of {len} bytes, must be 1 to {MAX_LINK}")]
    LinkName {
        /// Its length.
        len: usize,
    },
    /// Carriers outside 1 to 16.
    #[error("{count} carriers, must be 1 to {SLOTS}")]
    Carriers {
        /// What was asked for.
        count: u8,
    },
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
    /// The port or the credentials.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
}

/// A handle to one end of a tunnel; cheap to clone.
#[derive(Debug, Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
    auth: Arc<RwLock<TunnelAuth>>,
}

/// Credentials that were read and are not in use yet.
#[derive(Debug)]
pub struct NewAuth {
    auth: TunnelAuth,
    trust: Trust,
}

/// What runs an [`Endpoint`].
pub struct Driver {
    shared: Arc<Shared>,
    config: TunnelConfig,
    ways: Ways,
    told_of_files: bool,
}

/// How carriers come to be.
enum Ways {
    Dial {
        connect: Arc<dyn Connect>,
        carriers: u8,
        /// Whether there may be more, as sending has use for them.
        grow: bool,
    },
    /// Not bound yet.
    Listen,
    Bound(Acceptor),
    /// Made elsewhere.
    #[cfg(test)]
    Taken(mpsc::Receiver<Established>),
}

impl Endpoint {
    /// Builds an endpoint of `link`; streams that the peer asks for go to `offers`, and are refused while that is full.
    ///
    /// # Errors
    /// [`TunnelError`], all but [`TunnelError::Carrier`].
    pub fn new(
        link: String,
        config: &TunnelConfig,
        offers: mpsc::Sender<Box<dyn Offer>>,
    ) -> Result<(Self, Driver), TunnelError> {
        let auth = Arc::new(RwLock::new(config.auth.clone()));
        let ways = match config.role {
            TunnelRole::Listen(_) => Ways::Listen,
            TunnelRole::Dial(_) => {
                let (carriers, grow) = match config.carriers {
                    Carriers::Auto => (FIRST_CARRIERS, true),
                    Carriers::Fixed(count @ 1..=SLOTS) => (count, false),
                    Carriers::Fixed(count) => return Err(TunnelError::Carriers { count }),
                };
                let connect = Arc::new(Dialler { config: config.clone(), auth: Arc::clone(&auth), link: link.clone() });
                Ways::Dial { connect, carriers, grow }
            }
        };
        Self::build(link, config, auth, offers, ways)
    }

    fn build(
        link: String,
        config: &TunnelConfig,
        auth: Arc<RwLock<TunnelAuth>>,
        offers: mpsc::Sender<Box<dyn Offer>>,
        ways: Ways,
    ) -> Result<(Self, Driver), TunnelError> {
        if link.is_empty() || link.len() > MAX_LINK {
            return Err(TunnelError::LinkName { len: link.len() });
        }
        let mut boot = [0; 16];
        SystemRandom::new().fill(&mut boot).map_err(|_| TunnelError::Random)?;
        let (side, role) = match ways {
            Ways::Dial { .. } => (Side::Dialler, "dial"),
            _ => (Side::Listener, "listen"),
        };
        let transport = match config.auth {
            TunnelAuth::Noise { .. } => "noise",
            TunnelAuth::Tls { .. } => "tls",
        };
        let session = SessionConfig {
            side,
            link: link.clone(),
            boot,
            streams: usize::try_from(config.limits.streams).unwrap_or(usize::MAX),
            opens_per_second: config.limits.opens_per_second,
            buffered_bytes: config.limits.buffered_bytes,
            pieces: PIECES,
            park: config.limits.park,
        };
        let names = Names { link, role, transport };
        let shared = Shared::new(Session::new(session, Box::new(Hkdf)), offers, names, config.congestion.clone());
        let driver = Driver { shared: Arc::clone(&shared), config: config.clone(), ways, told_of_files: false };
        Ok((Self { shared, auth }, driver))
    }

    /// Reads the files that `auth` names, for [`Self::set_auth`].
    ///
    /// # Errors
    /// [`TunnelError::Carrier`]: a file is of no use.
    pub fn read_auth(&self, auth: &TunnelAuth) -> Result<NewAuth, TunnelError> {
        Ok(NewAuth { trust: Trust::load(auth, &self.shared.names.link)?, auth: auth.clone() })
    }

    /// Proves and asks for something else from now on. Peers that are not trusted any more are cut off at once: their carriers
    /// are closed and, where none is left that is trusted, the session's streams reset. Everybody else stays. Gives the number
    /// of carriers that were closed.
    pub fn set_auth(&self, new: NewAuth) -> usize {
        *self.auth.write().unwrap_or_else(PoisonError::into_inner) = new.auth;
        self.shared.set_trust(new.trust)
    }

    /// Opens streams to targets at the peer's side.
    #[must_use]
    pub fn dialer(&self) -> TunnelDial {
        TunnelDial::new(Arc::clone(&self.shared))
    }

    /// The present state.
    #[must_use]
    pub fn status(&self) -> TunnelStatus {
        self.shared.status()
    }

    /// Follows the state: `wait_for(|state| *state == TunnelState::Up)` needs no polling.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<TunnelState> {
        self.shared.changed()
    }
}

impl Driver {
    /// Binds the port on the listening side, before anything runs; gives the real address. `None` on the dialling side.
    ///
    /// # Errors
    /// [`TunnelError::Carrier`]: the port is taken, or the credentials are of no use.
    pub async fn bind(&mut self) -> Result<Option<SocketAddr>, TunnelError> {
        let (files, streams) = (files::limit(), u64::from(self.config.limits.streams));
        if files < streams + OTHER_FILES && !std::mem::replace(&mut self.told_of_files, true) {
            warn!(
                link = self.shared.names.link,
                files,
                streams,
                "fewer files may be open than streams: raise the hard limit (ulimit -Hn, LimitNOFILE=) or lower [tunnel] streams"
            );
        }
        if let Ways::Listen = self.ways {
            let acceptor = Acceptor::bind(&self.config, &self.shared.names.link).await?;
            let _ = self.shared.accept.set((acceptor.status(), acceptor.keys()));
            self.ways = Ways::Bound(acceptor);
        }
        Ok(match &self.ways {
            Ways::Bound(acceptor) => Some(acceptor.local_addr()),
            _ => None,
        })
    }

    /// Runs until `drain` begins, then until all streams are finished; dropped before that (by force), it resets them and
    /// tells the peer. A listening side that was not bound binds now.
    pub async fn run(mut self, drain: Drain) {
        if let Err(error) = self.bind().await {
            tracing::error!(link = self.shared.names.link, %error, "the tunnel cannot listen");
            self.shared.note_error(error.to_string());
            return;
        }
        // Ends the session whichever way this future ends.
        let ending = Ending(Arc::clone(&self.shared));
        let shared = Arc::clone(&self.shared);
        match self.ways {
            Ways::Dial { connect, carriers, grow } => {
                let keep = supervisor::keep_all(Arc::clone(&shared), connect, carriers, grow, drain.clone());
                drain.spawn(keep);
            }
            Ways::Bound(acceptor) => {
                let (sender, receiver) = mpsc::channel(ESTABLISHED);
                drain.spawn(acceptor.run(sender, drain.clone()));
                drain.spawn(supervisor::take(Arc::clone(&shared), receiver, drain.clone()));
            }
            Ways::Listen => {}
            #[cfg(test)]
            Ways::Taken(receiver) => drain.spawn(supervisor::take(Arc::clone(&shared), receiver, drain.clone())),
        }
        let work = shared.run_timer();
        tokio::pin!(work);
        tokio::select! {
            () = &mut work => {}
            () = drain.draining() => {}
        }
        shared.with(|state, _| state.session.drain());
        tokio::select! {
            () = work => {}
            () = shared.finished() => {}
        }
        drop(ending);
    }
}

/// Resets what is left.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.with(|state, now| state.session.end(now));
    }
}

/// [`carrier::dial`] as the supervisor wants it.
struct Dialler {
    config: TunnelConfig,
    /// What the configuration says of it now.
    auth: Arc<RwLock<TunnelAuth>>,
    link: String,
}

impl Connect for Dialler {
    fn connect(&self) -> BoxFuture<'_, Result<Established, CarrierError>> {
        Box::pin(async {
            let auth = self.auth.read().unwrap_or_else(PoisonError::into_inner).clone();
            carrier::dial(&TunnelConfig { auth, ..self.config.clone() }, &self.link).await
        })
    }
}
