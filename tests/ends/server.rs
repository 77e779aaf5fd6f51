//! The server that all streams lead to, and the match of a client's end with the server's.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// Socket buffers of the applications. Ways that are full hold the kernel's memory, of which one machine has only so much: the
/// kernel ends connections as it likes when that is gone.
const BUFFER: u32 = 64 * 1024;

/// Accepts, and tells connections apart by their first eight bytes.
pub struct Server {
    address: SocketAddr,
    next: AtomicU64,
    awaited: Arc<Mutex<HashMap<u64, oneshot::Sender<TcpStream>>>>,
}

impl Server {
    pub fn start() -> Self {
        let listening = TcpSocket::new_v4().unwrap();
        shrink(&listening);
        listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listening.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let awaited = Arc::<Mutex<HashMap<u64, oneshot::Sender<TcpStream>>>>::default();
        let waiting = Arc::clone(&awaited);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let waiting = Arc::clone(&waiting);
                tokio::spawn(async move {
                    let Ok(number) = socket.read_u64().await else { return };
                    if let Some(waits) = waiting.lock().unwrap().remove(&number) {
                        let _ = waits.send(socket);
                    }
                });
            }
        });
        Self { address, next: AtomicU64::new(0), awaited }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A stream by way of `address`: the client's end and the server's, with nothing on its way. Nothing where the client was
    /// reset before the server had it.
    pub async fn connect(&self, address: SocketAddr) -> Option<(TcpStream, TcpStream)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.awaited.lock().unwrap().insert(number, sender);
        let client = TcpSocket::new_v4().unwrap();
        shrink(&client);
        let mut client = client.connect(address).await.unwrap();
        client.write_u64(number).await.unwrap();
        tokio::select! {
            server = receiver => Some((client, server.unwrap())),
            _ = client.ready(Interest::ERROR) => None,
        }
    }
}

/// Accepted sockets have what their listener has.
fn shrink(socket: &TcpSocket) {
    socket.set_send_buffer_size(BUFFER).unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
}
