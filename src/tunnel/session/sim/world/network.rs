//! Wires between the two processes: made, hurt and closed; what flies on them, and arrives.

use super::*;

impl World {
    /// A new carrier, sometimes in the slot of one that lives.
    pub(super) fn connect(&mut self) {
        let slots = self.shape.slots.max(self.wanted.min(self.shape.slots * 2)).min(SLOTS);
        let slot = self.random.below(u64::from(slots)) as u8;
        if self.wires.iter().any(|wire| wire.slot == slot && wire.is_good()) && !self.random.chance(8) {
            return;
        }
        self.connect_in(slot);
    }

    pub(super) fn connect_in(&mut self, slot: u8) {
        let mut binding = [0; 32];
        binding[..8].copy_from_slice(&self.random.next().to_le_bytes());
        let ids = [0, 1]
            .map(|side| self.sides[side].session.carrier_opened(self.now, if side == 0 { slot } else { 0 }, binding));
        let (least, more) = self.shape.delay;
        let delay = Duration::from_micros(least + self.random.below(more));
        self.wires.push(Wire {
            ids,
            slot,
            delay,
            flying: Default::default(),
            load: [0; 2],
            open: [true; 2],
            closing: [false; 2],
            hole: [false; 2],
            asleep: [false; 2],
        });
        self.tell(|| format!("dialled {ids:?} in slot {slot}"));
        self.progress = true;
    }

    /// A carrier breaks, or takes bytes without giving them, in one direction or in both.
    pub(super) fn hurt(&mut self, at: usize) {
        self.tally.kills += 1;
        self.tell(|| format!("hurt {:?}", self.wires[at].ids));
        match self.random.below(6) {
            0 => self.wires[at].hole = [true; 2],
            1 => self.wires[at].hole[0] = true,
            2 => self.wires[at].hole[1] = true,
            // One end learns of it now, the other behind what flies; meanwhile what it sends is lost.
            side => self.close_end(at, side as usize % 2),
        }
    }

    pub(super) fn close_end(&mut self, at: usize, side: usize) {
        let wire = &mut self.wires[at];
        if std::mem::replace(&mut wire.open[side], false) {
            wire.flying[side].clear();
            wire.load[side] = 0;
            let id = wire.ids[side];
            self.sides[side].session.carrier_lost(self.now, id);
            self.progress = true;
        }
    }

    /// Moves bytes: each carrier that was woken pulls, what is due arrives.
    pub(super) fn network(&mut self) {
        for at in 0..self.wires.len() {
            for side in 0..2 {
                if !self.wires[at].open[side] || self.is_frozen(side) {
                    continue;
                }
                self.pull(at, side);
                self.arrive(at, side);
                if self.wires[at].closing[side] && (self.calm || self.random.chance(2)) {
                    self.pull(at, side);
                    self.close_end(at, side);
                }
            }
            // The end of one side reaches the other behind what flies.
            for side in 0..2 {
                let wire = &self.wires[at];
                let cut = wire.open[side] && !wire.open[1 - side] && wire.flying[side].is_empty() && !wire.hole[side];
                if cut && !self.is_frozen(side) {
                    self.close_end(at, side);
                }
            }
        }
        self.events();
        self.wires.retain(|wire| wire.open != [false; 2]);
    }

    pub(super) fn pull(&mut self, at: usize, side: usize) {
        let wire = &mut self.wires[at];
        while wire.open[side]
            && !wire.asleep[side]
            && wire.load[1 - side] < SOCKET
            && (self.calm || self.random.below(4) != 0)
        {
            let mut batch = Batch::new(1 + 3000 + self.random.below(30_000) as usize);
            let most = 2000 + self.random.below(40_000) as usize;
            let more = self.sides[side].session.pull(self.now, wire.ids[side], most, &mut batch);
            let mut out = Vec::with_capacity(batch.len());
            let each = |parts: &[&[u8]]| {
                parts.iter().for_each(|part| out.extend_from_slice(part));
                Ok::<_, ()>(())
            };
            batch.for_each_record(each).unwrap();
            wire.asleep[side] = !more;
            if out.is_empty() {
                assert!(!more, "nothing came of a pull, and there is more");
                break;
            }
            self.progress = true;
            if wire.open[1 - side] && !wire.hole[1 - side] {
                let jitter = Duration::from_micros(self.random.below(2000));
                let after = wire.flying[1 - side].back().map_or(self.now, |&(at, _)| at);
                wire.load[1 - side] += out.len();
                wire.flying[1 - side].push_back((after.max(self.now + wire.delay + jitter), out.into()));
            }
            if wire.asleep[side] && wire.load[1 - side] >= SOCKET {
                self.sides[side].session.stalled(self.now, wire.ids[side]);
                wire.asleep[side] = false;
            }
            if self.random.below(200) == 0 {
                // Whether it is so or not: what is said to be stuck arrives twice, or once.
                self.sides[side].session.rest(wire.ids[side], self.random.below(100_000));
            }
        }
    }

    pub(super) fn arrive(&mut self, at: usize, side: usize) {
        let wire = &mut self.wires[at];
        let process = &mut self.sides[side];
        while let Some((due, _)) = wire.flying[side].front()
            && *due <= self.now
        {
            let (_, mut input) = wire.flying[side].pop_front().unwrap();
            wire.load[side] -= input.len();
            self.progress = true;
            loop {
                match frame::decode(&mut input).unwrap() {
                    Decoded::Frame(frame) => {
                        if self.shape.echoes.is_some()
                            && matches!(frame, Frame::Data { .. } | Frame::Credit(_))
                            && process.session.carriers().any(|c| c.id == wire.ids[side] && c.attached)
                            && !wire.closing[side]
                            && self.random.chance(10)
                        {
                            self.echoes.push((side, process.session.ended, process.boot, frame.clone()));
                        }
                        process.session.handle_frame(self.now, wire.ids[side], frame);
                    }
                    Decoded::Skipped => {}
                    Decoded::Incomplete => break,
                }
            }
        }
    }
}
