//! When the certificate that is shown is over: what a scrape reads, and what a process is not ready after.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use spillway_delivery::clock::Clock;

use super::certificates::now;

/// Stands for a certificate that is not there yet.
const UNKNOWN: i64 = i64::MAX;

/// When what is shown is over. A clone is the same.
#[derive(Debug, Clone)]
pub struct Expires {
    at: Arc<AtomicI64>,
    clock: Clock,
}

impl Expires {
    /// Returns that of a certificate that is not there yet.
    pub fn new(clock: Clock) -> Self {
        Self { at: Arc::new(AtomicI64::new(UNKNOWN)), clock }
    }

    /// Says when that is.
    pub(super) fn set(&self, at: Timestamp) {
        self.at.store(at.as_second(), Ordering::Relaxed);
    }

    /// Returns whether it is over by now.
    pub fn is_over(&self) -> bool {
        self.at.load(Ordering::Relaxed) <= now(&self.clock).as_second()
    }
}

impl Default for Expires {
    fn default() -> Self {
        Self::new(Clock::system())
    }
}

impl Collector for Expires {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = described(&mut encoder)?;
        match self.at.load(Ordering::Relaxed) {
            UNKNOWN => Ok(()),
            at => ConstGauge::new(at).encode(family.encode_family(&[("certificate", "leaf")])?),
        }
    }
}

/// Begins the figure.
pub(super) fn described<'e>(encoder: &'e mut DescriptorEncoder<'_>) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(
        "certificate_expiry_timestamp_seconds",
        "When a certificate is over, Unix time.",
        None,
        MetricType::Gauge,
    )
}
