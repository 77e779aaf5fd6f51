//! One address for all names: what the SNI decides, over real TLS; and the bounds of the listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::directory::Directory;
use super::listener::Gate;
use super::sni::tests::hello;
use super::tests::{Stop, Table, bootstrap, config, door, echo, exchange, network, start};
use super::*;
use crate::config::AddressPlan;

/// A broker with a certificate of its own for `name`, that says its name to whoever trusts it.
async fn tls_broker(name: &'static str) -> (SocketAddr, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let settings =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(settings));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                // A client that has read all may be gone before the end is said.
                let _ = stream.write_all(name.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (address, certificate)
}

/// What a client that trusts `roots` and checks host names reads from `name` at `address`.
async fn read_as(
    address: SocketAddr,
    name: &'static str,
    roots: &[CertificateDer<'static>],
    sni: bool,
) -> std::io::Result<String> {
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    let mut settings = rustls::ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
    settings.enable_sni = sni;
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(settings)).connect(name, stream).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn shared(table: &Arc<Table>) -> (NamesHandle, Stop, SocketAddr, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    let address = std::net::Ipv4Addr::from_bits(network().to_bits() + 1);
    let (handle, stop) = start(&config(AddressPlan::Shared(address.into())), table, state.path());
    let listener = handle.status().shared_listeners[0];
    assert_eq!(listener.ip(), IpAddr::V4(address));
    (handle, stop, listener, state)
}

#[tokio::test]
async fn tls_clients_reach_the_broker_that_they_name() {
    let (zero, zero_cert) = tls_broker("b0.grape.test").await;
    let (one, one_cert) = tls_broker("b1.grape.test").await;
    let table = Table { targets: vec![("b0.grape.test", zero), ("b1.grape.test", one)], ..Table::default() };
    let table = Arc::new(table);
    let (handle, _stop, listener, _state) = shared(&table);
    let roots = [zero_cert, one_cert];
    for name in ["b1.grape.test", "b0.grape.test", "b1.grape.test"] {
        let read = tokio::time::timeout(Duration::from_secs(10), read_as(listener, name, &roots, true));
        assert_eq!(read.await.expect("an end").unwrap(), name);
    }
    let asked: Vec<_> = table.asked.lock().unwrap().iter().map(ToString::to_string).collect();
    let port = listener.port();
    assert_eq!(asked, ["b1", "b0", "b1"].map(|name| format!("{name}.grape.test:{port}")));
    let totals: Vec<_> = handle
        .status()
        .names
        .into_iter()
        .map(|name| (name.name, name.connections_total, name.listeners.len()))
        .collect();
    assert_eq!(totals, [("b0.grape.test".to_owned(), 1, 0), ("b1.grape.test".to_owned(), 2, 0)]);
}

#[tokio::test]
async fn a_hello_in_single_bytes_arrives_whole_and_unchanged() {
    let table = Arc::new(Table { targets: vec![("b0.grape.test", echo(b"").await)], ..Table::default() });
    let (_handle, _stop, listener, _state) = shared(&table);
    let flight = hello("b0.grape.test", false);
    let mut stream = TcpStream::connect(listener).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in &flight {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.write_all(b"and what follows").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, [&flight[..], b"and what follows"].concat());
}

#[tokio::test]
async fn what_cannot_be_routed_is_closed_and_counted_by_reason() {
    let (handle, _stop, listener, _state) = shared(&Arc::default());
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: b0.grape.test\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.7\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"\0\0\0\x1d\0\x12\0\x03\0\0\0\0\0\x09rdkafka-1",
        b"\x16\x03\x01\x00\x00",
        b"",
    ] {
        let mut stream = TcpStream::connect(listener).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut nothing = Vec::new();
        let _ = stream.read_to_end(&mut nothing).await;
        assert_eq!(nothing, b"", "{bytes:?}");
    }
    for (name, sni) in [("b0.orange.test", true), ("b0.grape.test", false)] {
        let error = read_as(listener, name, &[], sni).await.unwrap_err().to_string();
        assert!(error.contains("UnrecognisedName"), "{error}");
    }
    let status = handle.status();
    for reason in
        ["http", "ssh", "proxy_header", "plain_kafka", "malformed_hello", "closed_early", "outside_zones", "no_sni"]
    {
        assert_eq!(status.refused.get(reason), Some(&1), "{reason}");
    }
    assert_eq!(status.refused.len(), 8);
}

#[tokio::test]
async fn names_that_the_exit_refuses_are_reset_and_not_kept() {
    let (handle, _stop, listener, _state) = shared(&Arc::default());
    let mut stream = TcpStream::connect(listener).await.unwrap();
    stream.write_all(&hello("invented.grape.test", true)).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let status = handle.status();
    assert_eq!(status.refused["dial_failed"], 1);
    assert_eq!(status.names.len(), 1, "the bootstrap name alone");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_after_three_seconds() {
    let (handle, _stop, listener, _state) = shared(&Arc::default());
    let mut stream = TcpStream::connect(listener).await.unwrap();
    stream.write_all(&hello("b0.grape.test", true)[..20]).await.unwrap();
    assert!(stream.read_u8().await.is_err());
    assert_eq!(handle.status().refused["hello_timeout"], 1);
}

#[tokio::test]
async fn connections_over_the_limit_are_reset_and_the_others_live() {
    let state = tempfile::tempdir().unwrap();
    let table = Arc::new(Table { targets: vec![("b0.grape.test", echo(b"").await)], ..Table::default() });
    let gate = Arc::new(Gate::new(table, 1));
    let zones = Zones::new(&["grape.test".to_owned()]).unwrap();
    let plan = AddressPlan::PerName(network(), 29);
    let directory =
        Directory::open(&plan, zones, vec![0], &[bootstrap()[0].host()], state.path(), Arc::clone(&gate)).unwrap();
    let directory = Arc::new(directory);
    let drain = Drain::new();
    gate.start(&directory, &drain);
    let address = directory.entries()[0].listeners()[0];
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(b"a").await.unwrap();
    assert_eq!(first.read_u8().await.unwrap(), b'a');
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(second.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(gate.refused.counts()["connection_limit"], 1);
    first.write_all(b"b").await.unwrap();
    assert_eq!(first.read_u8().await.unwrap(), b'b');
    drain.begin();
}

#[tokio::test]
async fn both_ways_of_telling_brokers_apart_take_many_connections_at_once() {
    let broker = echo(b"").await;
    let table = Arc::new(Table { targets: vec![("b0.grape.test", broker)], ..Table::default() });
    let state = tempfile::tempdir().unwrap();
    let (by_name, _stop) = start(&config(AddressPlan::PerName(network(), 29)), &table, state.path());
    let (by_sni, _stop_too, listener, _state) = shared(&table);
    let flight = hello("b0.grape.test", false);
    let exchanges = (0..100).map(|n| {
        let address = if n % 2 == 0 { door(&by_name, "b0.grape.test") } else { listener };
        exchange(address, &flight)
    });
    for back in futures_util::future::join_all(exchanges).await {
        assert_eq!(back, flight);
    }
    for handle in [by_name, by_sni] {
        assert_eq!(handle.status().names[0].connections_total, 50);
    }
}
