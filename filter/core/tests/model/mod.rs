//! The record's protocol as a graph: every state, every step.

pub(crate) mod action;
pub(crate) mod explore;
mod level;
pub(crate) mod mutation;
mod record;
pub(crate) mod state;
pub(crate) mod step;
pub(crate) mod story;
mod value;
mod world;
