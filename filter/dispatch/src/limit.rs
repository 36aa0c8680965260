//! How much one call to a batch path may carry.
//!
//! One limit a path, in items and in bytes. It falls by half when a call fails in a way that a smaller one might not:
//! down to a single item, which tells of itself. What it fell for decides how it rises. A failure of the moment (a row
//! that throws, a timeout, a lost answer) is over with the next success, and each success doubles. A 413, or a 422
//! that names the array, is a rule of that server: the limit stays below it, and asks again every ten minutes, one
//! step at a time. And a call is never larger than what fits into a third of its timeout, by the time that an item
//! was seen to take.

use embudo_core::sabotage::{self, Sabotage};

/// How long a rule of the server is believed before one larger call asks again.
const RULE_MEMORY_MS: u64 = 600_000;

/// Of the call's timeout, what a call may take by the learned time an item: Laravel may become three times slower.
const TIMEOUT_PART: u64 = 3;

/// Microseconds in a millisecond: an item may take less than one.
const US: u64 = 1_000;

/// Items in a row that fail alone before it was nobody's row that was to blame. Of five bad rows in a hundred two in a
/// row are one in four hundred.
const FAILED_ALONE_MIN: u8 = 2;

/// The limit of one path.
#[derive(Clone, Debug, Default)]
pub(super) struct Limit {
    /// Items a call, where that is less than the rule says.
    items: Option<usize>,
    /// What the server's own rules have set.
    rule_items: Rule,
    rule_bytes: Rule,
    /// As `items` was before the calls failed that nothing has been accepted since.
    before: Option<Option<usize>>,
    /// One of those calls may have failed for a row.
    is_rows: bool,
    /// Items of them that failed alone.
    alone: u8,
    /// The learned time an item, microseconds.
    item_us: Option<u64>,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Perhaps for one of its items.
    Row,
    /// For what the server did at that time.
    Time,
}

/// What a server was seen to refuse.
#[derive(Clone, Copy, Debug, Default)]
struct Rule {
    /// No more than this.
    most: Option<usize>,
    /// A larger call may ask again. Monotonic.
    rises_ms: u64,
}

// === impl Limit ===

impl Limit {
    /// Items a call, of the rule's `most`.
    pub(super) fn items(&self, most: usize, timeout_ms: u64) -> usize {
        let by_time = self.item_us.map(|us| {
            let fits = (timeout_ms.saturating_mul(US) / TIMEOUT_PART)
                .checked_div(us)
                .unwrap_or(u64::MAX);
            usize::try_from(fits).unwrap_or(usize::MAX)
        });
        let limits = [self.items, self.rule_items.most, by_time];
        let least = limits.into_iter().flatten().fold(most, usize::min);
        least.max(1)
    }

    /// Bytes a call, of the rule's `most`. The first item always fits.
    pub(super) fn bytes(&self, most: usize) -> usize {
        self.rule_bytes.most.map_or(most, |known| known.min(most))
    }

    /// Bytes that an item may have to be in a batch, where the server has a rule of its own.
    pub(super) fn item_bytes(&self) -> Option<usize> {
        self.rule_bytes.most
    }

    /// Whether it has fallen to one item, which goes alone, to its own path.
    pub(super) fn is_one(&self) -> bool {
        self.items == Some(1)
    }

    /// Whether the server takes no two items at once.
    pub(super) fn takes_one(&self) -> bool {
        self.rule_items.most == Some(1)
    }

    /// A call of so many items failed: a row may throw, or the call took too long.
    pub(super) fn halve(&mut self, size: usize, cause: Cause) {
        if sabotage::is(Sabotage::NeverHalve) {
            return;
        }
        self.before.get_or_insert(self.items);
        self.is_rows |= cause == Cause::Row;
        // Others of that size may be under way: they fail for the same, and tell nothing more.
        let half = (size / 2).max(1);
        self.items = Some(self.items.map_or(half, |known| known.min(half)));
    }

    /// An item failed alone while nothing was accepted.
    pub(super) fn failed_alone(&mut self) {
        self.alone = self.alone.saturating_add(1);
    }

    /// So many items are too many, by the server's own rule.
    pub(super) fn too_many(&mut self, size: usize, mono_ms: u64) {
        self.rule_items.set(size, mono_ms);
    }

    /// So many bytes are too many, by the server's own rule.
    pub(super) fn too_large(&mut self, bytes: usize, mono_ms: u64) {
        self.rule_bytes.set(bytes, mono_ms);
    }

    /// A call was accepted: back to full ones, a doubling at a time.
    pub(super) fn accepted(&mut self, most: (usize, usize), mono_ms: u64) {
        (self.before, self.is_rows, self.alone) = (None, false, 0);
        self.items = self.items.map(|items| items.saturating_mul(2));
        let items = self.asks_again(most, mono_ms);
        self.items = self.items.filter(|known| *known < items);
    }

    /// Laravel accepts: once their time is over, its own rules are asked for a step more. Gives the items that they
    /// allow.
    pub(super) fn asks_again(&mut self, most: (usize, usize), mono_ms: u64) -> usize {
        self.rule_bytes.rise(most.1, mono_ms);
        self.rule_items.rise(most.0, mono_ms)
    }

    /// The destination accepts again after a time of nothing: what failed in between failed for that, and tells
    /// nothing of sizes. Where a row may have been to blame, only several that failed alone tell so.
    pub(super) fn recover(&mut self) {
        let before = self.before.take();
        let is_rows = core::mem::take(&mut self.is_rows);
        let is_over = core::mem::take(&mut self.alone) >= FAILED_ALONE_MIN || !is_rows;
        if let Some(before) = before.filter(|_| is_over) {
            self.items = before;
        }
    }

    /// A call has taken this long, answered or not. Small calls are dear by the item and tell only of a better time;
    /// one that is as large as it may be tells of a worse.
    pub(super) fn took(&mut self, size: usize, took_ms: u64, limit: usize) {
        let Ok(items) = u64::try_from(size.max(1)) else {
            return;
        };
        let us = took_ms.saturating_mul(US) / items;
        self.item_us = match self.item_us {
            Some(known_us) if us < known_us => Some(known_us.midpoint(us)),
            Some(known_us) if size.saturating_mul(2) >= limit => {
                Some(known_us.saturating_mul(3).saturating_add(us) / 4)
            }
            None if size > 1 => Some(us),
            known => known,
        };
    }

    /// A call has not been answered within its time: an item takes this long at least.
    pub(super) fn timed_out(&mut self, size: usize, took_ms: u64) {
        let items = u64::try_from(size.max(1)).unwrap_or(u64::MAX);
        let us = took_ms.saturating_mul(US) / items;
        self.item_us = Some(self.item_us.unwrap_or(0).max(us));
    }
}

// === impl Rule ===

impl Rule {
    fn set(&mut self, refused: usize, mono_ms: u64) {
        let half = (refused / 2).max(1);
        self.most = Some(self.most.map_or(half, |most| most.min(half)));
        self.rises_ms = mono_ms.saturating_add(RULE_MEMORY_MS);
    }

    /// Gives what is allowed from now on.
    fn rise(&mut self, most: usize, mono_ms: u64) -> usize {
        if mono_ms >= self.rises_ms || sabotage::is(Sabotage::RelearnTheLimit) {
            let twice = self.most.map(|known| known.saturating_mul(2));
            self.most = twice.filter(|known| *known < most);
            self.rises_ms = mono_ms.saturating_add(RULE_MEMORY_MS);
        }
        self.most.map_or(most, |known| known.min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: (usize, usize) = (100, 512 * 1024);
    const TIMEOUT_MS: u64 = 15_000;

    fn items(limit: &Limit) -> usize {
        limit.items(MOST.0, TIMEOUT_MS)
    }

    #[test]
    fn a_failure_halves_down_to_one_and_each_success_doubles() {
        let mut limit = Limit::default();
        let mut seen = Vec::new();
        for _ in 0..8 {
            limit.halve(items(&limit), Cause::Row);
            seen.push(items(&limit));
        }
        assert_eq!(seen, [50, 25, 12, 6, 3, 1, 1, 1]);
        assert!(limit.is_one());
        for wanted in [2, 4, 8, 16, 32, 64, 100, 100] {
            limit.accepted(MOST, 0);
            assert_eq!(items(&limit), wanted);
        }
    }

    #[test]
    fn a_rule_of_the_server_is_remembered_and_asked_again_every_ten_minutes_one_step_at_a_time() {
        let mut limit = Limit::default();
        for size in [100, 50, 25, 12] {
            limit.too_many(size, 0);
        }
        for second in 0..599 {
            limit.accepted(MOST, second * 1_000);
            assert_eq!(items(&limit), 6);
        }
        limit.accepted(MOST, 600_000);
        limit.accepted(MOST, 601_000);
        assert_eq!(items(&limit), 12, "one step");
        limit.too_many(12, 602_000);
        limit.accepted(MOST, 603_000);
        assert_eq!(items(&limit), 6, "and not more often");
        for step in 2..8 {
            limit.accepted(MOST, step * 610_000);
        }
        assert_eq!(items(&limit), 100, "a rule that is gone is forgotten");
    }

    #[test]
    fn a_413_sets_the_bytes_and_nothing_else() {
        let mut limit = Limit::default();
        limit.too_large(200_000, 0);
        limit.accepted(MOST, 1_000);
        assert_eq!((limit.bytes(MOST.1), items(&limit)), (100_000, 100));
        limit.accepted(MOST, 600_000);
        assert_eq!(limit.bytes(MOST.1), 200_000);
    }

    #[test]
    fn a_call_fits_into_a_third_of_its_timeout_by_the_learned_time_an_item() {
        let mut limit = Limit::default();
        limit.timed_out(50, 15_000);
        assert_eq!(items(&limit), 16, "0.3 s an item at least");
        for _ in 0..8 {
            limit.took(items(&limit), 400 * items(&limit) as u64, items(&limit));
        }
        assert!((12..=13).contains(&items(&limit)));
        limit.took(1, 900, items(&limit));
        assert!(
            items(&limit) >= 12,
            "a small call is dear and tells nothing"
        );
        for _ in 0..8 {
            limit.took(12, 100, items(&limit));
        }
        assert_eq!(items(&limit), 100, "Laravel is well again");
    }

    #[test]
    fn what_failed_while_nothing_was_accepted_tells_nothing_of_sizes() {
        let mut limit = Limit::default();
        for _ in 0..6 {
            limit.halve(items(&limit), Cause::Row);
        }
        limit.failed_alone();
        limit.failed_alone();
        limit.recover();
        assert_eq!(items(&limit), 100);
        limit.halve(100, Cause::Row);
        limit.recover();
        assert_eq!(items(&limit), 50, "a row may have been to blame");
        limit.halve(50, Cause::Time);
        limit.recover();
        assert_eq!(items(&limit), 50);
        limit.accepted(MOST, 0);
        limit.recover();
        assert_eq!(items(&limit), 100);
    }
}
