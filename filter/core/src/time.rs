//! The two clocks, as parameters.

/// The time at which the host called the guest.
///
/// Everything that is stored or compared is monotonic: the wall clock of a server steps, and a step must
/// neither expire a claim nor a QR. Wall time only makes the `timestamp` of an item, for Laravel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic clock of the host, milliseconds; the same for every thread of the process.
    pub mono_ms: u64,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
}
