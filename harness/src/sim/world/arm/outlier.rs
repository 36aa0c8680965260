//! Envoy's outlier detection, for a cluster of one host.
//!
//! It is Embudo's circuit breaker, so its arithmetic counts: how many failures eject, for how long, and
//! when the end of it is noticed. The figures are those of the cluster `laravel_batch` in `envoy.yaml`;
//! a test holds them against the file. (source/common/upstream/outlier_detection_impl.cc)

use crate::sim::host::Cluster;

/// `consecutive_gateway_failure`.
const CONSECUTIVE_GATEWAY_FAILURE: u32 = 3;

/// `interval`, µs: ejections end only then.
pub(super) const INTERVAL_US: u64 = 1_000_000;

/// `base_ejection_time` and `max_ejection_time`, µs: no ejection is longer than another.
const EJECTION_US: u64 = 3_000_000;

/// What Envoy knows of the host.
#[derive(Debug, Default)]
pub(super) struct Outlier {
    /// Gateway failures in a row: 502, 503, 504. Connect failures and timeouts count as 503 and 504.
    consecutive: u32,
    ejected_at_us: Option<u64>,
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
        // Another 5xx, a 500 among them, is the host's own word, and ends the row.
        if !matches!(status, 502..=504) {
            self.consecutive = 0;
            return;
        }
        self.consecutive += 1;
        // Exactly then: what fails while the host is ejected anyway changes nothing.
        if self.consecutive == CONSECUTIVE_GATEWAY_FAILURE && self.ejected_at_us.is_none() {
            self.ejected_at_us = Some(now_us);
            self.consecutive = 0;
        }
    }

    // ## Ejected => Healthy

    /// The interval is over.
    pub(super) fn looks(&mut self, now_us: u64) {
        let Some(ejected_at_us) = self.ejected_at_us else {
            return;
        };
        if now_us.saturating_sub(ejected_at_us) >= EJECTION_US {
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
        let failures = &detection["consecutive_gateway_failure"];
        assert_eq!(*failures, CONSECUTIVE_GATEWAY_FAILURE);
        assert_eq!(detection["enforcing_consecutive_gateway_failure"], 100);
        assert_eq!(detection["enforcing_consecutive_5xx"], 0);
        assert_eq!(detection["interval"], seconds(INTERVAL_US));
        assert_eq!(detection["base_ejection_time"], seconds(EJECTION_US));
        assert_eq!(detection["max_ejection_time"], seconds(EJECTION_US));
    }

    #[test]
    fn three_gateway_failures_in_a_row_eject_and_any_other_answer_ends_the_row() {
        let mut outlier = Outlier::default();
        for status in [500, 500, 500, 503, 502, 500, 504, 502, 429, 503, 504, 520] {
            outlier.sees(status, 0);
            assert!(!ejected(&outlier), "{status}");
        }
        for status in [504, 502, 503] {
            outlier.sees(status, 0);
        }
        assert!(ejected(&outlier));
    }

    #[test]
    fn every_ejection_lasts_as_long_as_the_first() {
        let mut outlier = Outlier::default();
        let mut now_us = 0;
        for _ in 0..3 {
            (0..3).for_each(|_| outlier.sees(503, now_us));
            let from_us = now_us;
            while ejected(&outlier) {
                now_us += INTERVAL_US;
                outlier.looks(now_us);
            }
            assert_eq!(now_us - from_us, EJECTION_US);
        }
    }
}
