//! The record's protocol as a graph: every state, every step.
//!
//! # Who takes part
//!
//! Two workers take in the updates of one session with two routes, those of the default configuration.
//! Two dispatchers claim, send and settle; both believe that they lead, always, so that the claims have
//! to do without the lease. Requests arrive, fail, end late or never arrive; answers are true, except that
//! a failure may be reported after the fact, and a timeout says nothing. Any VM may die at any step, any
//! number of times. The clock ticks whenever no request would outlive T + L.
//!
//! # What has to hold
//!
//! *Always*: Laravel begins updates in their order and one at a time; no claim replaces a live one; the
//! ledger balances; what is answered as known is what the gateway's updates, in their order, last said of
//! that route; what counts as expired is not at Laravel at that moment; and where nothing is pending or
//! under way, Laravel holds what the gateway wants. *From everywhere*: if all is well from now on,
//! everything ends.
//!
//! # What is left out
//!
//! Batches (a claim is by session), several sessions and shards (they share nothing but the compare-and-
//! swap), credentials, wall-clock steps, and a thread that stalls between the send check and the dispatch:
//! nothing but a fence at Laravel covers that. Requests that are written through, held ones, and callers that are not
//! proven have a graph of their own: [`through`].

pub(crate) mod action;
pub(crate) mod explore;
mod level;
pub(crate) mod mutation;
mod record;
pub(crate) mod state;
pub(crate) mod step;
pub(crate) mod story;
pub(crate) mod through;
pub(crate) mod value;
mod world;
