//! The FIN and RST matrix over real loopback sockets: what the far applications see with the relay between them is what they
//! would see without.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{End, Relayed, relay};
use crate::net::tcp::TcpConn;
use crate::net::{Stream, gather};

/// An application's socket and the relay's end of it.
async fn pair() -> (TcpStream, TcpConn) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    (app, TcpConn::new(ours))
}

/// Two applications with a relay between them.
async fn joined() -> (TcpStream, TcpStream, JoinHandle<Relayed>) {
    let ((left, mut a), (right, mut b)) = (pair().await, pair().await);
    let task = tokio::spawn(async move { relay(&mut a, &mut b).await });
    (left, right, task)
}

fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

async fn read_all(socket: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.map(|_| bytes).map_err(|e| e.kind())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[tokio::test]
async fn fin_goes_through_after_the_last_byte_and_leaves_the_other_direction_open() {
    for left_first in [true, false] {
        for len in [0, 1, 3_000_000] {
            let (left, right, task) = joined().await;
            let (mut first, mut second) = if left_first { (left, right) } else { (right, left) };
            let sent = pattern(len);
            let expected = sent.clone();
            let writer = tokio::spawn(async move {
                first.write_all(&sent).await.unwrap();
                first.shutdown().await.unwrap();
                // Half-closed: answers still arrive.
                let answer = read_all(&mut first).await;
                (first, answer)
            });
            assert_eq!(read_all(&mut second).await.unwrap(), expected);
            second.write_all(b"answer after FIN").await.unwrap();
            second.shutdown().await.unwrap();
            let (_first, answer) = writer.await.unwrap();
            assert_eq!(answer.unwrap(), b"answer after FIN");
            let relayed = task.await.unwrap();
            assert_eq!(relayed.end, End::Clean);
            let (there, back) = (len as u64, 16);
            let seen = if left_first { (relayed.a_to_b, relayed.b_to_a) } else { (relayed.b_to_a, relayed.a_to_b) };
            assert_eq!(seen, (there, back));
        }
    }
}

#[tokio::test]
async fn rst_goes_through_as_rst_with_nothing_in_flight() {
    for left_first in [true, false] {
        let (left, right, task) = joined().await;
        let (first, mut second) = if left_first { (left, right) } else { (right, left) };
        reset(first);
        assert_eq!(read_all(&mut second).await, Err(ErrorKind::ConnectionReset));
        assert_eq!(task.await.unwrap().end, if left_first { End::CutByA } else { End::CutByB });
    }
}

#[tokio::test]
async fn rst_with_data_in_flight_never_ends_as_fin() {
    for left_first in [true, false] {
        let (left, right, task) = joined().await;
        let (mut first, mut second) = if left_first { (left, right) } else { (right, left) };
        first.write_all(&pattern(100_000)).await.unwrap();
        reset(first);
        assert_eq!(read_all(&mut second).await, Err(ErrorKind::ConnectionReset));
        assert_ne!(task.await.unwrap().end, End::Clean);
    }
}

#[tokio::test]
async fn rst_while_the_other_direction_is_blocked_is_seen_at_once() {
    let (mut left, mut right, task) = joined().await;
    // The left application does not read: everything between is full when writing stops making progress.
    let block = vec![7; 1 << 20];
    while tokio::time::timeout(Duration::from_millis(200), right.write_all(&block)).await.is_ok() {}
    left.write_all(b"x").await.unwrap();
    reset(left);
    assert_eq!(task.await.unwrap().end, End::CutByA);
    let mut byte = [0; 2];
    // The byte before the reset may or may not have come through; a clean end may not.
    let seen = match right.read(&mut byte).await {
        Ok(1) => right.read(&mut byte).await,
        other => other,
    };
    assert_eq!(seen.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn rst_overtakes_what_a_reader_that_stopped_did_not_take() {
    for left_first in [true, false] {
        let (left, right, task) = joined().await;
        let (mut first, second) = if left_first { (left, right) } else { (right, left) };
        // The second does not read: everything between is full when writing stops making progress.
        let block = vec![7; 1 << 20];
        while tokio::time::timeout(Duration::from_millis(200), first.write_all(&block)).await.is_ok() {}
        reset(first);
        assert_eq!(task.await.unwrap().end, if left_first { End::CutByA } else { End::CutByB });
        second.ready(tokio::io::Interest::ERROR).await.unwrap();
    }
}

#[tokio::test]
async fn rst_after_fin_reaches_the_answering_side() {
    let (mut left, mut right, task) = joined().await;
    left.shutdown().await.unwrap();
    assert_eq!(read_all(&mut right).await.unwrap(), b"");
    reset(left);
    // The answer finds nobody: the first bytes draw the reset, the next ones meet it.
    let failed = loop {
        if let Err(error) = right.write_all(&[1; 1024]).await {
            break error.kind();
        }
    };
    assert!(matches!(failed, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{failed:?}");
    assert_eq!(task.await.unwrap().end, End::CutByA);
}

#[tokio::test]
async fn rst_after_fin_reaches_a_side_that_says_nothing() {
    let (mut left, mut right, task) = joined().await;
    left.shutdown().await.unwrap();
    assert_eq!(read_all(&mut right).await.unwrap(), b"");
    reset(left);
    assert_eq!(task.await.unwrap().end, End::CutByA);
    assert!(right.write_all(b"x").await.is_err());
}

#[tokio::test]
async fn closing_with_unread_bytes_is_a_cut() {
    let (left, mut right, task) = joined().await;
    right.write_all(b"never read").await.unwrap();
    let mut peeked = [0; 10];
    while left.peek(&mut peeked).await.unwrap() < 10 {}
    drop(left);
    assert_eq!(read_all(&mut right).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(task.await.unwrap().end, End::CutByA);
}

#[tokio::test]
async fn a_relay_that_is_dropped_resets_both() {
    let (mut left, mut right, task) = joined().await;
    left.write_all(b"hello").await.unwrap();
    let mut bytes = [0; 5];
    right.read_exact(&mut bytes).await.unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(read_all(&mut left).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(read_all(&mut right).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn both_directions_full_at_once_do_not_stop_each_other() {
    let (left, right, task) = joined().await;
    let sent = pattern(8 << 20);
    let sides = [left, right].map(|socket| {
        let sent = sent.clone();
        tokio::spawn(async move {
            let (mut reader, mut writer) = socket.into_split();
            let write = async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (read, ()) = tokio::join!(reader.read_to_end(&mut received), write);
            read.unwrap();
            assert!(received == sent);
        })
    });
    for side in sides {
        side.await.unwrap();
    }
    let len = 8 << 20;
    assert_eq!(task.await.unwrap(), Relayed { a_to_b: len, b_to_a: len, end: End::Clean });
}

/// Gives its pieces one by one, or together to who asks; takes at most `takes` bytes a call.
struct Pieces {
    pieces: VecDeque<Bytes>,
    takes: usize,
    calls: Vec<usize>,
    taken: Vec<u8>,
}

impl AsyncRead for Pieces {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        unreachable!("a relay fills")
    }
}

impl AsyncBufRead for Pieces {
    fn poll_fill_buf(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Poll::Ready(Ok(self.get_mut().pieces.front().map_or(&[], |piece| piece)))
    }

    fn consume(mut self: Pin<&mut Self>, mut amt: usize) {
        while amt > 0 {
            let front = self.pieces.front_mut().expect("no more than there was");
            let done = amt.min(front.len());
            front.advance(done);
            amt -= done;
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(self.takes).collect();
        self.calls.push(bufs.len());
        self.taken.extend_from_slice(&all);
        Poll::Ready(Ok(all.len()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Stream for Pieces {
    fn reset(&mut self) {}

    fn gather<'a>(&'a self, most: usize, slices: &mut [IoSlice<'a>]) -> usize {
        gather(&self.pieces, most, slices)
    }
}

#[tokio::test]
async fn pieces_that_lie_there_are_written_in_one_call_as_far_as_they_are_taken() {
    let all = pattern(300_000);
    let cut = |len: usize| all.chunks(len).map(Bytes::copy_from_slice).collect::<VecDeque<_>>();
    let quiet = |takes| Pieces { pieces: VecDeque::new(), takes, calls: Vec::new(), taken: Vec::new() };
    for (piece, takes, calls) in [
        // A turn of 128 KiB in records, the eighth cut by its end; then what is left of it and the next ones.
        (16_363, usize::MAX, vec![9, 9, 3]),
        (300_000, usize::MAX, vec![1, 1, 1]),
        // Not more than 24 at once.
        (4_000, usize::MAX, vec![24, 9, 24, 10, 10]),
        (100_000, 100_001, vec![2, 1, 2, 1, 1]),
    ] {
        let mut from = Pieces { pieces: cut(piece), ..quiet(0) };
        let mut to = quiet(takes);
        let relayed = relay(&mut from, &mut to).await;
        assert_eq!(relayed, Relayed { a_to_b: 300_000, b_to_a: 0, end: End::Clean });
        assert!(to.taken == all);
        assert_eq!(to.calls, calls, "pieces of {piece}, {takes} taken at once");
    }
}
