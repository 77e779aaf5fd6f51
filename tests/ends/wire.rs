//! The wire between the endpoints: carriers pass over it, and are reset when told to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Relays every connection to one address.
pub struct Wire {
    near: SocketAddr,
    state: Arc<State>,
    most: usize,
    /// Faults asked for, and how many of these have had theirs.
    asked: AtomicU64,
    served: tokio::sync::Mutex<u64>,
}

/// How long all carriers pass between two faults. A way that is cut all the time carries nothing, whatever runs over it.
const REST: Duration = Duration::from_millis(50);

#[derive(Default)]
struct State {
    /// One for each carrier that passes: dropped, it resets the carrier.
    carriers: Mutex<Vec<Carrier>>,
    /// How many there are.
    count: watch::Sender<usize>,
    /// New carriers are refused.
    cut: watch::Sender<bool>,
}

struct Carrier {
    id: u64,
    _pass: watch::Sender<()>,
}

impl Wire {
    /// A wire to `far`, where nobody need listen yet, for `most` carriers.
    pub async fn start(far: SocketAddr, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            for id in 0.. {
                let Ok((socket, _)) = listener.accept().await else { return };
                tokio::spawn(carry(id, socket, far, Arc::clone(&shared)));
            }
        });
        Self { near, state, most, asked: AtomicU64::new(0), served: tokio::sync::Mutex::default() }
    }

    /// What the dialling endpoint dials.
    pub fn near(&self) -> SocketAddr {
        self.near
    }

    /// Waits until so many carriers pass.
    async fn carriers(&self, least: usize) {
        self.state.count.subscribe().wait_for(|count| *count >= least).await.unwrap();
    }

    /// Resets the carrier that has passed the longest.
    pub async fn reset_one(&self) {
        self.fault(|carriers| drop(carriers.remove(0))).await;
    }

    /// Resets all carriers; new ones pass.
    pub async fn reset_all(&self) {
        self.fault(Vec::clear).await;
    }

    /// Has one fault happen between the call and its return. Who asks while a fault is due is served by that one.
    async fn fault(&self, happens: impl FnOnce(&mut Vec<Carrier>)) {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut served = self.served.lock().await;
        if *served >= asked {
            return;
        }
        loop {
            self.carriers(self.most).await;
            tokio::time::sleep(REST).await;
            let mut carriers = self.state.carriers.lock().unwrap();
            if !carriers.is_empty() {
                *served = self.asked.load(Ordering::Relaxed);
                happens(&mut carriers);
                return self.state.recount(&carriers);
            }
        }
    }

    /// Resets all carriers and lets no new one in.
    pub fn cut(&self) {
        self.state.cut.send_replace(true);
        self.state.clear();
    }
}

impl State {
    fn recount(&self, carriers: &[Carrier]) {
        self.count.send_replace(carriers.len());
    }

    fn clear(&self) {
        let mut carriers = self.carriers.lock().unwrap();
        carriers.clear();
        self.recount(&carriers);
    }
}

/// One carrier, from its first byte to its end.
async fn carry(id: u64, mut near: TcpStream, far: SocketAddr, state: Arc<State>) {
    let reset = |socket: &TcpStream| drop(socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)));
    let Ok(mut far) = TcpStream::connect(far).await else { return reset(&near) };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (pass, mut passes) = watch::channel(());
    {
        let mut carriers = state.carriers.lock().unwrap();
        // Asked under the lock, so that none slips in while all are being cut.
        if *state.cut.borrow() {
            return (reset(&near), reset(&far)).0;
        }
        carriers.push(Carrier { id, _pass: pass });
        state.recount(&carriers);
    }
    tokio::select! {
        // Its sender was dropped.
        _ = passes.changed() => (reset(&near), reset(&far)).0,
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
    }
    let mut carriers = state.carriers.lock().unwrap();
    carriers.retain(|carrier| carrier.id != id);
    state.recount(&carriers);
}
