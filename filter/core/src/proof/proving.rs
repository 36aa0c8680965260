//! One at a time, while a caller or a route is being proven: a restart under a thousand sessions is no herd.
//!
//! A worker's own: what it holds is its own streams. While a caller and a route are not proven at a destination, one
//! request of both is at Laravel and the others are held for its answer. What is held, and for how long, is the
//! holder's business; here is who goes when, and how.

use alloc::vec::Vec;

use super::Subject;
use crate::sabotage::{self, Sabotage};

/// Whether a request goes to Laravel now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is the one that proves: its end must be reported.
    Go,
    /// Another is at Laravel: held for its answer.
    Hold,
}

/// How the one that proves has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Laravel has accepted it.
    Accepted,
    /// Laravel has refused its caller.
    Refused,
    /// Anything else, no answer at all included.
    Other,
}

/// Which of the held go on, in the order of their places, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// Their caller and route are proven: they are queued.
    Queue(Vec<u32>),
    /// They go through, each for an answer of its own.
    Through(Vec<u32>),
    /// This one is the one that proves now.
    Next(u32),
    /// Nobody waits.
    Nobody,
}

/// What is being proven by this worker.
#[derive(Debug, Default)]
pub struct Proving(Vec<Flight>);

/// A caller and a route at a destination, the stream that proves them, and those that wait for it.
#[derive(Debug)]
struct Flight {
    caller: u64,
    route: u64,
    at_laravel: u32,
    held: Vec<u32>,
}

// === impl Proving ===

impl Proving {
    // ## (new) => at Laravel | held

    /// A request of somebody who is not proven wants to go to Laravel.
    #[inline]
    pub fn begin(&mut self, subject: &Subject, stream: u32) -> Turn {
        let mut flights = self.0.iter_mut();
        let under_way =
            flights.find(|flight| flight.caller == subject.caller && flight.route == subject.route);
        match under_way {
            None => {
                self.0.push(Flight {
                    caller: subject.caller,
                    route: subject.route,
                    at_laravel: stream,
                    held: Vec::new(),
                });
                Turn::Go
            }
            Some(flight) if flight.at_laravel == stream => Turn::Go,
            Some(_) if sabotage::is(Sabotage::ProveTogether) => Turn::Go,
            Some(flight) => {
                if !flight.held.contains(&stream) {
                    flight.held.push(stream);
                }
                Turn::Hold
            }
        }
    }

    // ## at Laravel => (ended); held => queued | through | at Laravel

    /// The stream has ended like this. Nothing happens where it is not one that proves.
    #[inline]
    pub fn ended(&mut self, stream: u32, ended: Ended) -> Release {
        let mut flights = self.0.iter();
        let Some(at) = flights.position(|flight| flight.at_laravel == stream) else {
            return Release::Nobody;
        };
        match ended {
            Ended::Accepted => match self.0.swap_remove(at).held {
                held if held.is_empty() => Release::Nobody,
                held => Release::Queue(held),
            },
            Ended::Refused => {
                let flight = self.0.swap_remove(at);
                let mut held = flight.held;
                // What is held for its other routes need not wait to hear the same.
                for other in &mut self.0 {
                    if other.caller == flight.caller {
                        held.append(&mut other.held);
                    }
                }
                match held.is_empty() {
                    true => Release::Nobody,
                    false => Release::Through(held),
                }
            }
            Ended::Other => {
                let Some(flight) = self.0.get_mut(at) else {
                    return Release::Nobody;
                };
                if flight.held.is_empty() {
                    self.0.swap_remove(at);
                    return Release::Nobody;
                }
                flight.at_laravel = flight.held.remove(0);
                Release::Next(flight.at_laravel)
            }
        }
    }

    // ## held => (gone)

    /// A held stream waits no longer: its caller is gone, or its time is over and it has gone through.
    #[inline]
    pub fn forget(&mut self, stream: u32) {
        for flight in &mut self.0 {
            flight.held.retain(|held| *held != stream);
        }
    }

    /// Whether a stream is the one that proves.
    #[must_use]
    #[inline]
    pub fn is_at_laravel(&self, stream: u32) -> bool {
        self.0.iter().any(|flight| flight.at_laravel == stream)
    }

    /// Whether nothing is being proven.
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    // ## held => queued

    /// Those that wait for something which has been proven elsewhere: by another worker, or by two others that have
    /// proven the caller and the route between them.
    pub fn proven(&mut self, mut is_proven: impl FnMut(u64, u64) -> bool) -> Vec<u32> {
        let mut released = Vec::new();
        for flight in &mut self.0 {
            if !flight.held.is_empty() && is_proven(flight.caller, flight.route) {
                released.append(&mut flight.held);
            }
        }
        released
    }
}
