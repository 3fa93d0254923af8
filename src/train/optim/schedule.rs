//! Learning rates over the steps of a stage.

use crate::train::recipe::Decay;

/// Learning rate over steps: linear warm-up to `peak`, then `decay` to `peak · final_fraction`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Largest learning rate.
    pub peak: f64,
    /// Steps of warm-up.
    pub warmup_steps: usize,
    /// Steps in all.
    pub total_steps: usize,
    /// How it falls.
    pub decay: Decay,
    /// What is left at the end, 0 … 1.
    pub final_fraction: f64,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    pub fn learning_rate(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        let left = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - done,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        self.peak * (self.final_fraction + (1.0 - self.final_fraction) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_rise_and_fall() {
        let schedule = Schedule {
            peak: 1.0,
            warmup_steps: 4,
            total_steps: 14,
            decay: Decay::Linear,
            final_fraction: 0.2,
        };
        let at = |schedule: &Schedule, step| (schedule.learning_rate(step) * 1e4).round() / 1e4;
        assert_eq!(
            [0, 3, 4, 9, 14, 99].map(|step| at(&schedule, step)),
            [0.25, 1.0, 1.0, 0.6, 0.2, 0.2]
        );
        let cosine = Schedule { decay: Decay::Cosine, final_fraction: 0.0, ..schedule };
        assert_eq!([4, 9, 14].map(|step| at(&cosine, step)), [1.0, 0.5, 0.0]);
        let constant = Schedule { decay: Decay::Constant, warmup_steps: 0, ..schedule };
        assert_eq!([0, 50].map(|step| at(&constant, step)), [1.0, 1.0]);
    }
}
