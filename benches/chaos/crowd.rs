//! Very many connections: the far server of them is a process of its own, for one process may not open enough descriptors.
//!
//! The first byte of a connection says what the server is to do with it.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Every byte comes back.
pub const ECHO: u8 = b'e';
/// Bytes come as fast as they are taken.
pub const SEND: u8 = b's';
/// Bytes are taken, [`SIP`] at a time.
pub const SIP_IN: u8 = b'r';
/// What a slow reader takes, and how often.
pub const SIP: (usize, Duration) = (256, Duration::from_secs(1));

/// The server, in a process that ends with this value.
pub struct Crowd {
    pub address: SocketAddr,
    child: Child,
}

impl Crowd {
    /// A server whose sockets have buffers of `buffer` bytes; zero leaves them to the kernel.
    pub fn start(buffer: u32) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["crowd", &buffer.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { address: line.trim().parse().unwrap(), child }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket whose buffers have `buffer` bytes, so that a stopped reader is felt soon.
fn socket(buffer: u32) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    if buffer > 0 {
        socket.set_recv_buffer_size(buffer).unwrap();
        socket.set_send_buffer_size(buffer).unwrap();
    }
    socket
}

/// Connects to `entry` and says what the server is to do.
pub async fn connect(entry: SocketAddr, buffer: u32, kind: u8) -> std::io::Result<TcpStream> {
    let mut stream = socket(buffer).connect(entry).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind]).await?;
    Ok(stream)
}

/// Connects `count` echoing streams, a bounded number at once, and sees each one's first byte come back.
pub async fn connect_all(entry: SocketAddr, buffer: u32, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let few = (count - all.len()).min(128);
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..few {
            opening.spawn(async move {
                let mut stream = connect(entry, buffer, ECHO).await?;
                echo(&mut stream).await.map(|()| stream)
            });
        }
        while let Some(opened) = opening.join_next().await {
            all.push(opened.unwrap().unwrap_or_else(|error| panic!("stream {} of {count}: {error}", all.len())));
        }
    }
    all
}

/// One byte there and back.
pub async fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"x").await?;
    stream.read_u8().await.map(|_| ())
}

/// Takes a little at a time until the stream ends.
pub async fn sip(stream: &mut TcpStream) {
    let mut some = vec![0; SIP.0];
    while let Ok(1..) = stream.read(&mut some).await {
        tokio::time::sleep(SIP.1).await;
    }
}

/// Sends without end.
pub async fn pour(stream: &mut TcpStream) {
    static BLOCK: [u8; 64 * 1024] = [0x5a; 64 * 1024];
    while stream.write_all(&BLOCK).await.is_ok() {}
}

/// The server's process.
pub async fn main(args: &[String]) {
    let buffer = args[0].parse().unwrap();
    let socket = socket(buffer);
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(4096).unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    match stream.read_u8().await {
        Ok(ECHO) => {
            let mut some = [0; 64];
            while let Ok(n @ 1..) = stream.read(&mut some).await {
                if stream.write_all(&some[..n]).await.is_err() {
                    return;
                }
            }
        }
        Ok(SEND) => pour(&mut stream).await,
        // Said before, so that whoever connects knows that the way is open.
        Ok(SIP_IN) if stream.write_u8(SIP_IN).await.is_ok() => sip(&mut stream).await,
        _ => {}
    }
}
