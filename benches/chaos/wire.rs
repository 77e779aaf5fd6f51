//! The wire between the endpoints: relays carriers, and cuts them or goes silent when told to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::endpoints::free_port;

/// What happens to one carrier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    /// Nothing passes, nothing is said.
    Silent,
    /// Both sides see RST.
    Reset,
}

pub struct Wire {
    near: SocketAddr,
    far: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    carriers: Mutex<Vec<watch::Sender<Fate>>>,
    faults: AtomicU64,
    /// New carriers are silent too.
    silent: AtomicBool,
    /// New carriers are refused.
    cut: AtomicBool,
}

impl State {
    fn each(&self, fate: Fate) {
        for carrier in self.carriers.lock().unwrap().iter() {
            let _ = carrier.send(fate);
        }
    }
}

impl Wire {
    /// A wire whose far end nobody holds yet.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = listener.local_addr().unwrap();
        let far = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(carry(socket, far, Arc::clone(&shared)));
            }
        });
        Self { near, far, state }
    }

    /// What the dialling endpoint dials.
    pub fn near(&self) -> SocketAddr {
        self.near
    }

    /// Where the listening endpoint listens.
    pub fn far(&self) -> SocketAddr {
        self.far
    }

    /// Carriers that pass now.
    pub fn carriers(&self) -> usize {
        self.state.carriers.lock().unwrap().len()
    }

    /// Faults so far.
    pub fn faults(&self) -> u64 {
        self.state.faults.load(Ordering::Relaxed)
    }

    /// Resets one carrier, if there is one.
    pub fn reset(&self, which: u64) {
        self.one(which, Fate::Reset);
    }

    /// One carrier goes silent, for ever.
    pub fn hole_one(&self, which: u64) {
        self.one(which, Fate::Silent);
    }

    fn one(&self, which: u64, fate: Fate) {
        let carriers = self.state.carriers.lock().unwrap();
        if !carriers.is_empty() {
            let _ = carriers[(which % carriers.len() as u64) as usize].send(fate);
            self.state.faults.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All carriers, and those to come, go silent.
    pub fn hole_all(&self) {
        self.state.silent.store(true, Ordering::Relaxed);
        self.state.each(Fate::Silent);
        self.state.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// All carriers are reset, and no new one is let in.
    pub fn cut_all(&self) {
        self.state.cut.store(true, Ordering::Relaxed);
        self.state.each(Fate::Reset);
        self.state.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Everything passes again, what was silent included.
    pub fn heal(&self) {
        self.state.silent.store(false, Ordering::Relaxed);
        self.state.cut.store(false, Ordering::Relaxed);
        self.state.each(Fate::Pass);
    }
}

/// One carrier, from its first byte to its end.
async fn carry(near: TcpStream, far: SocketAddr, state: Arc<State>) {
    if state.cut.load(Ordering::Relaxed) {
        return reset(&near);
    }
    let Ok(far) = TcpStream::connect(far).await else { return reset(&near) };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let fate = if state.silent.load(Ordering::Relaxed) { Fate::Silent } else { Fate::Pass };
    let (sender, receiver) = watch::channel(fate);
    state.carriers.lock().unwrap().push(sender.clone());
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let there = relay(near_read, far_write, receiver.clone());
    let back = relay(far_read, near_write, receiver);
    let ((near_read, far_write), (far_read, near_write)) = tokio::join!(there, back);
    state.carriers.lock().unwrap().retain(|one| !one.same_channel(&sender));
    if *sender.borrow() == Fate::Reset {
        reset(&near_read.reunite(near_write).unwrap());
        reset(&far_read.reunite(far_write).unwrap());
    }
}

fn reset(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// One direction, until its end or a reset.
async fn relay(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fate: watch::Receiver<Fate>,
) -> (OwnedReadHalf, OwnedWriteHalf) {
    let mut buffer = vec![0; 64 * 1024];
    // What was read and is not written yet: a wire that was silent goes on where it stopped.
    let (mut at, mut filled) = (0, 0);
    loop {
        let now = *fate.borrow_and_update();
        let step = async {
            match now {
                Fate::Pass if at < filled => {
                    at += to.write(&buffer[at..filled]).await?;
                    Ok::<_, std::io::Error>(true)
                }
                Fate::Pass => {
                    (at, filled) = (0, from.read(&mut buffer).await?);
                    if filled == 0 {
                        to.shutdown().await?;
                    }
                    Ok(filled > 0)
                }
                Fate::Silent => std::future::pending().await,
                Fate::Reset => Ok(false),
            }
        };
        tokio::select! {
            biased;
            changed = fate.changed() => if changed.is_err() { return (from, to) },
            more = step => if !matches!(more, Ok(true)) { return (from, to) },
        }
    }
}
