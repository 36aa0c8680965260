//! When a route flushes, and what goes into the call.
//!
//! A lone item leaves as soon as it has been quiet for `quiet_ms`, so that a QR is on the user's screen
//! at once; a crowd is gathered, so that time alone makes no more than 60 000 / `max_wait_ms` calls a
//! minute. What is urgent does not wait for either, but shares a call with the other urgent ones of the
//! same second.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::backlog::{Backlog, Item, Mode, PartitionKey, Waiting};
use super::outage::Way;
use crate::batch::SPLICED_BYTES_MAX;
use embudo_core::config::Route;
use embudo_core::map::Map;
use embudo_core::route::Rules;
use embudo_core::sabotage::{self, Sabotage};

/// How long anybody waits before it is somebody's turn who has waited so long, milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// Failed calls after which an urgent item is no more urgent than others.
const URGENT_ATTEMPTS_MAX: u16 = 2;

/// What may leave now.
#[derive(Clone, Debug)]
pub(super) struct Allowed {
    /// Batches.
    pub(super) together: bool,
    /// Items by themselves.
    pub(super) alone: bool,
    /// Calls that repeat what has failed alone, or that go where nothing is accepted.
    pub(super) repeats: bool,
    /// The call probes an open circuit.
    pub(super) probe: bool,
    /// Only the pace is in the way of more.
    pub(super) by_pace: bool,
    /// The last call was urgent: then an ordinary one that is due goes first, so that a storm of
    /// disconnects cannot starve the QRs.
    pub(super) urgent_last: bool,
    /// Most items of a call.
    pub(super) items_max: usize,
    /// Callers that are refused: what they have holds up nobody else.
    pub(super) refused: Vec<u64>,
}

/// A call to be made: which sessions, in which order.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) partition: PartitionKey,
    pub(super) picks: Vec<Pick>,
    /// Posted to the original path, by itself.
    pub(super) alone: bool,
    pub(super) urgent: bool,
    /// It is an item that has failed alone before.
    pub(super) repeats: bool,
    /// Nothing is accepted where it goes.
    pub(super) silent: bool,
    /// Others are due, too.
    pub(super) others: bool,
    /// Somebody has waited longer than anybody should.
    pub(super) overdue: bool,
    /// Bytes of its body; the first item always fits.
    pub(super) bytes_max: usize,
}

/// A session to be claimed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    pub(super) shard: u32,
    pub(super) session: u128,
    /// The item; in its place goes whatever has taken it since.
    pub(super) seq: u64,
    since_ms: u64,
    bytes: usize,
    attempts: u16,
    urgent: bool,
    /// A request waits for it.
    hurries: bool,
}

/// What could leave through one partition at this moment.
#[derive(Default)]
struct Ready {
    together: Vec<Pick>,
    alone: Vec<Pick>,
    /// What has failed alone before, and may be tried again.
    repeats: Vec<Pick>,
    bytes: usize,
    /// A younger item of another partition, due itself, waits behind an item of this one.
    lent: bool,
}

/// How what is due leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Together,
    Alone,
    Repeat,
}

/// Whose turn it is; the greatest goes first. In this order: in a probe the fewest attempts; not two urgent calls in a
/// row; what is urgent; who has waited for long, and of those the newest, which can still be in time; the most items.
type Turn = (Reverse<u16>, bool, bool, bool, u64);

/// A partition as a plan meets it.
struct Seen<'i> {
    key: &'i PartitionKey,
    rule: Option<&'i Route>,
    /// Its items travel in batches: an item whose rule is gone from the configuration has none to go with, and
    /// others never had.
    batched: bool,
    /// An item of its path is under way, and no other may be.
    is_busy: bool,
    way: Way,
    /// What an item of a batch may have, by the server's own rule.
    item_bytes: Option<usize>,
    excused: Option<(u64, u64)>,
    ready: Ready,
}

/// The partitions whose sessions could send something.
#[derive(Default)]
struct Partitions<'i> {
    seen: Vec<Seen<'i>>,
    places: Map<&'i PartitionKey, usize>,
    /// Where the last session's is. Most sessions share a partition with the one before, and a plan goes over all of
    /// them: looking each one's up would be most of its work.
    last: usize,
}

/// The next call, if any is due.
pub(super) fn next(
    backlog: &Backlog,
    rules: &Rules,
    mono_ms: u64,
    allowed: &Allowed,
) -> Option<Plan> {
    let mut partitions = Partitions::of(backlog, rules, &allowed.refused, mono_ms);
    let mut best: Option<(Turn, usize, Form)> = None;
    let (mut due, mut overdue) = (0_usize, false);
    for (place, seen) in partitions.seen.iter_mut().enumerate() {
        let Some((urgent, form)) = seen.due(backlog, rules, mono_ms, allowed) else {
            continue;
        };
        due = due.saturating_add(1);
        let turn = seen.turn(form, urgent, mono_ms, allowed);
        overdue |= turn.3 && form != Form::Repeat;
        if best.is_none_or(|(best, ..)| turn > best) {
            best = Some((turn, place, form));
        }
    }
    let ((_, _, urgent, ..), place, form) = best?;
    let seen = partitions.seen.get_mut(place)?;
    let plan = seen.plan(backlog, rules, form, allowed);
    Some(Plan {
        urgent,
        others: due > 1,
        overdue,
        ..plan
    })
}

/// So many of them as fit into a call, the first ones first. A thousand may wait where fifty fit: to sort them all
/// would be most of a plan's work.
fn foremost(picks: Vec<Pick>, most: usize, probe: bool) -> Vec<Pick> {
    let mut first: Vec<Pick> = Vec::new();
    for pick in picks {
        let rank = pick.rank(probe);
        let last = first.last().filter(|_| first.len() >= most);
        if last.is_some_and(|last| last.rank(probe) <= rank) {
            continue;
        }
        let at = first.partition_point(|other| other.rank(probe) <= rank);
        if at < most {
            first.truncate(most.saturating_sub(1));
            first.insert(at, pick);
        }
    }
    first
}

/// Whether an item has been quiet for long enough, and its partition silent.
fn time_is_up(backlog: &Backlog, rules: &Rules, item: &Item, mono_ms: u64) -> bool {
    let Some((_, rule)) = rules.config.route_named(&item.partition.route) else {
        return true;
    };
    let mode = backlog.mode(&item.partition, mono_ms);
    let alone = rule.batch.call.is_none() || matches!(mode, Mode::Alone | Mode::One);
    (alone || is_paced(backlog, rule, &item.partition, item.since_ms, mono_ms))
        && mono_ms >= item.since_ms.saturating_add(rule.batch.quiet_ms)
}

/// Whether the partition has been silent for long enough, or its oldest item has waited as long by itself: a
/// flush that it could not be part of must not put it off again.
fn is_paced(
    backlog: &Backlog,
    rule: &Route,
    key: &PartitionKey,
    oldest_ms: u64,
    mono_ms: u64,
) -> bool {
    let Some(partition) = backlog.partition(key) else {
        return true;
    };
    let wait_ms = rule.batch.max_wait_ms;
    // Half of it longer: what waited for its session's other call would make a rhythm of its own otherwise, and two
    // calls of one.
    let missed_ms = oldest_ms.saturating_add(wait_ms / 2);
    let from_ms = partition
        .last_flush_ms
        .map_or(0, |last_ms| last_ms.min(missed_ms));
    partition.way != Way::Shut && mono_ms >= from_ms.saturating_add(wait_ms)
}

// === impl Pick ===

impl Pick {
    /// Urgent ones first, unless they have failed a few times, then the fewest failures, then the oldest. A probe
    /// looks at the failures only: what it carries decides for everybody.
    fn rank(&self, probe: bool) -> (bool, u16, u64) {
        (!self.is_urgent() || probe, self.attempts, self.since_ms)
    }

    fn is_urgent(&self) -> bool {
        self.urgent && self.attempts <= URGENT_ATTEMPTS_MAX
    }
}

// === impl Partitions ===

impl<'i> Partitions<'i> {
    /// Sorts the sessions by what they could send now.
    fn of(backlog: &'i Backlog, rules: &'i Rules, refused: &[u64], mono_ms: u64) -> Self {
        let mut partitions = Self::default();
        for (shard, waiting) in backlog.sessions() {
            let mut urgent = false;
            for item in &waiting.items {
                urgent |= item.priority && item.trial.failures == 0;
            }
            waiting.eligible(refused, mono_ms, |at, item| {
                partitions.add(backlog, rules, (shard, waiting), at, item, urgent, mono_ms);
            });
        }
        partitions
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one item, and what it is looked at with"
    )]
    fn add(
        &mut self,
        backlog: &'i Backlog,
        rules: &'i Rules,
        (shard, waiting): (u32, &'i Waiting),
        at: usize,
        item: &'i Item,
        urgent: bool,
        mono_ms: u64,
    ) {
        let Some(partition) = self.seen_mut(&item.partition, backlog, rules, mono_ms) else {
            return;
        };
        let mut pick = Pick {
            shard,
            session: waiting.session,
            seq: item.seq,
            since_ms: item.since_ms,
            bytes: item.bytes,
            attempts: item.attempts,
            urgent,
            hurries: mono_ms < waiting.hurry_until_ms,
        };
        let is_excused = item.trial.alone && item.is_excused(partition.excused);
        let is_excused = is_excused || sabotage::is(Sabotage::RowsTravelTogether);
        if item.trial.failures > 0 && !is_excused {
            pick.urgent = false;
            partition.ready.repeats.push(pick);
            return;
        }
        let rest = waiting
            .items
            .get(at.saturating_add(1)..)
            .unwrap_or_default();
        let lent = rest
            .iter()
            .any(|item| time_is_up(backlog, rules, item, mono_ms));
        partition.ready.lent |= lent;
        // What is more than the server takes in a batch is no batch, however few they are.
        let bytes = item.bytes.saturating_add(SPLICED_BYTES_MAX);
        let batched = partition.batched && partition.item_bytes.is_none_or(|max| bytes <= max);
        if let Some(rule) = partition.rule.filter(|_| !batched && !urgent && !lent)
            && mono_ms < item.since_ms.saturating_add(rule.batch.quiet_ms)
        {
            return;
        }
        match batched && (!item.trial.alone || is_excused) {
            true => {
                partition.ready.bytes = partition.ready.bytes.saturating_add(item.bytes);
                partition.ready.together.push(pick);
            }
            false => partition.ready.alone.push(pick),
        }
    }

    fn seen_mut(
        &mut self,
        key: &'i PartitionKey,
        backlog: &Backlog,
        rules: &'i Rules,
        mono_ms: u64,
    ) -> Option<&mut Seen<'i>> {
        if self.seen.get(self.last).is_none_or(|seen| seen.key != key) {
            let next = self.seen.len();
            self.last = *self.places.entry(key).or_insert(next);
            if self.last == next {
                let rule = rules.config.route_named(&key.route);
                let rule = rule.map(|(_, rule)| rule);
                let has_batch = rule.is_some_and(|rule| rule.batch.call.is_some());
                let way = backlog.partition(key).map_or(Way::Open, |known| known.way);
                let mode = backlog.mode(key, mono_ms);
                let is_one = mode == Mode::One && has_batch;
                self.seen.push(Seen {
                    key,
                    rule,
                    batched: has_batch && !is_one && mode != Mode::Alone && way != Way::Alone,
                    is_busy: is_one
                        && backlog
                            .batch_route(key)
                            .is_some_and(|known| known.alone > 0),
                    way,
                    item_bytes: backlog
                        .batch_route(key)
                        .and_then(|known| known.limit.item_bytes()),
                    excused: backlog.partition(key).and_then(|known| known.excused),
                    ready: Ready::default(),
                });
            }
        }
        self.seen.get_mut(self.last)
    }
}

// === impl Waiting ===

impl Waiting {
    /// The items that may be sent now, if nobody's call may be at work on the session: the oldest, and what nothing
    /// holds up. It must be what the store's claim allows, or a plan asks for what it cannot have.
    pub(super) fn eligible<'i>(
        &'i self,
        refused: &[u64],
        mono_ms: u64,
        mut found: impl FnMut(usize, &'i Item),
    ) {
        let is_claimed = self
            .claim
            .is_some_and(|(_, deadline_ms)| mono_ms < deadline_ms)
            && !sabotage::is(Sabotage::IgnoreForeignClaims);
        if is_claimed || mono_ms < self.passed_over_until_ms {
            return;
        }
        for (at, item) in self.items.iter().enumerate() {
            let caller = item.partition.caller;
            let older = self.items.get(..at).unwrap_or_default();
            let is_held_up = older.iter().any(|older| {
                let other = older.partition.caller;
                older.trial.holds_up(other, caller, refused)
            });
            let is_free = item.trial.not_before_ms <= mono_ms && !is_held_up;
            if is_free && item.expires_ms.is_none_or(|ms| mono_ms <= ms) {
                found(at, item);
            }
        }
    }
}

// === impl Seen ===

impl Seen<'_> {
    /// Whether the partition is due, urgently or not, and in which form.
    fn due(
        &mut self,
        backlog: &Backlog,
        rules: &Rules,
        mono_ms: u64,
        allowed: &Allowed,
    ) -> Option<(bool, Form)> {
        let is_silent = matches!(self.way, Way::Probe | Way::Fresh { .. });
        if self.way == Way::Shut || is_silent && !allowed.repeats {
            return None;
        }
        if let Way::Fresh { since_ms } = self.way {
            for picks in [&mut self.ready.together, &mut self.ready.alone] {
                picks.retain(|pick| pick.attempts == 0 && pick.since_ms > since_ms);
            }
            self.ready.repeats.clear();
        }
        if allowed.together
            && let Some(urgent) = self.due_together(backlog, rules, mono_ms)
        {
            return Some((urgent, Form::Together));
        }
        let ready = &self.ready;
        if sabotage::is(Sabotage::StarveTheRefused) || !allowed.alone || self.is_busy {
            return None;
        }
        if !ready.alone.is_empty() {
            return Some((ready.alone.iter().any(Pick::is_urgent), Form::Alone));
        }
        (!ready.repeats.is_empty() && allowed.repeats).then_some((false, Form::Repeat))
    }

    fn due_together(&self, backlog: &Backlog, rules: &Rules, mono_ms: u64) -> Option<bool> {
        let (ready, key) = (&self.ready, self.key);
        let oldest_ms = ready.together.iter().map(|pick| pick.since_ms).min()?;
        let rule = self.rule?;
        let partition = backlog.partition(key);
        let gap_is_over = partition.is_none_or(|known| known.is_past_gap(rules, mono_ms));
        let hurries = partition.is_some_and(|known| known.hurries);
        let mut urgent = ready.together.iter().filter(|pick| pick.is_urgent());
        if urgent.any(|pick| gap_is_over || pick.hurries) {
            return Some(true);
        }
        let timeout_ms = rules.config.times.call_timeout_ms;
        let (items_max, bytes_max) = backlog.limits(key, rule, timeout_ms);
        let full = ready.together.len() >= items_max || ready.bytes >= bytes_max;
        let quiet = mono_ms >= oldest_ms.saturating_add(rule.batch.quiet_ms);
        let is_paced = is_paced(backlog, rule, key, oldest_ms, mono_ms);
        (full || hurries || ready.lent || (quiet && is_paced)).then_some(false)
    }

    fn picks(&mut self, form: Form) -> &mut Vec<Pick> {
        match form {
            Form::Together => &mut self.ready.together,
            Form::Alone => &mut self.ready.alone,
            Form::Repeat => &mut self.ready.repeats,
        }
    }

    fn turn(&mut self, form: Form, urgent: bool, mono_ms: u64, allowed: &Allowed) -> Turn {
        let picks = self.picks(form);
        let oldest_ms = picks.iter().map(|pick| pick.since_ms).min();
        let oldest_ms = oldest_ms.unwrap_or(mono_ms);
        let attempts = picks.iter().map(|pick| pick.attempts).min();
        let has_waited =
            mono_ms >= oldest_ms.saturating_add(PATIENCE_MS) && !sabotage::is(Sabotage::NoFairness);
        let weight = match has_waited {
            true => oldest_ms,
            false => picks.len() as u64,
        };
        let attempts = attempts.filter(|_| allowed.probe).unwrap_or(0);
        let turn = allowed.urgent_last != urgent;
        (Reverse(attempts), turn, urgent, has_waited, weight)
    }

    fn plan(&mut self, backlog: &Backlog, rules: &Rules, form: Form, allowed: &Allowed) -> Plan {
        let timeout_ms = rules.config.times.call_timeout_ms;
        let (items_max, bytes_max) = match (form, self.rule) {
            (Form::Together, Some(rule)) => {
                let (items, bytes) = backlog.limits(self.key, rule, timeout_ms);
                (items.min(allowed.items_max), bytes)
            }
            _ => (1, usize::MAX),
        };
        let picks = core::mem::take(self.picks(form));
        let mut picks = foremost(picks, items_max, allowed.probe);
        let mut bytes = 0_usize;
        let mut kept = 0_usize;
        picks.retain(|pick| {
            let with = bytes
                .saturating_add(pick.bytes)
                .saturating_add(SPLICED_BYTES_MAX);
            // The first item always fits.
            let fits = kept < items_max && (kept == 0 || with <= bytes_max);
            if fits {
                bytes = with;
                kept = kept.saturating_add(1);
            }
            fits
        });
        Plan {
            partition: self.key.clone(),
            picks,
            alone: form != Form::Together,
            urgent: false,
            repeats: form == Form::Repeat,
            silent: matches!(self.way, Way::Probe | Way::Fresh { .. }),
            others: false,
            overdue: false,
            bytes_max,
        }
    }
}
