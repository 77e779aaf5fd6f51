//! Two pure sessions driven by bytes: carriers come, break, lag and repeat themselves, applications open, write, read, finish and reset,
//! time passes; and a hostile peer that proved itself says whatever it likes.
//!
//! Without hostile frames every byte that is read is the one that was written, and an end is seen only where it was written. With them
//! nothing panics and memory stays bounded.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use linkspan::tunnel::session::frame::{self, Decoded, Frame};
use linkspan::tunnel::session::{
    Batch, CarrierId, Event, Keyring, OpenFailure, Read, Session, SessionConfig, Side, StreamId,
};

/// Most of each that a run makes: more of them reach nothing new.
const WIRES: usize = 6;
const STREAMS: usize = 24;
const OPERATIONS: usize = 2000;
/// Bytes of streams that each side may hold, both directions together.
const BUFFERED: u64 = 1 << 20;
/// Window that a stream has whatever the budget.
const EARLY: u64 = 64 * 1024;

/// Digests that are none, but equal and different where real ones are.
struct Toy;

fn mix(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut out = [0; 32];
    for (at, byte) in parts.iter().copied().flatten().chain(&[0; 32]).enumerate() {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        out[at % 32] ^= (state >> 32) as u8;
    }
    out
}

impl Keyring for Toy {
    fn derive(&self, binding: &[u8; 32], dialler: &[u8; 16], listener: &[u8; 16]) -> ([u8; 16], [u8; 32]) {
        let id = mix(&[b"id", binding, dialler, listener]);
        (*id.first_chunk().expect("32 bytes"), mix(&[b"key", binding, dialler, listener]))
    }

    fn proof(&self, key: &[u8; 32], binding: &[u8; 32], epoch: u64, slot: u8) -> [u8; 32] {
        mix(&[key, binding, &epoch.to_le_bytes(), &[slot]])
    }

    fn same(&self, a: &[u8; 32], b: &[u8; 32]) -> bool {
        a == b
    }
}

/// The bytes that tell what happens.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first.into()
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

struct Wire {
    ids: [CarrierId; 2],
    /// Encoded batches towards each side.
    flying: [VecDeque<Bytes>; 2],
    open: [bool; 2],
}

/// One end of a stream; `serial` is the stream's number where its name tells it.
struct End {
    id: StreamId,
    side: usize,
    serial: Option<usize>,
    written: u64,
    read: u64,
    finished: bool,
    released: bool,
}

struct World {
    now: Instant,
    sides: [Session; 2],
    wires: Vec<Wire>,
    ends: Vec<End>,
    /// Ends by stream number and side.
    places: HashMap<(usize, usize), usize>,
    offers: VecDeque<(usize, StreamId, Option<usize>)>,
    opened: usize,
    bindings: u8,
    /// Something was said that no honest peer says.
    hostile: bool,
}

/// What stream number `serial` carries from `side` at `offset`.
fn content(serial: Option<usize>, side: usize, offset: u64) -> u8 {
    let mixed = (serial.unwrap_or(0) as u64 * 2 + side as u64).wrapping_mul(0x9e37_79b9) ^ offset;
    (mixed ^ (mixed >> 8)) as u8
}

/// Plays the operations that `data` tells.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World::new();
    for _ in 0..OPERATIONS {
        if input.0.is_empty() {
            break;
        }
        world.operation(&mut input);
        world.events();
        world.check();
    }
    // Whatever state it is in, its timers and its end work.
    for side in &mut world.sides {
        let now = world.now + Duration::from_secs(200);
        side.handle_timeout(now);
        side.end(now);
        assert_eq!((side.streams(), side.buffered()), (0, (0, 0)), "an ended session holds something");
    }
}

impl World {
    fn new() -> Self {
        let config = |side, boot| SessionConfig {
            side,
            link: "a".to_owned(),
            boot: [boot; 16],
            streams: STREAMS,
            opens_per_second: 1000,
            buffered_bytes: BUFFERED,
            pieces: if side == Side::Dialler { 1 } else { 4096 },
            park: Duration::from_secs(5),
        };
        let sides = [config(Side::Dialler, 1), config(Side::Listener, 2)];
        Self {
            now: Instant::now(),
            sides: sides.map(|config| Session::new(config, Box::new(Toy))),
            wires: Vec::new(),
            ends: Vec::new(),
            places: HashMap::new(),
            offers: VecDeque::new(),
            opened: 0,
            bindings: 0,
            hostile: false,
        }
    }

    fn operation(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let (side, at) = (what >> 7, input.byte());
        match what & 0x0f {
            0 => self.connect(at as u8 % 6),
            1 => self.pull(at, side, 1 + input.byte() * 300),
            2 => self.deliver(at, side),
            3 => self.repeat(at, side, input.byte()),
            4 => self.close(at, side),
            5 => self.open(side),
            6 => self.answer(at),
            7 => self.write(at, input.byte() * 97),
            8 => self.read(at),
            9 => self.finish(at),
            10 => self.release(at, input.byte().is_multiple_of(2)),
            11 => self.pass(Duration::from_millis((at * at) as u64 / 8)),
            12 => self.inject(at, side, input),
            13 => self.damage(at, side, input.byte(), input.byte() as u8),
            14 if at == 0 => self.sides[side].drain(),
            14 => self.stuck(at / 2, side, (at % 2 == 1).then(|| input.byte() as u64 * 97)),
            // Everything that is on its way arrives.
            _ => self.exchange(),
        }
    }

    fn wire(&self, at: usize) -> Option<usize> {
        (!self.wires.is_empty()).then(|| at % self.wires.len())
    }

    fn connect(&mut self, slot: u8) {
        if self.wires.len() >= WIRES || self.bindings == u8::MAX {
            return;
        }
        self.bindings += 1;
        let binding = [self.bindings; 32];
        let ids = [0, 1].map(|side| self.sides[side].carrier_opened(self.now, slot, binding));
        self.wires.push(Wire { ids, flying: Default::default(), open: [true; 2] });
    }

    fn pull(&mut self, at: usize, side: usize, most: usize) {
        let Some(at) = self.wire(at) else { return };
        let wire = &mut self.wires[at];
        if !wire.open[side] || wire.flying[1 - side].len() > 32 {
            return;
        }
        let mut batch = Batch::new(16_384);
        self.sides[side].pull(self.now, wire.ids[side], most, &mut batch);
        assert!(batch.len() <= most + (128 << 10), "a pull of {most} gave {}", batch.len());
        let mut out = Vec::with_capacity(batch.len());
        let each = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| out.extend_from_slice(part));
            Ok::<_, ()>(())
        };
        batch.for_each_record(each).expect("nothing fails");
        if !out.is_empty() && wire.open[1 - side] {
            wire.flying[1 - side].push_back(out.into());
        }
    }

    /// A socket takes nothing, or so many bytes before it are said to be stuck.
    fn stuck(&mut self, at: usize, side: usize, bytes: Option<u64>) {
        let Some(at) = self.wire(at) else { return };
        let id = self.wires[at].ids[side];
        match bytes {
            None => self.sides[side].stalled(self.now, id),
            Some(bytes) => self.sides[side].rest(id, bytes),
        }
    }

    fn deliver(&mut self, at: usize, side: usize) {
        let Some(at) = self.wire(at) else { return };
        let wire = &mut self.wires[at];
        if !wire.open[side] {
            return;
        }
        if let Some(mut bytes) = wire.flying[side].pop_front() {
            let id = wire.ids[side];
            loop {
                match frame::decode(&mut bytes) {
                    Ok(Decoded::Frame(frame)) => self.sides[side].handle_frame(self.now, id, frame),
                    Ok(Decoded::Skipped) => {}
                    Ok(Decoded::Incomplete) => break,
                    Err(violation) => {
                        assert!(self.hostile, "an honest peer's bytes are no frame: {violation}");
                        self.sides[side].handle_malformed(self.now, id, violation);
                        break;
                    }
                }
            }
        }
    }

    /// Data and credit that fly arrive now by another carrier, and later again.
    fn repeat(&mut self, at: usize, side: usize, other: usize) {
        let (Some(at), Some(other)) = (self.wire(at), self.wire(other)) else { return };
        let id = self.wires[other].ids[side];
        let attached = |id| self.sides[side].carriers().any(|carrier| carrier.id == id && carrier.attached);
        if !attached(id) || !attached(self.wires[at].ids[side]) {
            return;
        }
        let Some(mut bytes) = self.wires[at].flying[side].front().cloned() else { return };
        while let Ok(Decoded::Frame(frame)) = frame::decode(&mut bytes) {
            let Frame::Data { sid, .. } = frame else { break };
            // Where OPEN flies still, data before it is a violation, rightly.
            if self.ends.iter().any(|end| end.side == side && end.id.sid == sid) {
                self.sides[side].handle_frame(self.now, id, frame);
            }
        }
    }

    fn close(&mut self, at: usize, side: usize) {
        let Some(at) = self.wire(at) else { return };
        let wire = &mut self.wires[at];
        if std::mem::replace(&mut wire.open[side], false) {
            wire.flying[side].clear();
            let id = wire.ids[side];
            self.sides[side].carrier_lost(self.now, id);
        }
        if self.wires[at].open == [false; 2] {
            self.wires.remove(at);
        }
    }

    fn open(&mut self, side: usize) {
        if self.opened < 4 * STREAMS
            && let Ok(id) = self.sides[side].open(&format!("s{}", self.opened), 9092)
        {
            self.keep(id, side, Some(self.opened));
            self.opened += 1;
        }
    }

    fn keep(&mut self, id: StreamId, side: usize, serial: Option<usize>) {
        if let Some(serial) = serial {
            self.places.insert((serial, side), self.ends.len());
        }
        self.ends.push(End { id, side, serial, written: 0, read: 0, finished: false, released: false });
    }

    fn answer(&mut self, how: usize) {
        let Some((side, id, serial)) = self.offers.pop_front() else { return };
        if how % 8 == 7 {
            self.sides[side].refuse(self.now, id, OpenFailure { code: 3, value: 0, detail: String::new() });
        } else if self.sides[side].accept(id) {
            self.keep(id, side, serial);
        } else {
            self.sides[side].release(self.now, id);
        }
    }

    fn live(&mut self, at: usize) -> Option<(&mut End, &mut Session)> {
        let live: Vec<_> = (0..self.ends.len()).filter(|&end| !self.ends[end].released).collect();
        let end = &mut self.ends[*live.get(at % live.len().max(1))?];
        let side = end.side;
        Some((end, &mut self.sides[side]))
    }

    fn write(&mut self, at: usize, len: usize) {
        let now = self.now;
        let Some((end, session)) = self.live(at) else { return };
        let Ok(room) = session.room(end.id) else { return };
        let len = len.min(room);
        if len > 0 {
            let data: Vec<u8> = (end.written..).take(len).map(|at| content(end.serial, end.side, at)).collect();
            if session.write(now, end.id, data.into()).is_ok() {
                end.written += len as u64;
            }
        }
    }

    fn read(&mut self, at: usize) {
        let (now, hostile) = (self.now, self.hostile);
        let Some((end, session)) = self.live(at) else { return };
        let read = session.read(now, end.id);
        let more: Vec<_> = match &read {
            Ok(Read::Data(data)) if data.len() % 2 == 1 => std::iter::from_fn(|| session.read_more(end.id)).collect(),
            _ => Vec::new(),
        };
        match read {
            Ok(Read::Data(data)) => {
                let data = [&data[..], &more.concat()].concat();
                let (serial, from, offset) = (end.serial, 1 - end.side, end.read);
                end.read += data.len() as u64;
                let right = || data.iter().zip(offset..).all(|(&byte, at)| byte == content(serial, from, at));
                assert!(hostile || right(), "other bytes than were written, from offset {offset}");
            }
            Ok(Read::End) => {
                let (serial, side, read) = (end.serial, end.side, end.read);
                let other = serial.and_then(|serial| self.places.get(&(serial, 1 - side))).map(|&at| &self.ends[at]);
                let whole = other.is_some_and(|other| other.finished && other.written == read);
                assert!(hostile || whole, "a cut shown as the end, at offset {read}");
            }
            Ok(Read::Blocked) | Err(_) => {}
        }
    }

    fn finish(&mut self, at: usize) {
        if let Some((end, session)) = self.live(at) {
            end.finished |= session.finish(end.id).is_ok();
        }
    }

    fn release(&mut self, at: usize, reset: bool) {
        let now = self.now;
        if let Some((end, session)) = self.live(at) {
            if reset {
                session.reset(end.id);
            }
            session.release(now, end.id);
            end.released = true;
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for side in &mut self.sides {
            if side.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                side.handle_timeout(self.now);
            }
        }
    }

    /// A frame of the input's own making, well formed or nearly.
    fn inject(&mut self, at: usize, side: usize, input: &mut Input<'_>) {
        let Some(at) = self.wire(at) else { return };
        let (kind, len) = (input.byte() as u8, input.byte());
        let body = input.take(len);
        let mut bytes = vec![kind, body.len() as u8, 0, 0];
        bytes.extend_from_slice(body);
        self.hostile = true;
        self.wires[at].flying[side].push_front(bytes.into());
        self.deliver(at, side);
    }

    fn damage(&mut self, at: usize, side: usize, place: usize, with: u8) {
        let Some(at) = self.wire(at) else { return };
        if let Some(bytes) = self.wires[at].flying[side].front_mut() {
            let mut damaged = bytes.to_vec();
            let place = place % damaged.len();
            damaged[place] ^= with;
            *bytes = damaged.into();
            self.hostile = true;
        }
    }

    fn exchange(&mut self) {
        for _ in 0..8 {
            for at in 0..self.wires.len() {
                for side in 0..2 {
                    self.pull(at, side, 65_536);
                    self.deliver(at, 1 - side);
                    self.events();
                }
            }
        }
    }

    fn events(&mut self) {
        for side in 0..2 {
            while let Some(event) = self.sides[side].poll_event() {
                match event {
                    Event::Offered { id, host, .. } => {
                        let serial = host.strip_prefix('s').and_then(|text| text.parse().ok());
                        self.offers.push_back((side, id, serial));
                    }
                    Event::Close(id, why) => {
                        assert!(self.hostile || why.label() != "violation", "{why}");
                        if let Some(wire) = self.wires.iter_mut().find(|wire| wire.ids[side] == id && wire.open[side]) {
                            wire.open[side] = false;
                            wire.flying[side].clear();
                            self.sides[side].carrier_lost(self.now, id);
                        }
                    }
                    _ => {}
                }
            }
        }
        self.wires.retain(|wire| wire.open != [false; 2]);
    }

    fn check(&self) {
        for session in &self.sides {
            let (received, sent) = session.buffered();
            let streams = session.streams() as u64;
            assert!(sent <= BUFFERED / 2 + streams * EARLY, "{sent} bytes kept for replay by {streams} streams");
            assert!(received <= BUFFERED + (streams + 1) * EARLY, "{received} bytes received by {streams} streams");
        }
    }
}
