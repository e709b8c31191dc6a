//! How often something may happen: some at once, and so many a second in the long run.

use std::time::Duration;

use tokio::time::Instant;

/// What is left of a budget that fills up again.
#[derive(Debug)]
pub(super) struct Pace {
    burst: f64,
    a_second: f64,
    left: f64,
    at: Instant,
}

impl Pace {
    /// Full.
    pub(super) fn new(burst: f64, a_second: f64) -> Self {
        Self { burst, a_second, left: burst, at: Instant::now() }
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one.
    pub(super) fn take(&mut self) -> Result<(), Duration> {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.at);
        self.left = self.a_second.mul_add(passed.as_secs_f64(), self.left).min(self.burst);
        self.at = now;
        if self.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.left) / self.a_second));
        }
        self.left -= 1.0;
        Ok(())
    }
}
