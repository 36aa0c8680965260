//! Envoy's outlier detection, for a cluster of one host.
//!
//! It is Embudo's circuit breaker, so its arithmetic counts: how many failures eject, for how long, and
//! when the end of it is noticed. The figures are those of the cluster `laravel_batch` in `envoy.yaml`;
//! a test holds them against the file. (source/common/upstream/outlier_detection_impl.cc)

use crate::sim::host::Cluster;

/// `consecutive_5xx`.
const CONSECUTIVE_5XX: u32 = 3;

/// `interval`, µs: ejections end only then.
pub(super) const INTERVAL_US: u64 = 1_000_000;

/// `base_ejection_time`, µs.
const BASE_US: u64 = 3_000_000;

/// `max_ejection_time`, µs.
const MAX_US: u64 = 30_000_000;

/// What Envoy knows of the host.
#[derive(Debug, Default)]
pub(super) struct Outlier {
    /// 5xx in a row. Connect failures and timeouts count as 503 and 504.
    consecutive: u32,
    ejected_at_us: Option<u64>,
    /// How many times the base an ejection lasts.
    times: u32,
}

// === impl Outlier ===

impl Outlier {
    pub(super) fn cluster(&self) -> Cluster {
        match self.ejected_at_us {
            Some(_) => Cluster::Ejected,
            None => Cluster::Healthy,
        }
    }

    // ## Healthy => Ejected

    /// A call ended with this status.
    pub(super) fn sees(&mut self, status: u16, now_us: u64) {
        if status < 500 {
            self.consecutive = 0;
            return;
        }
        self.consecutive += 1;
        // Exactly then: what fails while the host is ejected anyway changes nothing.
        if self.consecutive == CONSECUTIVE_5XX && self.ejected_at_us.is_none() {
            self.ejected_at_us = Some(now_us);
            if BASE_US * u64::from(self.times) < MAX_US {
                self.times += 1;
            }
            self.consecutive = 0;
        }
    }

    // ## Ejected => Healthy

    /// The interval is over.
    pub(super) fn looks(&mut self, now_us: u64) {
        let Some(ejected_at_us) = self.ejected_at_us else {
            self.times = self.times.saturating_sub(1);
            return;
        };
        let lasts_us = (BASE_US * u64::from(self.times)).min(MAX_US);
        if now_us.saturating_sub(ejected_at_us) >= lasts_us {
            self.ejected_at_us = None;
            self.consecutive = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Bootstrap;

    fn ejected(outlier: &Outlier) -> bool {
        outlier.cluster() == Cluster::Ejected
    }

    #[test]
    fn the_figures_are_those_of_the_shipped_configuration() {
        let shipped = Bootstrap::shipped().expect("envoy.yaml is there").to_json();
        let shipped: serde_json::Value = serde_json::from_str(&shipped).expect("JSON");
        let clusters = shipped["static_resources"]["clusters"].as_array();
        let batch = clusters
            .into_iter()
            .flatten()
            .find(|cluster| cluster["name"] == "laravel_batch")
            .expect("the cluster of the batches");
        let detection = &batch["outlier_detection"];
        let seconds = |us: u64| format!("{}s", us / 1_000_000);
        assert_eq!(detection["consecutive_5xx"], CONSECUTIVE_5XX);
        assert_eq!(detection["interval"], seconds(INTERVAL_US));
        assert_eq!(detection["base_ejection_time"], seconds(BASE_US));
        assert_eq!(detection["max_ejection_time"], seconds(MAX_US));
    }

    #[test]
    fn three_failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let mut outlier = Outlier::default();
        for status in [500, 503, 200, 504, 502, 429, 503, 500] {
            outlier.sees(status, 0);
            assert!(!ejected(&outlier), "{status}");
        }
        outlier.sees(504, 0);
        assert!(ejected(&outlier));
    }

    #[test]
    fn each_ejection_lasts_longer_and_health_makes_up_for_it() {
        let mut outlier = Outlier::default();
        let mut now_us = 0;
        let mut eject = |outlier: &mut Outlier| {
            (0..3).for_each(|_| outlier.sees(500, now_us));
            let from_us = now_us;
            while ejected(outlier) {
                now_us += INTERVAL_US;
                outlier.looks(now_us);
            }
            (now_us - from_us) / 1_000_000
        };
        assert_eq!(eject(&mut outlier), 3);
        assert_eq!(eject(&mut outlier), 6);
        (0..2).for_each(|_| outlier.looks(u64::MAX));
        assert_eq!(eject(&mut outlier), 3, "two healthy intervals");
    }
}
