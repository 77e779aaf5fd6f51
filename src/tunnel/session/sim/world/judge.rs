//! When a schedule is over, and whether everything is then as it must be.

use super::*;

impl World {
    /// Nothing is lost any more: carriers come, everybody finishes, whoever reads nothing gives up last.
    pub(super) fn settle(&mut self) {
        self.calm = true;
        self.no_dial_until = None;
        let begun = self.now;
        for turn in 0_u64.. {
            if !self.wires.iter().any(Wire::is_good) && self.redial_at <= self.now {
                self.redial_at = self.now + REDIAL;
                let slot = self.random.below(u64::from(self.shape.slots)) as u8;
                self.connect_in(slot);
            }
            self.progress = false;
            self.step();
            if self.is_over() {
                return;
            }
            if self.progress {
                self.now += Duration::from_micros(100);
            } else if self.only_stuck_by_choice() && self.give_up() {
                // Those that were in nobody's way are reset now.
            } else {
                let dial = Some(self.redial_at).filter(|at| *at > self.now && !self.wires.iter().any(Wire::is_good));
                let next = self.next_event().into_iter().chain(dial).min();
                let Some(next) = next else { panic!("stalled: {:#?}", self.left()) };
                self.now = next.max(self.now + Duration::from_micros(100));
            }
            let late = self.now - begun > Duration::from_secs(600);
            assert!(!late && turn < 200_000, "not over after {:?}: {:#?}", self.now - begun, self.left());
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.live.is_empty()
            && self.sides.iter().all(|process| process.offers.is_empty() && process.session.streams() == 0)
    }

    /// Whether all that is left waits for a reader that will never read.
    pub(super) fn only_stuck_by_choice(&self) -> bool {
        self.live.iter().all(|&serial| {
            let ends = &self.flows[serial].ends;
            let waits = |end: &End, other: Option<&End>| {
                end.released
                    || end.is_stuck_by_choice()
                    || other.is_some_and(|other| {
                        // Its reader reads nothing; it has read all that this reader wrote.
                        other.habit == Habit::Never
                            && (end.finished || end.waits.write)
                            && (end.ended || !other.finished)
                    })
            };
            match ends {
                [Some(one), Some(two)] => waits(one, Some(two)) && waits(two, Some(one)),
                [one, two] => one.iter().chain(two).all(|end| end.released),
            }
        })
    }

    pub(super) fn give_up(&mut self) -> bool {
        let mut any = false;
        for &serial in &self.live {
            let Flow { ends, cut } = &mut self.flows[serial];
            for (side, end) in ends.iter_mut().enumerate() {
                if let Some(end) = end
                    && end.habit == Habit::Never
                    && !end.released
                    && self.sides[side].frozen_until.is_none_or(|until| self.now >= until)
                {
                    any = true;
                    *cut = true;
                    end.released = true;
                    self.sides[side].session.reset(end.id);
                    self.sides[side].session.release(self.now, end.id);
                }
            }
        }
        self.events();
        any
    }

    /// Every byte is where it belongs, nothing is held, sums agree.
    pub(super) fn judge(&mut self) {
        let mut written = [0, 0];
        let mut any_cut = false;
        for (serial, flow) in self.flows.iter().enumerate() {
            any_cut |= flow.cut;
            for (written, end) in written.iter_mut().zip(&flow.ends) {
                *written += end.as_ref().map_or(0, |end| end.written);
            }
            if flow.cut {
                continue;
            }
            let [Some(one), Some(two)] = &flow.ends else { panic!("stream {serial} never arrived") };
            assert_eq!((one.read, two.read), (two.written, one.written), "stream {serial}");
            assert!(one.is_done() && two.is_done(), "stream {serial}");
            self.tally.whole += 1;
            self.tally.bytes += one.written + two.written;
        }
        let sums = self.sides.each_ref().map(|process| sum(process.before, process.session.counters()));
        for side in 0..2 {
            let process = &self.sides[side];
            assert_eq!(process.session.buffered(), (0, 0), "side {side} holds bytes");
            assert_eq!(process.session.budget.promised(), 0, "side {side} keeps windows");
            assert_eq!((sums[side].opened, sums[side].accepted), (process.opened, process.accepted), "side {side}");
            let (here, there) = (sums[side], sums[1 - side]);
            assert!(here.bytes_in <= there.bytes_out && here.bytes_out <= written[side], "side {side}: {sums:?}");
            let arrived = here.bytes_in + here.duplicate_bytes;
            assert!(arrived <= there.bytes_out + there.replayed_bytes + self.echoed, "side {side}: {sums:?}");
            assert!(process.ended || process.boot > 0 || here.lost_streams == 0, "side {side}: {sums:?}");
            if !any_cut {
                assert_eq!((here.bytes_out, there.bytes_in), (written[side], written[side]), "side {side}");
            }
        }
        self.tally.replayed = sums[0].replayed_bytes + sums[1].replayed_bytes;
    }

    pub(super) fn left(&self) -> Vec<String> {
        let ends = self.live.iter().flat_map(|&serial| {
            let flow = &self.flows[serial];
            let describe = move |(side, end): (usize, &Option<End>)| {
                end.as_ref().map(|end| format!("{serial} at {side}, cut {}, {}", flow.cut, end.describe()))
            };
            flow.ends.iter().enumerate().filter_map(describe).collect::<Vec<_>>()
        });
        let wires = self.wires.iter().map(|wire| {
            let Wire { ids, slot, load, open, closing, hole, asleep, .. } = wire;
            format!(
                "{ids:?} slot {slot} load {load:?} open {open:?} closing {closing:?} hole {hole:?} asleep {asleep:?}"
            )
        });
        let sides = self.sides.iter().map(|process| {
            let session = &process.session;
            format!("{:?}, {:?}, {:?}", session.phases(), session.carriers().collect::<Vec<_>>(), process.offers)
        });
        ends.chain(wires).chain(sides).collect()
    }
}

pub(super) fn sum(a: Counters, b: Counters) -> Counters {
    Counters {
        bytes_in: a.bytes_in + b.bytes_in,
        bytes_out: a.bytes_out + b.bytes_out,
        replayed_bytes: a.replayed_bytes + b.replayed_bytes,
        duplicate_bytes: a.duplicate_bytes + b.duplicate_bytes,
        resumes: a.resumes + b.resumes,
        sessions: a.sessions + b.sessions,
        opened: a.opened + b.opened,
        accepted: a.accepted + b.accepted,
        lost_streams: a.lost_streams + b.lost_streams,
        overdrawn: a.overdrawn + b.overdrawn,
    }
}
