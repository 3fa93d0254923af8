//! Time in which a stage ran.

use std::time::{Duration, Instant};

/// A process that was stopped or a machine that slept for longer than any step takes loses none of its
/// minutes.
pub(super) struct Clock {
    /// Seconds of earlier processes.
    before: f64,
    last: Instant,
    total: Duration,
}

impl Clock {
    const LONGEST: Duration = Duration::from_secs(60);

    /// Goes on from `before` seconds.
    pub(super) fn new(before: f64) -> Self {
        Clock { before, last: Instant::now(), total: Duration::ZERO }
    }

    /// Begins to count now.
    pub(super) fn go_on(&mut self) {
        self.last = Instant::now();
    }

    pub(super) fn seconds(&mut self) -> f64 {
        let gap = self.last.elapsed();
        self.last += gap;
        self.total += gap.min(Self::LONGEST);
        self.before + self.total.as_secs_f64()
    }
}
