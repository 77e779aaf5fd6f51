//! Connections over streams in memory: what is held while a reader stops, odd sizes of writes, and directions that end alone.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::clients::{TooMany, Way};
use super::connection::{Ended, Meter, Opening};
use super::rewrite::test_support::{end_txn, frame, request};
use super::rewrite::{Bucket, MOST_IN_FLIGHT, Mapping, Rules, Tally};
use crate::lifecycle::Drain;
use crate::net::{BoxStream, Stream};

/// What a test sees and sets of one stream.
#[derive(Default)]
struct End {
    /// What the far side sent and nobody consumed, in the chunks it came in.
    sent: VecDeque<Vec<u8>>,
    fin: bool,
    consumed: usize,
    /// Bytes the far side still takes, and how many at once.
    takes: usize,
    at_once: usize,
    got: Vec<u8>,
    got_fin: bool,
    reset: bool,
    cut: bool,
    readers: Vec<Waker>,
    watchers: Vec<Waker>,
    writers: Vec<Waker>,
}

/// A stream whose far side is a test. The chunk being read is its buffer.
#[derive(Clone, Default)]
struct Mem {
    end: Arc<Mutex<End>>,
    chunk: Vec<u8>,
}

impl Mem {
    fn new(at_once: usize) -> Self {
        let mem = Self::default();
        (mem.end().takes, mem.end().at_once) = (usize::MAX, at_once);
        mem
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().expect("no panic")
    }

    fn send(&self, bytes: &[u8]) {
        let mut end = self.end();
        end.sent.push_back(bytes.to_vec());
        end.readers.drain(..).for_each(Waker::wake);
    }

    fn finish(&self) {
        let mut end = self.end();
        end.fin = true;
        end.readers.drain(..).for_each(Waker::wake);
    }

    fn cut(&self) {
        let mut end = self.end();
        end.cut = true;
        end.watchers.drain(..).for_each(Waker::wake);
    }

    fn take(&self, bytes: usize) {
        let mut end = self.end();
        end.takes = bytes;
        end.writers.drain(..).for_each(Waker::wake);
    }
}

impl AsyncRead for Mem {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl AsyncBufRead for Mem {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.chunk.is_empty() {
            let mut end = this.end.lock().expect("no panic");
            match end.sent.pop_front() {
                Some(chunk) => this.chunk = chunk,
                None if end.fin => {}
                None => {
                    end.readers.push(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(&this.chunk))
    }

    fn consume(self: Pin<&mut Self>, amt: usize) {
        let this = self.get_mut();
        this.chunk.drain(..amt);
        this.end().consumed += amt;
    }
}

impl AsyncWrite for Mem {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut end = self.end.lock().expect("no panic");
        if end.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = end.takes.min(end.at_once);
        if room == 0 {
            end.writers.push(cx.waker().clone());
            return Poll::Pending;
        }
        let taken: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(room).collect();
        end.got.extend_from_slice(&taken);
        end.takes -= taken.len().min(end.takes);
        Poll::Ready(Ok(taken.len()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end().got_fin = true;
        Poll::Ready(Ok(()))
    }
}

impl Stream for Mem {
    fn reset(&mut self) {
        self.end().reset = true;
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut end = self.end();
        if end.cut {
            return Poll::Ready(());
        }
        end.watchers.push(cx.waker().clone());
        Poll::Pending
    }
}

#[derive(Default)]
struct Local {
    denied: Arc<Mutex<Vec<(i16, u64)>>>,
    bucket: Option<(Bucket, Way)>,
    paused: Arc<Mutex<Duration>>,
    answered: Arc<Mutex<Vec<(i16, Duration)>>>,
}

impl Mapping for Local {
    fn local(&mut self, _: i32, _: &str, _: i32) -> Option<(String, u16)> {
        Some(("127.0.0.1".to_owned(), 19_092))
    }

    fn is_local(&mut self, host: &[u8], port: i32) -> bool {
        (host, port) == (b"127.0.0.1", 19_092)
    }
}

impl Meter for Local {
    fn bytes(&mut self, to_broker: u64, to_client: u64) {
        if let Some((bucket, way)) = &mut self.bucket {
            let bytes = if *way == Way::In { to_broker } else { to_client };
            bucket.take(bytes, tokio::time::Instant::now().into_std());
        }
    }
    fn tally(&mut self, _: &Tally) {}
    fn renewed(&mut self) {}
    fn refused_logins(&mut self, _: u64) {}
    fn answered(&mut self, key: i16, took: Duration) {
        self.answered.lock().expect("no panic").push((key, took));
    }
    fn proved(&mut self, _: &str) -> Result<(), TooMany> {
        Ok(())
    }
    fn waits_until(&mut self, way: Way) -> Option<std::time::Instant> {
        let (bucket, paid_by) = self.bucket.as_ref()?;
        (way == *paid_by).then(|| bucket.waits_until(tokio::time::Instant::now().into_std()))?
    }
    fn note_pause(&mut self, _: Way, time: Duration) {
        *self.paused.lock().expect("no panic") += time;
    }
    fn denied(&mut self, _: Option<&str>, key: i16, count: u64) {
        self.denied.lock().expect("no panic").push((key, count));
    }
}

async fn connect(client: Mem, broker: Mem) -> Ended {
    connect_under(Rules::default(), client, broker, Local::default()).await
}

async fn connect_under(rules: Rules, client: Mem, broker: Mem, meter: Local) -> Ended {
    let drain = Drain::new();
    let opening = Opening::new(client, &rules).first_request(&drain).await.expect("Kafka").expect("a request");
    opening.run(Box::new(broker) as BoxStream, None, meter, &drain).await
}

/// Whether a connection asked to be polled again.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls until nothing moves any more.
fn settle(mut connection: Pin<&mut impl Future<Output = Ended>>) -> Option<Ended> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    loop {
        if let Poll::Ready(ended) = connection.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(ended);
        }
        if !woken.0.swap(false, Ordering::Relaxed) {
            return None;
        }
    }
}

fn answer(correlation_id: i32, body: &[u8]) -> Vec<u8> {
    frame(&[&correlation_id.to_be_bytes()[..], body].concat())
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_holds_one_buffer() {
    let (client, broker) = (Mem::new(usize::MAX), Mem::new(usize::MAX));
    client.send(&request(2, 1, 1));
    client.take(1_000);
    let response = answer(1, &vec![7; 2 << 20]);
    response.chunks(64 << 10).for_each(|chunk| broker.send(chunk));
    let mut connection = pin!(connect(client.clone(), broker.clone()));
    assert!(settle(connection.as_mut()).is_none());
    assert_eq!(client.end().got.len(), 1_000);
    assert_eq!(broker.end().consumed, 1_000, "not a byte more is taken from the broker than the client took");
    client.take(usize::MAX);
    assert!(settle(connection.as_mut()).is_none());
    assert_eq!(client.end().got, response);
}

#[tokio::test(start_paused = true)]
async fn writes_of_any_size_carry_the_same_bytes() {
    // An untouched frame, a Metadata v0 with one broker, an untouched frame: cut by reading and by writing.
    let metadata = answer(2, b"\0\0\0\x01\0\0\0\x05\0\x11b5.orange.example\0\0\x23\x84\0\0\0\0");
    let local = answer(2, b"\0\0\0\x01\0\0\0\x05\0\x09127.0.0.1\0\0\x4a\x94\0\0\0\0");
    let sent = [answer(1, b"one"), metadata, answer(3, b"three")].concat();
    let expected = [answer(1, b"one"), local, answer(3, b"three")].concat();
    let asked = [request(2, 1, 1), request(3, 0, 2), request(2, 1, 3)].concat();
    for read in 1..=sent.len() {
        for write in [1, 2, 7, usize::MAX] {
            let (client, broker) = (Mem::new(write), Mem::new(write));
            asked.chunks(read).for_each(|chunk| client.send(chunk));
            let mut connection = pin!(connect(client.clone(), broker.clone()));
            assert!(settle(connection.as_mut()).is_none());
            sent.chunks(read).for_each(|chunk| broker.send(chunk));
            assert!(settle(connection.as_mut()).is_none());
            client.finish();
            broker.finish();
            assert!(matches!(settle(connection.as_mut()), Some(Ended::Clean)), "read {read} write {write}");
            assert_eq!(broker.end().got, asked);
            assert_eq!(client.end().got, expected, "read {read} write {write}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_unanswered_requests_stop_the_client() {
    let (client, broker) = (Mem::new(usize::MAX), Mem::new(usize::MAX));
    let one = request(2, 1, 0).len();
    for id in 0..MOST_IN_FLIGHT as i32 + 5 {
        client.send(&request(2, 1, id));
    }
    let mut connection = pin!(connect(client.clone(), broker.clone()));
    assert!(settle(connection.as_mut()).is_none());
    assert_eq!(broker.end().got.len(), MOST_IN_FLIGHT * one);
    broker.send(&[answer(0, b"x"), answer(1, b"y")].concat());
    assert!(settle(connection.as_mut()).is_none());
    assert_eq!(broker.end().got.len(), (MOST_IN_FLIGHT + 2) * one, "each answer makes room for one");
}

#[tokio::test(start_paused = true)]
async fn a_denied_request_is_answered_in_its_turn_and_one_without_an_answer_ends_the_connection() {
    use super::rewrite::Policy;
    let rules = Rules { policy: Policy::read_only(), ..Rules::default() };
    // EndTxn version 0 is denied and answered with error 53.
    let refused = |id: i32| answer(id, &[&[0; 4][..], &53_i16.to_be_bytes()].concat());
    let unacknowledged = frame(b"\0\0\0\0\0\0\0\x09\0\x02me\0\0\0\0\0\0\0\0\0\0");
    for step in [1, 7, usize::MAX] {
        let (client, broker, meter) = (Mem::new(step), Mem::new(step), Local::default());
        let denied = Arc::clone(&meter.denied);
        let sent = [end_txn(1), request(2, 1, 2), end_txn(3), unacknowledged.clone(), request(2, 1, 10)].concat();
        sent.chunks(step.min(sent.len())).for_each(|chunk| client.send(chunk));
        let mut connection = pin!(connect_under(rules.clone(), client.clone(), broker.clone(), meter));
        assert!(settle(connection.as_mut()).is_none());
        assert_eq!(client.end().got, refused(1), "the first needs no broker");
        assert_eq!(broker.end().got, request(2, 1, 2), "nor does it see the others");
        assert!(!client.end().got_fin);
        broker.send(&answer(2, b"two"));
        assert!(matches!(settle(connection.as_mut()), Some(Ended::Clean)));
        assert_eq!(client.end().got, [refused(1), answer(2, b"two"), refused(3)].concat());
        assert!(client.end().got_fin && broker.end().got_fin && !client.end().reset);
        let counted: u64 = denied.lock().expect("no panic").iter().map(|(_, count)| count).sum();
        assert_eq!(counted, 3);
        assert_eq!(broker.end().got, request(2, 1, 2));
    }
    // The first of all.
    let (client, broker) = (Mem::new(usize::MAX), Mem::new(usize::MAX));
    client.send(&unacknowledged);
    let mut connection = pin!(connect_under(rules, client.clone(), broker.clone(), Local::default()));
    assert!(matches!(settle(connection.as_mut()), Some(Ended::Clean)));
    assert!(client.end().got_fin && broker.end().got.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_above_its_rate_waits_and_loses_nothing() {
    for way in [Way::Out, Way::In] {
        let (client, broker) = (Mem::new(usize::MAX), Mem::new(usize::MAX));
        let rate = std::num::NonZeroU64::new(100_000).expect("a rate");
        let bucket = Bucket::new(rate, tokio::time::Instant::now().into_std());
        let meter = Local { bucket: Some((bucket, way)), ..Local::default() };
        let paused = Arc::clone(&meter.paused);
        // A second's worth at once, and five more at the rate.
        let body = vec![7; 600_000];
        let (asked, answered) = match way {
            Way::Out => (request(2, 1, 1), answer(1, &body)),
            Way::In => (frame(&[&b"\0\x02\0\x01\0\0\0\x01\0\x02me"[..], &body].concat()), answer(1, b"one")),
        };
        asked.chunks(50_000).for_each(|chunk| client.send(chunk));
        answered.chunks(50_000).for_each(|chunk| broker.send(chunk));
        client.finish();
        broker.finish();
        let begun = tokio::time::Instant::now();
        let ended = connect_under(Rules::default(), client.clone(), broker.clone(), meter).await;
        assert!(matches!(ended, Ended::Clean), "{ended:?}");
        assert_eq!((client.end().got.len(), broker.end().got.len()), (answered.len(), asked.len()));
        let took = begun.elapsed().as_secs_f64();
        assert!((4.5..=5.1).contains(&took), "{way:?}: {took} s");
        let paused = paused.lock().expect("no panic").as_secs_f64();
        assert!((paused - took).abs() < 0.1, "{way:?}: paused {paused} s of {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_seen_while_a_client_waits_for_its_rate() {
    let (client, broker) = (Mem::new(usize::MAX), Mem::new(usize::MAX));
    let rate = std::num::NonZeroU64::new(1).expect("a rate");
    let bucket = Bucket::new(rate, tokio::time::Instant::now().into_std());
    let meter = Local { bucket: Some((bucket, Way::In)), ..Local::default() };
    client.send(&request(2, 1, 1));
    client.send(&request(2, 1, 2));
    let mut connection = pin!(connect_under(Rules::default(), client.clone(), broker.clone(), meter));
    assert!(settle(connection.as_mut()).is_none());
    assert_eq!(broker.end().got, request(2, 1, 1), "the second waits");
    client.cut();
    assert!(matches!(settle(connection.as_mut()), Some(Ended::CutByClient)));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_each_answer_is_taken_from_its_own_request() {
    let (client, broker, meter) = (Mem::new(usize::MAX), Mem::new(usize::MAX), Local::default());
    let answered = Arc::clone(&meter.answered);
    client.send(&request(2, 1, 1));
    let mut connection = pin!(connect_under(Rules::default(), client.clone(), broker.clone(), meter));
    assert!(settle(connection.as_mut()).is_none());
    tokio::time::advance(Duration::from_millis(30)).await;
    client.send(&request(1, 4, 2));
    assert!(settle(connection.as_mut()).is_none());
    tokio::time::advance(Duration::from_millis(20)).await;
    broker.send(&answer(1, b"one"));
    assert!(settle(connection.as_mut()).is_none());
    tokio::time::advance(Duration::from_millis(500)).await;
    broker.send(&answer(2, b"two"));
    assert!(settle(connection.as_mut()).is_none());
    let took = answered.lock().expect("no panic").clone();
    assert_eq!(took, [(2, Duration::from_millis(50)), (1, Duration::from_millis(520))]);
}

#[tokio::test(start_paused = true)]
async fn a_fin_waits_for_answers_but_not_for_ever() {
    let (client, broker) = (Mem::new(usize::MAX), Mem::new(usize::MAX));
    client.send(&request(2, 1, 1));
    client.finish();
    let begun = tokio::time::Instant::now();
    let ended = connect(client.clone(), broker.clone());
    let mut connection = pin!(ended);
    assert!(settle(connection.as_mut()).is_none());
    assert!(!broker.end().got_fin, "an answer is due");
    let ended = connection.await;
    assert!(matches!(ended, Ended::HalfClosed), "{ended:?}");
    assert!(broker.end().got_fin && client.end().reset && broker.end().reset);
    assert_eq!(begun.elapsed().as_secs(), 120, "a minute for the answer, a minute for the broker's end");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_let_go() {
    let client = Mem::new(usize::MAX);
    let begun = tokio::time::Instant::now();
    let opening = Opening::new(client.clone(), &Rules::default()).first_request(&Drain::new()).await;
    assert!(matches!(opening, Ok(None)));
    assert!(client.end().got_fin);
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_seen_while_nobody_takes_what_came_before_it() {
    // The broker stops reading, the client is cut behind what was not taken; and the other way round.
    let (client, broker) = (Mem::new(usize::MAX), Mem::new(usize::MAX));
    client.send(&request(2, 1, 1));
    broker.take(0);
    let mut connection = pin!(connect(client.clone(), broker.clone()));
    assert!(settle(connection.as_mut()).is_none());
    client.cut();
    assert!(matches!(settle(connection.as_mut()), Some(Ended::CutByClient)));
    assert!(client.end().reset && broker.end().reset);

    let (client, broker) = (Mem::new(usize::MAX), Mem::new(usize::MAX));
    client.send(&request(2, 1, 1));
    client.take(0);
    broker.send(&answer(1, b"x"));
    let mut connection = pin!(connect(client.clone(), broker.clone()));
    assert!(settle(connection.as_mut()).is_none());
    broker.cut();
    assert!(matches!(settle(connection.as_mut()), Some(Ended::CutByBroker)));
    assert!(client.end().reset && broker.end().reset);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_cut_after_its_fin_is_not_waited_for() {
    let (client, broker) = (Mem::new(usize::MAX), Mem::new(usize::MAX));
    client.send(&request(2, 1, 1));
    client.finish();
    let mut connection = pin!(connect(client.clone(), broker.clone()));
    assert!(settle(connection.as_mut()).is_none(), "an answer is due");
    client.cut();
    assert!(matches!(settle(connection.as_mut()), Some(Ended::CutByClient)));
    assert!(broker.end().reset && !broker.end().got_fin);
}
