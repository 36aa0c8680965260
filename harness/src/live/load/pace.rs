//! Events at their time.
//!
//! Tokio's timers have a grain of a millisecond and fire up to two late, which is more than Embudo
//! needs for its whole answer. So a thread of its own sleeps from event to event, to some 0.1 ms.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::LoadOptions;
use crate::model::gateway::{Event, Schedule};

/// Events that are due and not yet taken. More would mean that the load cannot keep up; then the
/// pacer waits, and the wait is in the latencies, which count from when an event was due.
const DUE_MAX: usize = 4096;

/// The longest sleep: how long the thread outlives a load that was dropped.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// The events of the whole run, each at its time and with the number of its session. The channel
/// closes when the duration is over; to drop it ends the pacer.
pub(in crate::live) fn pace(
    options: &LoadOptions,
    begun: Instant,
) -> mpsc::Receiver<(usize, Event)> {
    let (due, events) = mpsc::channel(DUE_MAX);
    let mut agenda = Agenda::new(options);
    let duration = options.duration;
    tokio::task::spawn_blocking(move || {
        while let Some((index, event)) = agenda.next_event() {
            let at = Duration::from_millis(event.at_ms);
            if at >= duration || !sleep_until(begun + at, &due) {
                return;
            }
            if due.blocking_send((index, event)).is_err() {
                return;
            }
        }
    });
    events
}

/// False if nobody listens any more.
fn sleep_until(moment: Instant, due: &mpsc::Sender<(usize, Event)>) -> bool {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if due.is_closed() {
            return false;
        }
        std::thread::sleep(left.min(SLEEP_MAX));
    }
}

/// The events of all sessions, in the order of time.
struct Agenda {
    schedules: Vec<(Schedule, Event)>,
    heap: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Agenda {
    fn new(options: &LoadOptions) -> Self {
        let first = |index| {
            let mut schedule = Schedule::new(options.gateway.clone(), options.seed, index);
            let event = schedule.next_event();
            (schedule, event)
        };
        let schedules: Vec<_> = (0..options.sessions).map(first).collect();
        let heap = schedules
            .iter()
            .enumerate()
            .map(|(i, (_, event))| Reverse((event.at_ms, i)))
            .collect();
        Self { schedules, heap }
    }

    fn next_event(&mut self) -> Option<(usize, Event)> {
        let Reverse((_, index)) = self.heap.pop()?;
        let (schedule, event) = self.schedules.get_mut(index)?;
        let event = std::mem::replace(event, schedule.next_event());
        let next_ms = self.schedules.get(index).map(|(_, next)| next.at_ms)?;
        self.heap.push(Reverse((next_ms, index)));
        Some((index, event))
    }
}
