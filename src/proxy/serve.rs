//! One connection to mode `rewrite` from its accept to its end: what stands before Kafka, who it is, and what is counted of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;

use super::clients::{Seat, TooMany, Way, Who};
use super::connection::{Ended, Meter, Opening};
use super::login::LoginError;
use super::nodes::{Door, To, Traffic};
use super::proxy_header;
use super::rewrite::{Mapping, RewriteError, SASL_AUTHENTICATION_FAILED, Tally};
use super::rewriter::{MAX_CONNECTIONS, Shared};
use crate::lifecycle::Drain;
use crate::net::tcp::TcpConn;
use crate::net::{HostPort, Stream};

/// How long a load balancer may take for its PROXY header, which it sends first of all.
const PROXY_HEADER: Duration = Duration::from_secs(5);

/// How long accepting rests after a failure, such as too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// What is counted where a client has all its connections.
const TOO_MANY: &str = "too many connections of a client";

/// Takes connections until the drain begins.
pub(super) async fn accept(shared: Arc<Shared>, door: Door, drain: Drain) {
    loop {
        let accepted = tokio::select! {
            () = drain.draining() => return,
            accepted = door.socket.accept() => accepted,
        };
        match accepted {
            Ok((socket, client)) => {
                let Some(open) = Open::enter(&shared, &door.to) else {
                    if let Some(held) = shared.refusals.note("too many connections", Instant::now()) {
                        tracing::warn!(cluster = %shared.cluster, %client, most = MAX_CONNECTIONS, held, "too many connections; refused");
                    }
                    continue;
                };
                drain.spawn(Box::pin(serve(open, socket, client, drain.clone())));
            }
            // The client went away between SYN and accept: nothing of ours.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if let Some(held) = shared.refusals.note("accept failed", Instant::now()) {
                    tracing::warn!(cluster = %shared.cluster, %error, held, "cannot accept; check the limit on open files");
                }
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// One connection from its first byte to its end: what stands before Kafka, then that.
async fn serve(mut open: Open, socket: TcpStream, mut client: SocketAddr, drain: Drain) {
    let shared = Arc::clone(&open.shared);
    let mut conn = TcpConn::new(socket);
    let refused = |reason: &'static str, client: SocketAddr, error: &dyn std::fmt::Display| {
        if let Some(held) = shared.refusals.note(reason, Instant::now()) {
            tracing::warn!(cluster = %shared.cluster, %client, held, %error, "connection closed");
        }
    };
    if shared.proxy_protocol {
        match proxied(&mut conn).await {
            Ok(named) => client = named.unwrap_or(client),
            Err(why) => return refused("PROXY header", client, &why),
        }
    }
    if let Some(clients) = &shared.clients {
        match clients.enter(Who::Address(client.ip()), Instant::now()) {
            Ok(seat) => open.seat = Some(seat),
            Err(error) => return refused(TOO_MANY, client, &error),
        }
    }
    match &shared.client_tls {
        None => carry(open, conn, client, drain).await,
        Some(acceptor) => match Box::pin(acceptor.accept(Box::new(conn))).await {
            Ok(stream) => carry(open, stream, client, drain).await,
            Err(error) => refused("TLS with a client", client, &error),
        },
    }
}

/// Takes a PROXY header off a connection, and not a byte more; who the client is by it.
async fn proxied(conn: &mut TcpConn) -> Result<Option<SocketAddr>, &'static str> {
    let reading = async {
        let mut header = Vec::new();
        loop {
            let need = match proxy_header::read(&header) {
                proxy_header::Step::Need(need) => need,
                proxy_header::Step::Done(client) => return Ok(client),
                proxy_header::Step::Bad(why) => return Err(why),
            };
            let taken = match conn.fill_buf().await {
                Ok([]) | Err(_) => return Err("the connection ended within its PROXY header"),
                Ok(bytes) => {
                    let taken = &bytes[..need.min(bytes.len())];
                    header.extend_from_slice(taken);
                    taken.len()
                }
            };
            conn.consume(taken);
        }
    };
    tokio::time::timeout(PROXY_HEADER, reading).await.unwrap_or(Err("no PROXY header in time"))
}

/// One connection of a Kafka client.
async fn carry<C: Stream>(mut open: Open, conn: C, client: SocketAddr, drain: Drain) {
    let shared = Arc::clone(&open.shared);
    open.client = Some(client);
    let node_id = open.node_id();
    let refused = |error: &RewriteError, target: Option<&HostPort>| {
        if let RewriteError::Denied { key, .. } = error {
            shared.note_denied(None, Some(client), *key, 1);
        }
        if let Some(held) = shared.refusals.note(error.reason(), Instant::now()) {
            let target = target.map(tracing::field::display);
            tracing::warn!(cluster = %shared.cluster, %client, node_id, target, held, %error, "connection closed");
        }
    };
    let opening = match Opening::new(conn, &shared.rules).first_request(&drain).await {
        Ok(Some(opening)) => opening,
        Ok(None) => return,
        Err(error) => return refused(&error, None),
    };
    let (mut upstream, target) = match shared.dial(&open.to).await {
        Ok(reached) => reached,
        Err(error) => {
            if let Some(held) = shared.refusals.note(error.reason(), Instant::now()) {
                tracing::warn!(cluster = %shared.cluster, %client, node_id, held, %error, "no broker reached for a client");
            }
            return opening.reset();
        }
    };
    let not_authenticated = |error: &LoginError| {
        if let Some(held) = shared.refusals.note(error.reason(), Instant::now()) {
            tracing::warn!(cluster = %shared.cluster, %client, node_id, held, %error, "no authentication for a client");
        }
    };
    // Boxed: it runs for a moment, and the connection lies idle for hours.
    let login = match Box::pin(shared.log_in(&mut upstream, &target)).await {
        Ok(login) => login,
        Err(error) => {
            not_authenticated(&error);
            upstream.reset();
            return opening.refuse(SASL_AUTHENTICATION_FAILED).await;
        }
    };
    tracing::debug!(cluster = %shared.cluster, %client, node_id, %target, "connection open");
    match opening.run(upstream, login, &mut open, &drain).await {
        Ended::Refused(error) => refused(&error, Some(&target)),
        Ended::NotRenewed(error) => not_authenticated(&error),
        Ended::TooMany(error) => {
            if let Some(held) = shared.refusals.note(TOO_MANY, Instant::now()) {
                tracing::warn!(cluster = %shared.cluster, %client, held, %error, "connection closed");
            }
        }
        ended => tracing::debug!(cluster = %shared.cluster, %client, node_id, %target, ?ended, "connection over"),
    }
}

/// A connection that is counted while it lives.
struct Open {
    shared: Arc<Shared>,
    to: To,
    /// Its place among the connections of its client, where those are bounded.
    seat: Option<Seat>,
    /// Who it is, as far as is known.
    client: Option<SocketAddr>,
}

impl Open {
    fn enter(shared: &Arc<Shared>, to: &To) -> Option<Self> {
        let below = |open| (open < MAX_CONNECTIONS).then_some(open + 1);
        shared.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        let open = Self { shared: Arc::clone(shared), to: to.clone(), seat: None, client: None };
        open.traffic().total.fetch_add(1, Ordering::Relaxed);
        Some(open)
    }

    fn traffic(&self) -> &Traffic {
        match &self.to {
            To::Anyone => &self.shared.anyone,
            To::Node(door) => &door.traffic,
        }
    }

    fn node_id(&self) -> Option<i32> {
        match &self.to {
            To::Anyone => None,
            To::Node(door) => Some(door.node_id),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        self.traffic().ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Mapping for &mut Open {
    fn local(&mut self, node_id: i32, host: &str, port: i32) -> Option<(String, u16)> {
        self.shared.nodes.local(node_id, host, port)
    }

    fn is_local(&mut self, host: &[u8], port: i32) -> bool {
        self.shared.nodes.is_local(host, port)
    }
}

impl Meter for &mut Open {
    fn bytes(&mut self, to_broker: u64, to_client: u64) {
        if to_broker > 0 {
            self.traffic().to_broker.fetch_add(to_broker, Ordering::Relaxed);
        }
        if to_client > 0 {
            self.traffic().to_client.fetch_add(to_client, Ordering::Relaxed);
        }
        if let Some(seat) = &self.seat {
            let now = Instant::now();
            for (way, bytes) in [(Way::In, to_broker), (Way::Out, to_client)] {
                if bytes > 0 {
                    seat.spend(way, bytes, now);
                }
            }
        }
    }

    fn answered(&mut self, key: i16, took: Duration) {
        self.traffic().latencies.note(key, took);
    }

    fn renewed(&mut self) {
        self.shared.renewals.fetch_add(1, Ordering::Relaxed);
    }

    fn refused_logins(&mut self, count: u64) {
        for _ in 0..count {
            if let Some(held) = self.shared.refusals.note("client authentication failed", Instant::now()) {
                let client = self.client.map(tracing::field::display);
                tracing::warn!(cluster = %self.shared.cluster, client, held, "a client did not prove who it is");
            }
        }
    }

    fn proved(&mut self, user: &str) -> Result<(), TooMany> {
        match &mut self.seat {
            Some(seat) => seat.prove(user, Instant::now()),
            None => Ok(()),
        }
    }

    fn waits_until(&mut self, way: Way) -> Option<Instant> {
        self.seat.as_ref().and_then(|seat| seat.waits_until(way, Instant::now()))
    }

    fn note_pause(&mut self, way: Way, time: Duration) {
        if let Some(seat) = &self.seat {
            seat.note_pause(way, time);
        }
    }

    fn denied(&mut self, user: Option<&str>, key: i16, count: u64) {
        self.shared.note_denied(user, self.client, key, count);
    }

    fn tally(&mut self, tally: &Tally) {
        let shared = &self.shared;
        let add = |counter: &AtomicU64, amount| counter.fetch_add(amount, Ordering::Relaxed);
        add(&shared.nodes_rewritten, tally.nodes);
        add(&shared.nodes_hidden, tally.hidden);
        add(&shared.frames_hidden, tally.hidden_frames);
        add(&shared.leaks, tally.leaks);
        for (counter, amount) in shared.responses.iter().zip(tally.responses) {
            add(counter, amount);
        }
        if tally.out_of_order + tally.unknown > 0
            && let Some(held) = shared.refusals.note("response out of order", Instant::now())
        {
            let Tally { out_of_order, unknown, .. } = tally;
            let cluster = &shared.cluster;
            tracing::warn!(
                cluster,
                node_id = self.node_id(),
                out_of_order,
                unknown,
                held,
                "a broker answered out of order"
            );
        }
    }
}
