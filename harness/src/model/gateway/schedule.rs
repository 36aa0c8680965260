//! When something happens to a session.
//!
//! ```text
//! QR   QR QR QR QR QR   close 408, expiry timer       next cycle
//! 0    60 80 100 120 140   160 s                      ~161 s
//! ```
//!
//! A cycle that is scanned stops showing QRs; a moment later the session is `active` and stays so
//! for some minutes; then the user logs out and a new cycle begins. The expiry timer is not cleared
//! by a scan: it asks Laravel for the state instead. An answer that is a little stale would have it
//! take down a session that has just come up. In the origin gateway it fires late, while the socket is
//! open again and shows its next QR: its `inactive` and that QR are on their way at once
//! ([`GatewayConfig::origin`]).
//!
//! The first cycle begins somewhere in its middle, each session elsewhere, so that the load is
//! steady from the first second.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// When WhatsApp shows a new QR, in ms since the socket opened: 60 s for the first, then 20 s each.
const QR_AT_MS: [u64; 6] = [0, 60_000, 80_000, 100_000, 120_000, 140_000];

/// When the last QR has run out, the socket closes with 408 and the expiry timer fires.
const CYCLE_MS: u64 = 160_000;

/// Until a closed socket is open again and shows its first QR.
const RECONNECT_MS: std::ops::RangeInclusive<u64> = 500..=1_500;

/// A user needs some seconds from seeing the first QR to having scanned one.
const SCAN_AT_MS: std::ops::Range<u64> = 5_000..155_000;

/// Between a scan and `active` where WhatsApp does not ask for a restart.
const ACTIVE_AFTER_MS: std::ops::RangeInclusive<u64> = 200..=500;

/// Between the close 515 that WhatsApp often sends after a scan, and `active`.
const RESTART_MS: std::ops::RangeInclusive<u64> = 1_000..=3_000;

/// How long a session stays up: short for a real one, so that a run of minutes sees log-outs too.
const ACTIVE_FOR_MS: std::ops::Range<u64> = 60_000..600_000;

/// One cycle in a hundred ends in a scan: most sessions that show a QR show it to nobody.
const SCAN_PROBABILITY: f64 = 0.01;

/// How often a scan is followed by a close 515.
const RESTART_PROBABILITY: f64 = 0.7;

/// A QR is `2@`, a reference, and three 32-byte keys in base64; with commas that is 137 characters
/// besides the reference, and 217 to 281 in all.
const QR_REFERENCE_CHARS: std::ops::RangeInclusive<usize> = 80..=144;
const QR_KEY_CHARS: usize = 43;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// How the sessions behave.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// How likely a cycle ends in a scan.
    pub scan_probability: f64,
    /// How likely a scan is followed by a close 515 and a reconnect before `active`.
    pub restart_probability: f64,
    /// All times of the schedule are divided by this; 60 makes a minute a second.
    pub time_compression: f64,
    /// Whether the expiry timer fires beside the next cycle's first QR, instead of when the last one has run out.
    pub expires_beside_qr: bool,
    /// Whether a session whose state cannot be read, retries and all, is given up: it shows no QR any more.
    pub gives_up: bool,
    /// Whether `active` says whose phone it is, and `inactive` why.
    pub tells_details: bool,
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// WhatsApp shows this QR.
    Qr(String),
    /// The expiry timer fires.
    Expired,
    /// The session came up.
    Active,
    /// The user logged out.
    LoggedOut,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in ms since the start of the run, compression applied.
    pub at_ms: u64,
    /// What.
    pub what: What,
}

/// The endless sequence of one session's events; times never fall.
#[derive(Clone, Debug)]
pub struct Schedule {
    config: GatewayConfig,
    dice: ChaCha8Rng,
    /// When the next cycle begins, in uncompressed ms; the first began before the run.
    cycle_from_ms: i64,
    first: bool,
    planned: VecDeque<(i64, What)>,
}

// === impl Schedule ===

impl Schedule {
    /// The schedule of session number `index` of this seed.
    pub fn new(config: GatewayConfig, seed: u64, index: usize) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(index as u64);
        let cycle_from_ms = -signed(dice.random_range(0..CYCLE_MS));
        Self {
            config,
            dice,
            cycle_from_ms,
            first: true,
            planned: VecDeque::new(),
        }
    }

    /// The next event.
    pub fn next_event(&mut self) -> Event {
        // Bounded: every cycle plans its expiry at least, and the first one's lies within the run.
        loop {
            match self.planned.pop_front() {
                Some((at_ms, what)) if at_ms >= 0 => {
                    let compressed = at_ms as f64 / self.config.time_compression.max(f64::EPSILON);
                    return Event {
                        at_ms: compressed as u64,
                        what,
                    };
                }
                Some(_) => {}
                None => self.plan_cycle(),
            }
        }
    }

    // ## Closed => Showing => (Closed | Active => Closed)

    fn plan_cycle(&mut self) {
        let from = self.cycle_from_ms;
        // What happened before the run was not told to Laravel, a scan least of all.
        let scanned = !self.first && self.chance(self.config.scan_probability);
        self.first = false;
        let scan_at = scanned.then(|| from + signed(self.dice.random_range(SCAN_AT_MS)));
        for at in QR_AT_MS.map(|at| from + signed(at)) {
            if scan_at.is_none_or(|scan| at < scan) {
                let qr = self.qr();
                self.planned.push_back((at, What::Qr(qr)));
            }
        }
        if scanned || !self.config.expires_beside_qr {
            self.planned
                .push_back((from + signed(CYCLE_MS), What::Expired));
        }
        let mut closed_at = from + signed(CYCLE_MS);
        if let Some(scan_at) = scan_at {
            let restart = self.chance(self.config.restart_probability);
            let after = if restart { RESTART_MS } else { ACTIVE_AFTER_MS };
            let active_at = scan_at + signed(self.dice.random_range(after));
            self.planned.push_back((active_at, What::Active));
            let up = signed(self.dice.random_range(ACTIVE_FOR_MS));
            // Not before the timer, or the next cycle would begin within this one.
            closed_at = closed_at.max(active_at + up);
            self.planned.push_back((closed_at, What::LoggedOut));
            self.planned.make_contiguous().sort_by_key(|(at, _)| *at);
        }
        self.cycle_from_ms = closed_at + signed(self.dice.random_range(RECONNECT_MS));
        if !scanned && self.config.expires_beside_qr {
            self.planned.push_back((self.cycle_from_ms, What::Expired));
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.dice.random_bool(probability.clamp(0.0, 1.0))
    }

    fn qr(&mut self) -> String {
        let reference = self.dice.random_range(QR_REFERENCE_CHARS);
        let mut qr = String::from("2@");
        self.base64(reference, &mut qr);
        for _ in 0..3 {
            qr.push(',');
            self.base64(QR_KEY_CHARS, &mut qr);
            qr.push('=');
        }
        qr
    }

    fn base64(&mut self, chars: usize, out: &mut String) {
        for _ in 0..chars {
            let i = self.dice.random_range(0..BASE64.len());
            out.push(char::from(*BASE64.get(i).unwrap_or(&b'A')));
        }
    }
}

// === impl GatewayConfig ===

impl GatewayConfig {
    /// As the gateway that the project started from: its timer is late, and it gives up.
    #[must_use]
    pub fn origin() -> Self {
        Self {
            expires_beside_qr: true,
            gives_up: true,
            ..Self::default()
        }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            scan_probability: SCAN_PROBABILITY,
            restart_probability: RESTART_PROBABILITY,
            time_compression: 1.0,
            expires_beside_qr: false,
            gives_up: false,
            tells_details: false,
        }
    }
}

/// For times far below 2⁶³.
fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn events(config: GatewayConfig, index: usize, until_ms: u64) -> Vec<Event> {
        let mut schedule = Schedule::new(config, 7, index);
        std::iter::repeat_with(|| schedule.next_event())
            .take_while(|event| event.at_ms < until_ms)
            .collect()
    }

    fn unscanned() -> GatewayConfig {
        GatewayConfig {
            scan_probability: 0.0,
            ..GatewayConfig::default()
        }
    }

    #[test]
    fn a_thousand_unscanned_sessions_are_2250_qrs_a_minute_from_the_first_minute_on() {
        let mut minutes = [0_u32; 10];
        for index in 0..1000 {
            for event in events(unscanned(), index, 600_000) {
                if matches!(event.what, What::Qr(_)) {
                    minutes[usize::try_from(event.at_ms / 60_000).expect("small")] += 1;
                }
            }
        }
        // 6 QRs in a cycle of 161 s on average are 2236; the phases are random, hence the width.
        for qrs in minutes {
            assert!((2_100..2_400).contains(&qrs), "{minutes:?}");
        }
    }

    #[test]
    fn a_cycle_is_six_qrs_at_their_times_and_an_expiry() {
        let all = events(unscanned(), 0, 700_000);
        let expiry = all
            .iter()
            .position(|e| e.what == What::Expired)
            .expect("one expires");
        let cycle = all.get(expiry + 1..expiry + 8).expect("a whole cycle");
        let from = cycle[0].at_ms;
        let times: Vec<u64> = cycle.iter().map(|event| event.at_ms - from).collect();
        assert_eq!(
            times,
            [0, 60_000, 80_000, 100_000, 120_000, 140_000, 160_000]
        );
        assert_eq!(cycle[6].what, What::Expired);
    }

    #[test]
    fn a_qr_is_unique_and_as_long_as_a_real_one() {
        let mut seen = BTreeSet::new();
        for index in 0..20 {
            for event in events(unscanned(), index, 3_600_000) {
                if let What::Qr(qr) = event.what {
                    assert!(
                        qr.starts_with("2@") && (217..=281).contains(&qr.len()),
                        "{qr}"
                    );
                    assert!(seen.insert(qr), "twice");
                }
            }
        }
    }

    #[test]
    fn after_a_scan_no_qr_comes_before_the_log_out_and_times_never_fall() {
        let config = GatewayConfig {
            scan_probability: 1.0,
            ..GatewayConfig::default()
        };
        for index in 0..50 {
            let all = events(config.clone(), index, 3_600_000);
            assert!(all.is_sorted_by_key(|event| event.at_ms));
            let mut up = false;
            for event in all {
                match event.what {
                    What::Active => up = true,
                    What::LoggedOut => up = false,
                    What::Qr(_) => assert!(!up, "a QR while active"),
                    What::Expired => {}
                }
            }
        }
    }

    #[test]
    fn the_origins_timer_fires_beside_the_next_cycles_first_qr_and_moves_nothing_else() {
        let config = GatewayConfig {
            scan_probability: 0.0,
            ..GatewayConfig::origin()
        };
        let qrs = |events: &[Event]| -> Vec<Event> {
            let is_qr = |event: &&Event| matches!(event.what, What::Qr(_));
            events.iter().filter(is_qr).cloned().collect()
        };
        for index in 0..50 {
            let all = events(config.clone(), index, 3_600_000);
            assert!(all.is_sorted_by_key(|event| event.at_ms));
            let expiries: Vec<u64> = all
                .iter()
                .filter(|event| event.what == What::Expired)
                .map(|event| event.at_ms)
                .collect();
            assert!(expiries.len() > 20, "one a cycle: {expiries:?}");
            let shown = qrs(&all);
            for at in expiries {
                assert!(shown.iter().any(|qr| qr.at_ms == at), "no QR at {at}");
            }
            assert_eq!(shown, qrs(&events(unscanned(), index, 3_600_000)));
        }
    }

    #[test]
    fn compression_divides_all_times() {
        let plain = events(unscanned(), 3, 600_000);
        let config = GatewayConfig {
            time_compression: 60.0,
            ..unscanned()
        };
        let fast = events(config, 3, 10_000);
        let divided: Vec<u64> = plain.iter().map(|event| event.at_ms / 60).collect();
        assert_eq!(
            fast.iter().map(|event| event.at_ms).collect::<Vec<_>>(),
            divided
        );
    }
}
