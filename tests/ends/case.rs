//! The matrix: every case, how it is played, and what may be seen.

use std::sync::{Arc, Mutex};

use tokio::net::TcpStream;
use tokio::sync::{Barrier, watch};

use crate::socket::{App, How, Seen};
use crate::wire::Wire;

/// Bytes on their way when the end comes: more than the first windows hold, at last. Before an RST that meets a stopped reader
/// the last stands for as many as all windows and buffers together hold.
const AMOUNTS: [usize; 4] = [0, 1, 64 * 1024, FULL];
const FULL: usize = 4 << 20;

/// Who ends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Client,
    Server,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// shutdown(WR); then the other side answers and closes.
    HalfClose,
    /// close() with everything read.
    Close,
    /// close() with one byte received and not read: RST.
    CloseUnread,
    /// The same, while the other side sends without end.
    CloseFlooded,
    /// SO_LINGER 0 and close(): RST.
    Reset,
    /// shutdown(WR), and RST while the other side says nothing.
    HalfCloseReset,
    /// shutdown(WR), and RST while the other side sends without end.
    HalfCloseFlooded,
    /// Both shutdown(WR) at once.
    BothHalfClose,
    /// Both RST at once.
    BothReset,
}

/// What the other side does with what is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    Reads,
    /// It begins only when its peer can send no more, or, before an RST, when its kernel knows of that.
    Stopped,
}

/// What becomes of the carriers just before each end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    None,
    One,
    All,
}

pub const LOSSES: [Loss; 3] = [Loss::None, Loss::One, Loss::All];

/// One case of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub first: First,
    pub end: End,
    pub amount: usize,
    pub reader: Reader,
    pub loss: Loss,
}

/// What both applications saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Of the side that ends first; with "both", of the client.
    pub ender: Vec<Seen>,
    pub other: Vec<Seen>,
}

/// Every case with this loss.
pub fn all(loss: Loss) -> Vec<Case> {
    let mut cases = Vec::new();
    for first in [First::Client, First::Server] {
        for end in [
            End::HalfClose,
            End::Close,
            End::CloseUnread,
            End::CloseFlooded,
            End::Reset,
            End::HalfCloseReset,
            End::HalfCloseFlooded,
            End::BothHalfClose,
            End::BothReset,
        ] {
            for amount in AMOUNTS {
                for reader in [Reader::Reads, Reader::Stopped] {
                    cases.push(Case { first, end, amount, reader, loss });
                }
            }
        }
    }
    // Where both end at once there is no first, and nobody is left to read after two resets.
    cases.retain(|case| match case.end {
        End::BothHalfClose => case.first == First::Client,
        End::BothReset => case.first == First::Client && case.reader == Reader::Stopped,
        _ => true,
    });
    cases
}

impl Case {
    /// Plays the case on the two ends of a stream; without a wire there are no carriers to lose.
    pub async fn play(
        self,
        client: TcpStream,
        server: TcpStream,
        steps: &[Arc<Mutex<&'static str>>; 2],
        wire: Option<&Wire>,
    ) -> Outcome {
        let (client, server) = App::both(client, server, steps);
        let (ender, other) = if self.first == First::Client { (client, server) } else { (server, client) };
        let stage = Stage {
            case: self,
            wire,
            stuck: watch::Sender::new(false),
            full: watch::Sender::new(false),
            left: watch::Sender::new(false),
            both: Barrier::new(2),
        };
        let stage = &stage;
        let (ender, other) = match self.end {
            End::HalfClose => tokio::join!(stage.half_closes(ender), stage.answers(other)),
            End::Close => tokio::join!(stage.closes(ender), stage.finds_it_closed(other)),
            End::CloseUnread | End::CloseFlooded | End::Reset => {
                tokio::join!(stage.cuts(ender), stage.is_cut(other))
            }
            End::HalfCloseReset | End::HalfCloseFlooded => {
                tokio::join!(stage.half_closes_and_cuts(ender), stage.is_cut_in_its_answer(other))
            }
            End::BothHalfClose => tokio::join!(stage.half_closes_too(ender), stage.half_closes_too(other)),
            End::BothReset => tokio::join!(stage.resets_too(ender), stage.resets_too(other)),
        };
        Outcome { ender, other }
    }

    /// What the case must show, whatever carries it.
    pub fn allowed(self) -> Outcome {
        let Self { end, amount, .. } = self;
        let read = |len, end| Seen::Read { len, end };
        let whole = read(amount, How::Fin);
        // How much of it is read before a reset is a race that TCP does not decide: see `Outcome::shape`.
        let cut = read(0, How::Reset);
        let (ender, other) = match end {
            End::HalfClose => (vec![whole], vec![whole]),
            End::Close => {
                (vec![], vec![whole, Seen::Wrote(How::Taken), Seen::Told, Seen::Wrote(How::Pipe), read(0, How::Fin)])
            }
            End::CloseUnread | End::Reset if self.reader == Reader::Stopped => {
                (vec![], vec![Seen::Told, cut, Seen::Wrote(How::Pipe)])
            }
            End::CloseUnread | End::Reset => (vec![], vec![cut, Seen::Wrote(How::Pipe)]),
            // The kernel tells once that it was a reset, to whoever asks first.
            End::CloseFlooded if self.reader == Reader::Stopped => {
                (vec![], vec![Seen::Wrote(How::Reset), Seen::Wrote(How::Pipe)])
            }
            End::CloseFlooded => (vec![], vec![Seen::Cut, Seen::Wrote(How::Pipe)]),
            End::HalfCloseReset => (vec![], vec![whole, Seen::Told, Seen::Wrote(How::Pipe), read(0, How::Fin)]),
            End::HalfCloseFlooded => {
                (vec![], vec![whole, Seen::Wrote(How::Pipe), Seen::Wrote(How::Pipe), read(0, How::Fin)])
            }
            End::BothHalfClose => (vec![whole], vec![whole]),
            End::BothReset => (vec![], vec![]),
        };
        Outcome { ender, other }
    }
}

impl Outcome {
    /// What two runs of a case have in common: of what a reset cut short, any beginning is as good as another. That it is a
    /// beginning was checked byte by byte as it was read.
    pub fn shape(mut self) -> Self {
        for seen in self.ender.iter_mut().chain(&mut self.other) {
            if let Seen::Read { len, end: How::Reset } = seen {
                *len = 0;
            }
        }
        self
    }
}

/// What the two applications of a case tell each other outside the stream.
struct Stage<'a> {
    case: Case,
    wire: Option<&'a Wire>,
    /// The ender has sent what it could without being read.
    stuck: watch::Sender<bool>,
    /// The other can send no more without being read.
    full: watch::Sender<bool>,
    /// The other has read the ender's FIN.
    left: watch::Sender<bool>,
    both: Barrier,
}

impl Stage<'_> {
    fn is_full(&self) {
        self.full.send_replace(true);
    }

    /// Hurts the carriers.
    async fn lose(&self) {
        match (self.wire, self.case.loss) {
            (None, _) | (_, Loss::None) => {}
            (Some(wire), Loss::One) => wire.reset_one().await,
            (Some(wire), Loss::All) => wire.reset_all().await,
        }
    }

    /// Sends all, and says when it cannot go on without a reader.
    async fn send(&self, app: &mut App) {
        app.step("sending");
        app.fill(self.case.amount).await;
        self.stuck.send_replace(true);
        app.send(self.case.amount).await;
    }

    async fn may_read(&self, app: &App) {
        if self.case.reader == Reader::Stopped {
            app.step("waiting for the sender to be stuck");
            self.stuck.subscribe().wait_for(|stuck| *stuck).await.unwrap();
        }
    }

    async fn half_closes(&self, mut app: App) -> Vec<Seen> {
        self.send(&mut app).await;
        self.lose().await;
        app.half_close().await;
        app.step("reading the answer");
        app.read_to_end().await;
        app.into_seen()
    }

    /// The answer is as long as what was received, and is sent whole before the close.
    async fn answers(&self, mut app: App) -> Vec<Seen> {
        self.may_read(&app).await;
        app.step("reading");
        app.read_to_end().await;
        app.step("answering");
        app.fill(self.case.amount).await;
        self.lose().await;
        app.send(self.case.amount).await;
        app.into_seen()
    }

    async fn closes(&self, mut app: App) -> Vec<Seen> {
        self.send(&mut app).await;
        self.lose().await;
        app.into_seen()
    }

    async fn finds_it_closed(&self, mut app: App) -> Vec<Seen> {
        self.may_read(&app).await;
        app.step("reading");
        app.read_to_end().await;
        self.lose().await;
        app.write_one().await;
        app.step("waiting to be told that nobody is there");
        app.told().await;
        app.write_one().await;
        app.read_to_end().await;
        app.into_seen()
    }

    /// Waits for what it is sent and will not read.
    async fn unread(&self, app: &App) {
        app.step("waiting for what it will not read");
        if matches!(self.case.end, End::CloseFlooded | End::HalfCloseFlooded) {
            self.full.subscribe().wait_for(|full| *full).await.unwrap();
        }
        if matches!(self.case.end, End::CloseUnread | End::CloseFlooded | End::HalfCloseFlooded) {
            app.unread().await;
        }
    }

    async fn cuts(&self, mut app: App) -> Vec<Seen> {
        self.unread(&app).await;
        app.step("sending");
        match (self.case.reader, self.case.amount) {
            (Reader::Reads, amount) => app.send(amount).await,
            (Reader::Stopped, FULL) => app.fill_all().await,
            (Reader::Stopped, amount) => drop(app.fill(amount).await),
        }
        self.lose().await;
        match self.case.end {
            End::Reset => app.reset(),
            _ => app.into_seen(),
        }
    }

    async fn is_cut(&self, mut app: App) -> Vec<Seen> {
        match (self.case.end, self.case.reader) {
            (End::CloseFlooded, Reader::Stopped) => {
                app.step("sending until cut");
                app.flood(|| self.is_full()).await;
            }
            (End::CloseFlooded, Reader::Reads) => {
                app.step("sending and reading until cut");
                app.flood_and_read(|| self.is_full()).await;
            }
            (end, reader) => {
                if end == End::CloseUnread {
                    app.send(1).await;
                }
                if reader == Reader::Stopped {
                    app.step("waiting to be told, without reading");
                    app.told().await;
                }
                app.step("reading until cut");
                app.read_to_end().await;
            }
        }
        app.write_one().await;
        app.into_seen()
    }

    async fn half_closes_and_cuts(&self, mut app: App) -> Vec<Seen> {
        self.send(&mut app).await;
        app.half_close().await;
        app.step("waiting for its FIN to be read");
        self.left.subscribe().wait_for(|left| *left).await.unwrap();
        self.unread(&app).await;
        self.lose().await;
        app.reset()
    }

    async fn is_cut_in_its_answer(&self, mut app: App) -> Vec<Seen> {
        self.may_read(&app).await;
        app.step("reading");
        app.read_to_end().await;
        self.left.send_replace(true);
        if self.case.end == End::HalfCloseFlooded {
            app.step("sending until cut");
            app.flood(|| self.is_full()).await;
        } else {
            app.step("waiting to be told, having read all");
            app.told().await;
        }
        app.write_one().await;
        app.read_to_end().await;
        app.into_seen()
    }

    async fn half_closes_too(&self, mut app: App) -> Vec<Seen> {
        app.step("sending");
        app.fill(self.case.amount).await;
        if self.case.reader == Reader::Stopped {
            self.both.wait().await;
        }
        app.step("sending and reading");
        let at_once = async {
            self.both.wait().await;
            self.lose().await;
        };
        app.send_and_read(self.case.amount, at_once).await;
        app.into_seen()
    }

    async fn resets_too(&self, mut app: App) -> Vec<Seen> {
        app.step("sending");
        app.fill(self.case.amount).await;
        self.both.wait().await;
        self.lose().await;
        app.reset()
    }
}
