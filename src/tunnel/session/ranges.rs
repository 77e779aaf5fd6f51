//! A set of numbers as ranges: lost pieces of a stream, and stream ids that were used.

use std::collections::BTreeMap;

/// Disjoint, non-adjacent, half-open ranges in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Adds `start..end`; empty ranges are nothing.
    pub(super) fn insert(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        if let Some((&before, &until)) = self.0.range(..=start).next_back()
            && until >= start
        {
            start = before;
            end = end.max(until);
            self.0.remove(&before);
        }
        while let Some((&next, &until)) = self.0.range(start..).next()
            && next <= end
        {
            end = end.max(until);
            self.0.remove(&next);
        }
        self.0.insert(start, end);
    }

    /// Forgets everything below `floor`.
    pub(super) fn trim_below(&mut self, floor: u64) {
        while let Some((&start, &end)) = self.0.first_key_value()
            && start < floor
        {
            self.0.pop_first();
            if end > floor {
                self.0.insert(floor, end);
            }
        }
    }

    /// Takes up to `most` numbers from the lowest range.
    pub(super) fn take_front(&mut self, most: u64) -> Option<(u64, u64)> {
        let (start, end) = self.0.pop_first()?;
        let cut = end.min(start.saturating_add(most));
        if cut < end {
            self.0.insert(cut, end);
        }
        Some((start, cut))
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, &end)| number < end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of separate ranges.
    pub(super) fn pieces(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_set_of_its_numbers(steps in prop::collection::vec((0u64..60, 0u64..12, 0u8..3), 0..40)) {
            let mut ranges = RangeSet::default();
            let mut model = BTreeSet::new();
            for (at, len, kind) in steps {
                match kind {
                    0 => { ranges.insert(at, at + len); model.extend(at..at + len); }
                    1 => { ranges.trim_below(at / 3); model.retain(|&n| n >= at / 3); }
                    _ => {
                        if let Some((start, end)) = ranges.take_front(len.max(1)) {
                            prop_assert!(end - start <= len.max(1) && model.first() == Some(&start));
                            (start..end).for_each(|n| assert!(model.remove(&n)));
                        } else {
                            prop_assert!(model.is_empty());
                        }
                    }
                }
                for number in 0..80 {
                    prop_assert_eq!(ranges.contains(number), model.contains(&number));
                }
                prop_assert_eq!(ranges.is_empty(), model.is_empty());
                let starts = model.iter().filter(|&&n| n == 0 || !model.contains(&(n - 1))).count();
                prop_assert_eq!(ranges.pieces(), starts);
            }
        }
    }
}
