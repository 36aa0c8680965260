//! The record's protocol as a graph: every state, every step.

pub(crate) mod action;
pub(crate) mod explore;
pub(crate) mod mutation;
mod record;
pub(crate) mod state;
pub(crate) mod step;
pub(crate) mod story;
mod value;
