//! One client and the broker it was taken to: bytes go through the [`Session`] from one stream's own buffer into the other.
//!
//! Nothing is queued: what is not written yet is not read further, so a slow reader holds one buffer and stops its sender. A
//! response that passes is written from the buffer it was received into.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, Sleep};

use super::clients::{TooMany, Way};
use super::login::{Login, LoginError};
use super::rewrite::{Mapping, Piece, Pieces, Renewal, RewriteError, Rules, Session, Tally};
use crate::lifecycle::Drain;
use crate::net::{BoxStream, Stream};

/// How long a client may be silent before its first request; clients speak at once.
const FIRST_BYTE: Duration = Duration::from_secs(60);

/// How long the other direction may go on once one has ended.
///
/// A broker that sees a FIN drops what it has not answered yet, so the client's FIN waits for the answers, but not for ever.
const HALF_CLOSED: Duration = Duration::from_secs(60);

/// How long the last words to a client may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// Rounds of reading and writing in one turn before others run.
const TURN: usize = 32;

/// Slices in one vectored write: a changed response among unchanged ones needs three.
const SLICES: usize = 8;

/// Where bytes and what was done to them are counted.
pub(super) trait Meter: Mapping + Send {
    /// `to_broker` and `to_client` bytes went out.
    fn bytes(&mut self, to_broker: u64, to_client: u64);
    /// A broker's answer to `key` began so long after the request.
    fn answered(&mut self, key: i16, took: Duration);
    /// What a session did.
    fn tally(&mut self, tally: &Tally);
    /// The session with the broker was renewed.
    fn renewed(&mut self);
    /// The client failed so often to prove who it is.
    fn refused_logins(&mut self, count: u64);
    /// The client proved to be `user`.
    ///
    /// # Errors
    /// [`TooMany`]: it may not have one connection more.
    fn proved(&mut self, user: &str) -> Result<(), TooMany>;
    /// Until when nothing more is to be read in this direction, for the client had its share.
    fn waits_until(&mut self, way: Way) -> Option<std::time::Instant>;
    /// Nothing is read in this direction for so long.
    fn note_pause(&mut self, way: Way, time: Duration);
    /// The client, who is `user` where it proved it, asked so often for what the policy denies.
    fn denied(&mut self, user: Option<&str>, key: i16, count: u64);
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Both sides finished, or the drain found it at rest.
    Clean,
    /// The client cut it, or went away inside a frame.
    CutByClient,
    /// The broker cut it.
    CutByBroker,
    /// One side ended and the other never followed.
    HalfClosed,
    /// It could not go on.
    Refused(RewriteError),
    /// The session with the broker could not be renewed.
    NotRenewed(LoginError),
    /// The client proved who it is, and has all the connections that it may have.
    TooMany(TooMany),
}

/// A client whose first request is being waited for.
pub(super) struct Opening<C> {
    client: C,
    session: Session,
    up: Flow,
}

impl<C: Stream> Opening<C> {
    pub(super) fn new(client: C, rules: &Rules) -> Self {
        let mut nonce = [0; 18];
        aws_lc_rs::rand::fill(&mut nonce).expect("the system gave randomness when the process began");
        Self { client, session: Session::with_rules(rules, nonce), up: Flow::default() }
    }

    /// Waits for the first request, so that nobody is dialled for a port scan and another protocol is known before. `None` when the
    /// client went away or stayed silent.
    ///
    /// # Errors
    /// [`RewriteError`]: the client was given a clean end.
    pub(super) async fn first_request(mut self, drain: &Drain) -> Result<Option<Self>, RewriteError> {
        let ready = {
            let first = std::future::poll_fn(|cx| self.poll_first(cx));
            tokio::select! {
                first = first => first,
                () = tokio::time::sleep(FIRST_BYTE) => Ok(false),
                () = drain.draining() => Ok(false),
            }
        };
        if !matches!(ready, Ok(true)) {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.client.shutdown()).await;
        }
        Ok(ready?.then_some(self))
    }

    /// True once something is to be sent to a broker or answered in its place, false when nothing will be.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, RewriteError>> {
        loop {
            let skipped = self.up.pieces.take_skips();
            self.up.fed -= skipped;
            Pin::new(&mut self.client).consume(skipped);
            if self.up.pieces.sends() || self.session.speaks() || self.session.is_closing() {
                return Poll::Ready(Ok(true));
            }
            match ready!(Pin::new(&mut self.client).poll_fill_buf(cx)) {
                Err(_) => return Poll::Ready(Ok(false)),
                Ok([]) => return Poll::Ready(self.session.handle_client_end().map(|()| false)),
                Ok(input) => {
                    self.session.at(Instant::now().into_std());
                    self.up.fed = self.session.handle_request(input, &mut self.up.pieces)?;
                }
            }
        }
    }

    /// Cuts the client off: nobody was there for it.
    pub(super) fn reset(mut self) {
        self.client.reset();
    }

    /// Answers the first request with a Kafka error, where its API has a form for one, and ends; else cuts the client off.
    pub(super) async fn refuse(mut self, error_code: i16) {
        let Some(answer) = self.session.refusal(error_code) else { return self.reset() };
        let told = async {
            self.client.write_all(&answer).await?;
            self.client.shutdown().await
        };
        if !matches!(tokio::time::timeout(GOODBYE, told).await, Ok(Ok(()))) {
            self.reset();
        }
    }

    /// Carries on with a broker until the end; `login` renews the session with it where that ends.
    pub(super) async fn run<M: Meter>(
        self,
        upstream: BoxStream,
        login: Option<(Login, Option<Duration>)>,
        meter: M,
        drain: &Drain,
    ) -> Ended {
        let Self { client, session, up } = self;
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let mut pump = Pump {
            client,
            upstream,
            session,
            up,
            down: Flow::default(),
            meter,
            draining: false,
            timer,
            armed: false,
            hurry: false,
            proved: false,
            pauses: Default::default(),
            renewing: login.map(|(login, lifetime)| Box::new(Renewing::new(login, lifetime))),
        };
        let mut draining = pin!(drain.draining());
        let ended = loop {
            let step = std::future::poll_fn(|cx| {
                pump.draining = pump.draining || draining.as_mut().poll(cx).is_ready();
                pump.poll_step(cx)
            })
            .await;
            let renewed = match step {
                Step::Ended(ended) => break ended,
                // Boxed: it runs for a moment, and the connection lies idle for hours.
                Step::Renew => Box::pin(pump.renew()).await,
            };
            if let Err(ended) = renewed {
                break ended;
            }
        };
        if !matches!(ended, Ended::Clean) {
            pump.client.reset();
            pump.upstream.reset();
        }
        ended
    }
}

/// The session with the broker, and when it is renewed.
struct Renewing {
    login: Login,
    plan: Renewal,
    timer: Pin<Box<Sleep>>,
}

impl Renewing {
    fn new(login: Login, lifetime: Option<Duration>) -> Self {
        let now = Instant::now();
        let mut random = [0];
        // Without randomness the earliest moment is right too.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let plan = Renewal::after(lifetime, random[0], now.into_std());
        let due = plan.due().map_or(now, Instant::from_std);
        Self { login, plan, timer: Box::pin(tokio::time::sleep_until(due)) }
    }

    /// Whether the time has come.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> bool {
        self.plan.due().is_some() && self.timer.as_mut().poll(cx).is_ready()
    }
}

/// What is to be done next.
enum Step {
    /// Nothing is under way, and the session with the broker is to be renewed.
    Renew,
    Ended(Ended),
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// What is to become of the first `fed` bytes of the reader's buffer.
    pieces: Pieces,
    fed: usize,
    /// The reader has bytes that the session did not take.
    waits: bool,
    /// The reader will say when it has more, or was cut; else nobody asks it now.
    reads: bool,
    /// The reader is done; the writer's FIN follows what is left.
    ended: bool,
    /// The writer's FIN is sent.
    finished: bool,
    /// Something was written since the last flush.
    dirty: bool,
}

/// What stopped a direction.
enum Stop {
    Reader,
    Writer,
    Refused(RewriteError),
}

impl From<RewriteError> for Stop {
    fn from(error: RewriteError) -> Self {
        Self::Refused(error)
    }
}

impl Flow {
    /// Writes what is to be written; ready once all of it is.
    fn poll_write<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        sent: &mut u64,
    ) -> Poll<Result<(), Stop>>
    where
        R: Stream + ?Sized,
        W: Stream + ?Sized,
    {
        loop {
            let skipped = self.pieces.take_skips();
            Pin::new(&mut *reader).consume(skipped);
            self.fed -= skipped;
            if self.pieces.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let input = if self.fed == 0 {
                &[][..]
            } else {
                ready!(Pin::new(&mut *reader).poll_fill_buf(cx)).map_err(|_| Stop::Reader)?
            };
            let written = ready!(self.poll_write_once(cx, input, writer)).map_err(|_| Stop::Writer)?;
            if written == 0 {
                return Poll::Ready(Err(Stop::Writer)); // A writer that takes nothing never will.
            }
            let consumed = self.pieces.advance(written);
            Pin::new(&mut *reader).consume(consumed);
            self.fed -= consumed;
            self.dirty = true;
            *sent += written as u64;
        }
    }

    fn poll_write_once<W: Stream + ?Sized>(
        &self,
        cx: &mut Context<'_>,
        input: &[u8],
        writer: &mut W,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let (mut at, mut used) = (0, 0);
        for piece in self.pieces.iter() {
            if used == SLICES {
                break;
            }
            match piece {
                Piece::Pass(bytes) => {
                    // A reader that forgot what it showed before is a reader gone wrong.
                    let Some(passed) = input.get(at..at + bytes) else {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    };
                    slices[used] = IoSlice::new(passed);
                    at += bytes;
                    used += 1;
                }
                Piece::Skip(bytes) => at += bytes,
                Piece::New(bytes) => {
                    slices[used] = IoSlice::new(bytes);
                    used += 1;
                }
            }
        }
        match &slices[..used] {
            [one] => Pin::new(writer).poll_write(cx, one),
            many => Pin::new(writer).poll_write_vectored(cx, many),
        }
    }

    /// Nothing to read for now: what was written goes out.
    fn poll_idle<W: Stream + ?Sized>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Result<(), Stop> {
        if self.dirty && Pin::new(writer).poll_flush(cx).map_err(|_| Stop::Writer)?.is_ready() {
            self.dirty = false;
        }
        Ok(())
    }

    fn poll_finish<W: Stream + ?Sized>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<Result<(), Stop>> {
        ready!(Pin::new(writer).poll_shutdown(cx)).map_err(|_| Stop::Writer)?;
        self.finished = true;
        Poll::Ready(Ok(()))
    }
}

/// When a direction is read again.
#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    /// Pending, and woken in time, while the client has had more than its share.
    fn poll<M: Meter>(&mut self, cx: &mut Context<'_>, meter: &mut M, way: Way) -> Poll<()> {
        let Some(until) = meter.waits_until(way).map(Instant::from_std) else { return Poll::Ready(()) };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if self.until != Some(until) {
            // Other connections of the client may have made it longer meanwhile.
            let from = self.until.replace(until).map_or_else(Instant::now, |before| before.max(Instant::now()));
            meter.note_pause(way, until.saturating_duration_since(from));
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}

/// Both directions of one connection.
struct Pump<C, M> {
    client: C,
    upstream: BoxStream,
    session: Session,
    up: Flow,
    down: Flow,
    meter: M,
    /// Nothing more is taken of the client.
    draining: bool,
    timer: Pin<Box<Sleep>>,
    armed: bool,
    /// The client's FIN goes on whatever is unanswered.
    hurry: bool,
    /// The meter knows who the client proved to be.
    proved: bool,
    /// By [`Way`].
    pauses: [Pause; 2],
    renewing: Option<Box<Renewing>>,
}

impl<C: Stream, M: Meter> Pump<C, M> {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if !self.session.is_paused()
            && let Some(renewing) = &mut self.renewing
            && renewing.poll_due(cx)
        {
            self.session.pause(true);
        }
        let ended = self.poll(cx);
        if self.session.has_denied() {
            for (key, count) in self.session.take_denied() {
                self.meter.denied(self.session.user(), key, count);
            }
        }
        if let Poll::Ready(ended) = ended {
            return Poll::Ready(Step::Ended(ended));
        }
        if !self.proved
            && let Some(user) = self.session.user()
        {
            self.proved = true;
            if let Err(error) = self.meter.proved(user) {
                return Poll::Ready(Step::Ended(Ended::TooMany(error)));
            }
        }
        if self.session.is_closing() && !self.draining {
            self.draining = true; // As when the process drains: what is asked is answered, then the ends follow.
            cx.waker().wake_by_ref();
        }
        if self.session.speaks() {
            let refused = self.session.take_refused_logins();
            if refused > 0 {
                self.meter.refused_logins(refused);
            }
            cx.waker().wake_by_ref(); // An answer of ours, whose turn came when its request was read.
        }
        if self.session.is_paused() && self.is_at_rest() {
            let waits = self.up.waits;
            let now = Instant::now().into_std();
            if self.renewing.as_ref().is_some_and(|renewing| renewing.plan.is_due(waits, now)) {
                return Poll::Ready(Step::Renew);
            }
        }
        Poll::Pending
    }

    /// Whether all that was asked is answered, and nothing is on its way in any buffer of ours.
    fn is_at_rest(&self) -> bool {
        self.session.is_answered()
            && self.session.is_between_requests()
            && self.up.pieces.is_empty()
            && self.down.pieces.is_empty()
            && !self.up.ended
            && !self.down.ended
    }

    /// KIP-368: the same conversation again on the same connection. Requests that came meanwhile wait where they are.
    async fn renew(&mut self) -> Result<(), Ended> {
        let Some(renewing) = &mut self.renewing else { return Ok(()) };
        let lifetime = {
            let cut = std::future::poll_fn(|cx| self.client.poll_cut(cx));
            tokio::select! {
                renewed = renewing.login.run(&mut self.upstream) => renewed.map_err(Ended::NotRenewed)?,
                () = cut => return Err(Ended::CutByClient),
            }
        };
        let Some(renewing) = self.renewing.take() else { return Ok(()) };
        self.renewing = Some(Box::new(Renewing::new(renewing.login, lifetime)));
        self.meter.renewed();
        self.session.pause(false);
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        // Responses first: each makes room for a request, and the last one lets the client's FIN through.
        let down = match self.poll_down(cx) {
            Poll::Ready(Err(Stop::Reader)) => return Poll::Ready(Ended::CutByBroker),
            Poll::Ready(Err(Stop::Writer)) => return Poll::Ready(Ended::CutByClient),
            Poll::Ready(Err(Stop::Refused(error))) => return Poll::Ready(Ended::Refused(error)),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        let was_finished = self.up.finished;
        let up = match self.poll_up(cx) {
            Poll::Ready(Err(Stop::Reader)) => return Poll::Ready(Ended::CutByClient),
            Poll::Ready(Err(Stop::Writer)) => return Poll::Ready(Ended::CutByBroker),
            Poll::Ready(Err(Stop::Refused(error))) => return Poll::Ready(Ended::Refused(error)),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        if down && up {
            return Poll::Ready(Ended::Clean);
        }
        if self.draining && self.up.finished && !was_finished {
            cx.waker().wake_by_ref(); // The other direction ends with this one.
        }
        // Who is not being read, for its FIN came or its bytes have nowhere to go, may be cut all the same.
        if !self.up.reads && self.client.poll_cut(cx).is_ready() {
            return Poll::Ready(Ended::CutByClient);
        }
        if !self.down.reads && self.upstream.poll_cut(cx).is_ready() {
            return Poll::Ready(Ended::CutByBroker);
        }
        self.poll_patience(cx)
    }

    /// Once one direction has ended, the other has its time.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if !self.up.ended && !self.down.ended {
            return Poll::Pending;
        }
        if !self.armed {
            self.armed = true;
            self.timer.as_mut().reset(Instant::now() + HALF_CLOSED);
        }
        ready!(self.timer.as_mut().poll(cx));
        if self.up.ended && !self.hurry {
            self.hurry = true;
            self.armed = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ended::HalfClosed)
    }

    /// Broker to client; ready once the client has our FIN.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let Self { client, upstream, session, down, meter, pauses, .. } = self;
        let upstream = &mut **upstream;
        down.reads = false;
        for _ in 0..TURN {
            if down.finished {
                return Poll::Ready(Ok(()));
            }
            if down.pieces.is_empty() {
                session.speak(&mut down.pieces);
            }
            let mut sent = 0;
            let written = down.poll_write(cx, upstream, client, &mut sent);
            meter.bytes(0, sent);
            ready!(written)?;
            if self.draining && self.up.finished && session.is_answered() {
                down.ended = true;
            }
            if down.ended {
                return down.poll_finish(cx, client);
            }
            if pauses[Way::Out as usize].poll(cx, meter, Way::Out).is_pending() {
                down.poll_idle(cx, client)?;
                return Poll::Pending;
            }
            match Pin::new(&mut *upstream).poll_fill_buf(cx) {
                Poll::Pending => {
                    down.poll_idle(cx, client)?;
                    down.reads = true;
                    return Poll::Pending;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Reader)),
                Poll::Ready(Ok([])) => {
                    session.handle_broker_end()?;
                    down.ended = true;
                }
                Poll::Ready(Ok(input)) => {
                    session.at(Instant::now().into_std());
                    let done = session.handle_response(input, meter, &mut down.pieces);
                    let tally = session.take_tally();
                    if tally != Tally::default() {
                        meter.tally(&tally);
                    }
                    done?;
                    session.take_answered().for_each(|(key, took)| meter.answered(key, took));
                    down.fed = input.len();
                }
            }
        }
        down.reads = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Client to broker; ready once the broker has the client's FIN.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let Self { client, upstream, session, up, meter, renewing, pauses, .. } = self;
        let upstream = &mut **upstream;
        up.reads = false;
        up.waits = false;
        for _ in 0..TURN {
            if up.finished {
                return Poll::Ready(Ok(()));
            }
            let mut sent = 0;
            let written = up.poll_write(cx, client, upstream, &mut sent);
            meter.bytes(sent, 0);
            if sent > 0
                && let Some(renewing) = renewing
            {
                renewing.plan.note_use();
            }
            ready!(written)?;
            if self.draining && session.is_between_requests() {
                up.ended = true;
            }
            if up.ended {
                if !session.is_answered() && !self.hurry && !self.down.ended {
                    up.poll_idle(cx, upstream)?;
                    return Poll::Pending; // Woken by the answer, or by the timer.
                }
                return up.poll_finish(cx, upstream);
            }
            if pauses[Way::In as usize].poll(cx, meter, Way::In).is_pending() {
                up.poll_idle(cx, upstream)?;
                return Poll::Pending;
            }
            match Pin::new(&mut *client).poll_fill_buf(cx) {
                Poll::Pending => {
                    up.poll_idle(cx, upstream)?;
                    up.reads = true;
                    return Poll::Pending;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Reader)),
                Poll::Ready(Ok([])) => {
                    session.handle_client_end()?;
                    up.ended = true;
                }
                Poll::Ready(Ok(input)) => {
                    session.at(Instant::now().into_std());
                    up.fed = session.handle_request(input, &mut up.pieces)?;
                    if up.fed == 0 {
                        up.waits = true;
                        up.poll_idle(cx, upstream)?;
                        return Poll::Pending; // As many unanswered as may be, or a pause: woken by an answer, or its end.
                    }
                }
            }
        }
        up.reads = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
