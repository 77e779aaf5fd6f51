//! The server that all streams lead to, and the match of a client's end with the server's.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Accepts, and tells connections apart by their first eight bytes.
pub struct Server {
    address: SocketAddr,
    next: AtomicU64,
    awaited: Arc<Mutex<HashMap<u64, oneshot::Sender<TcpStream>>>>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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

    /// A stream by way of `address`: the client's end and the server's, with nothing on its way.
    pub async fn connect(&self, address: SocketAddr) -> (TcpStream, TcpStream) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.awaited.lock().unwrap().insert(number, sender);
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_u64(number).await.unwrap();
        (client, receiver.await.unwrap())
    }
}
