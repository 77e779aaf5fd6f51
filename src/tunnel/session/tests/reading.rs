//! What an application takes at once, and when the peer hears of it.

use super::*;

#[test]
fn an_application_has_a_quarter_of_the_window_at_once_and_settles_it_with_its_next_read() {
    const PIECE: usize = 8 * 1024;
    let bytes = |pieces: usize| (pieces * PIECE) as u64;
    let mut pair = Pair::new();
    let ids = pair.attached(0, 1);
    let id = pair.stream(ids);
    let window = pair.dialler.room(id).unwrap();
    let pieces = window / PIECE;
    let piece = |number: usize| Bytes::from(vec![u8::try_from(number % 251).unwrap(); PIECE]);
    for number in 0..pieces {
        // One frame each.
        pair.dialler.write(pair.now, id, piece(number)).unwrap();
        pair.exchange(ids);
    }
    let held = pair.listener.buffered().0;
    assert_eq!(pair.listener.read_more(StreamId { sid: id.sid + 2, ..id }), None);
    let mut next = 0;
    while next < pieces {
        assert!(pair.listener.read(pair.now, id) == Ok(Read::Data(piece(next))));
        let first = next;
        next += 1;
        while let Some(more) = pair.listener.read_more(id) {
            assert!(more == piece(next));
            next += 1;
        }
        assert_eq!(next - first, (window / 4).div_ceil(PIECE).min(pieces - first));
        // What was given is held until it is done with.
        assert_eq!(pair.listener.buffered().0, held - bytes(first));
    }
    assert_eq!(pair.listener.read(pair.now, id), Ok(Read::Blocked));
    assert_eq!(pair.listener.buffered().0, held - bytes(pieces));
    pair.listener.reset(id);
    assert_eq!(pair.listener.read_more(id), None);
}
