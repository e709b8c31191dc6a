//! Work that may panic or never return, where that can be survived.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a sign of life is shown.
const SIGN_EVERY: Duration = Duration::from_secs(1);

/// How long some work may take.
pub(super) struct Patience {
    /// It counts as failed then.
    pub(super) deadline: Duration,
    /// For so long whoever waits for it shows signs of life: what takes longer may be a disk that hangs, which
    /// the watchdog should see.
    pub(super) on_a_slow_card: Duration,
}

/// Calls `work` and turns a panic into its message.
pub(super) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_string()
    })
}

/// Runs `work` on a thread of its own; a panic or a missed deadline is a reason, not the end. A
/// thread that misses its deadline is left behind: there is no way to stop it.
pub(super) fn guarded<T: Send + 'static>(
    patience: Patience,
    progress: &mut dyn FnMut(),
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let Patience { deadline, on_a_slow_card } = patience;
    let (send, receive) = mpsc::channel();
    let thread = std::thread::Builder::new().name("store-open".into());
    let spawned = thread.spawn(move || drop(send.send(catch_panic(work))));
    if let Err(error) = spawned {
        return Err(format!("no thread could be started: {error}"));
    }
    let began = Instant::now();
    loop {
        let waited = began.elapsed();
        if waited <= on_a_slow_card {
            progress();
        }
        match receive.recv_timeout(SIGN_EVERY.min(deadline.saturating_sub(waited))) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(panic)) => return Err(format!("the storage engine gave up ({panic})")),
            Err(RecvTimeoutError::Timeout) if began.elapsed() < deadline => {}
            Err(_) => return Err(format!("the storage engine did not answer for {} s", deadline.as_secs())),
        }
    }
}
