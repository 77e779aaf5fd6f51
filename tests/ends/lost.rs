//! Sessions that die for good: a process is killed, or the way between the two is cut for longer than streams are parked. Both
//! applications of every stream see an RST, as if their peer's host had said that it knows of no connection; nobody sees a FIN that
//! nobody sent. The sockets of the killed process are closed by the kernel: these too by RST.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::pair::{Pair, Side, Target};
use crate::server::Server;
use crate::socket::{App, How, Seen};
use crate::{Steps, TRANSPORTS, in_time};

/// How the session dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// A process is killed and stays away: the other's streams wait for it until their time is over.
    Killed(Side),
    /// A process is killed and another takes its place: the other's streams are reset when that comes.
    Replaced(Side),
    /// Both live, but no carrier passes any more.
    Cut,
}

/// What a stream is at when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is on its way.
    Idle,
    /// The client sends all it can to a server that does not read.
    ClientFloods,
    ServerFloods,
    /// The client has sent something and its FIN, and the server has read both.
    ClientFinished,
    ServerFinished,
}

const STATES: [State; 5] =
    [State::Idle, State::ClientFloods, State::ServerFloods, State::ClientFinished, State::ServerFinished];
/// Bytes before a FIN.
const BYTES: usize = 64 * 1024;

/// What one application does in its stream's life.
#[derive(Debug, Clone, Copy)]
enum Part {
    Waits,
    Floods,
    /// Reads nothing until it is told of the end.
    Ignores,
    Finishes,
    /// Reads to the FIN, and says nothing.
    Answers,
}

impl State {
    /// Of the client and the server.
    fn parts(self) -> [Part; 2] {
        match self {
            Self::Idle => [Part::Waits, Part::Waits],
            Self::ClientFloods => [Part::Floods, Part::Ignores],
            Self::ServerFloods => [Part::Ignores, Part::Floods],
            Self::ClientFinished => [Part::Finishes, Part::Answers],
            Self::ServerFinished => [Part::Answers, Part::Finishes],
        }
    }
}

impl Part {
    /// What is seen: of bytes that were cut short any beginning, shown as none.
    fn must_see(self) -> Vec<Seen> {
        let read = |len, end| Seen::Read { len, end };
        match self {
            Self::Waits => vec![read(0, How::Reset), Seen::Wrote(How::Pipe)],
            Self::Floods => vec![Seen::Wrote(How::Reset), Seen::Wrote(How::Pipe)],
            Self::Ignores => vec![Seen::Told, read(0, How::Reset), Seen::Wrote(How::Pipe)],
            Self::Finishes => vec![read(0, How::Reset), Seen::Wrote(How::Pipe)],
            // As TCP has it behind a FIN: it is told, and writing shows it; reading stays at the end of file.
            Self::Answers => vec![read(BYTES, How::Fin), Seen::Told, Seen::Wrote(How::Pipe), read(0, How::Fin)],
        }
    }

    /// Plays the part; `ready` is called when the end may come.
    async fn play(self, mut app: App, ready: impl Fn()) -> Vec<Seen> {
        match self {
            Self::Waits => {
                ready();
                app.step("waiting for the end");
                app.read_to_end().await;
            }
            Self::Floods => {
                app.step("sending until cut");
                app.flood(ready).await;
            }
            Self::Ignores => {
                app.step("waiting for something to ignore");
                app.unread().await;
                ready();
                app.step("waiting to be told, without reading");
                app.told().await;
                app.read_to_end().await;
            }
            Self::Finishes => {
                app.send(BYTES).await;
                app.half_close().await;
                ready();
                app.step("waiting for the end, finished");
                app.read_to_end().await;
            }
            Self::Answers => {
                app.step("reading");
                app.read_to_end().await;
                ready();
                app.step("waiting to be told, having read all");
                app.told().await;
                app.write_one().await;
                app.read_to_end().await;
                return app.into_seen();
            }
        }
        app.write_one().await;
        app.into_seen()
    }
}

async fn deaths(transport: &str) {
    let kinds = [
        Death::Killed(Side::Entry),
        Death::Killed(Side::Exit),
        Death::Replaced(Side::Entry),
        Death::Replaced(Side::Exit),
        Death::Cut,
    ];
    join_all(kinds.map(|death| die(transport, death))).await;
}

async fn die(transport: &str, death: Death) {
    // A process that was replaced must be known as another long before this is over.
    let park = if matches!(death, Death::Replaced(_)) { "1h" } else { "1s" };
    let server = Server::start();
    let mut pair = Pair::start(transport, park, &[Target::to(server.address().port())]).await;
    let entry = pair.entry(0, server.address().port());
    let ready = watch::Sender::new(HashSet::new());
    let streams = STATES.map(|state| {
        let (server, ready) = (&server, &ready);
        async move {
            let steps = Steps::default();
            let lived = in_time((transport, death, state), &steps, live(state, server, entry, &steps, ready)).await;
            let seen = lived.unwrap();
            let expected = state.parts().map(Part::must_see);
            assert_eq!(seen, expected, "{transport} {death:?} {state:?}: what client and server saw");
        }
    });
    let kill = async {
        ready.subscribe().wait_for(|ready| ready.len() == 2 * STATES.len()).await.unwrap();
        match death {
            Death::Killed(side) => pair.kill(side),
            Death::Replaced(side) => {
                pair.kill(side);
                pair.restart(side);
            }
            Death::Cut => pair.wire.cut(),
        }
    };
    tokio::join!(join_all(streams), kill);
}

/// One stream, from its beginning to its death.
async fn live(
    state: State,
    server: &Server,
    entry: SocketAddr,
    steps: &[Arc<Mutex<&'static str>>; 2],
    ready: &watch::Sender<HashSet<(u8, usize)>>,
) -> [Vec<Seen>; 2] {
    let (client, server) = server.connect(entry).await.unwrap();
    let (client, server) = App::both(client, server, steps);
    let [client_part, server_part] = state.parts();
    let is_ready = |side| {
        move || {
            ready.send_if_modified(|ready| ready.insert((state as u8, side)));
        }
    };
    let (client, server) = tokio::join!(client_part.play(client, is_ready(0)), server_part.play(server, is_ready(1)));
    [client, server].map(|mut seen| {
        for seen in &mut seen {
            if let Seen::Read { len, end: How::Reset } = seen {
                *len = 0;
            }
        }
        seen
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_dies_resets_both_ends() {
    join_all(TRANSPORTS.map(deaths)).await;
}
