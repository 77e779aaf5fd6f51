//! The plain relay that the tunnel is measured against: tokio's own two-way copy, one process a hop.

use tokio::net::{TcpListener, TcpStream};

/// `relay LISTEN TARGET BUFFER`: relays each connection to TARGET with buffers of BUFFER bytes.
pub fn main(args: &[String]) {
    let [listen, target, buffer] = args else { panic!("relay LISTEN TARGET BUFFER") };
    let buffer: usize = buffer.parse().expect("a number of bytes");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(listen.as_str()).await.expect("the port is free");
        loop {
            let (mut near, _) = listener.accept().await.expect("accepts");
            let target = target.clone();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(target.as_str()).await else { return };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let _ = tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, buffer, buffer).await;
            });
        }
    });
}
