//! A panic is a law that does not hold: it is caught and told like any other, with its seed.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use super::Failure;

/// The law.
pub(crate) const LAW: &str = "it does not panic";

thread_local! {
    /// What a panic of this thread said, while one is waited for.
    static WAITING: RefCell<Option<Waiting>> = const { RefCell::new(None) };
}

struct Waiting {
    /// Whether it is also shown as any other panic, with its backtrace if that is wanted.
    loud: bool,
    said: String,
}

/// Does something that may panic. A panic becomes a failure that says where it was and what it said.
pub(crate) fn caught(loud: bool, what: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    listen();
    WAITING.set(Some(Waiting { loud, said: String::new() }));
    // What it was working on is only counted and thrown away afterwards.
    let outcome = panic::catch_unwind(AssertUnwindSafe(what));
    let said = WAITING.take().map(|waiting| waiting.said).unwrap_or_default();
    outcome.unwrap_or_else(|_| Err(Failure::new(LAW, said)))
}

/// Only a hook is told where a panic was. Panics that nobody waits for go on to the hook before.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_quiet = WAITING.with_borrow_mut(|waiting| {
                waiting.as_mut().is_some_and(|waiting| {
                    waiting.said = info.to_string().replace('\n', " ");
                    !waiting.loud
                })
            });
            if !is_quiet {
                before(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_failure_that_says_where_and_what() {
        let nothing: Vec<u8> = Vec::new();
        let failure = caught(false, || {
            assert_eq!(nothing.len(), 1, "a queue of one");
            Ok(())
        })
        .unwrap_err();
        assert_eq!(failure.oracle, LAW);
        assert!(failure.reason.contains("a queue of one"), "{}", failure.reason);
        assert!(failure.reason.contains("panics.rs:"), "{}", failure.reason);
    }

    #[test]
    fn what_does_not_panic_keeps_its_outcome() {
        assert!(caught(false, || Ok(())).is_ok());
        let failure = caught(false, || Err(Failure::new("a law", "seen".into()))).unwrap_err();
        assert_eq!((failure.oracle, failure.reason.as_str()), ("a law", "seen"));
        // A panic of which nobody was to be told is not remembered for the next.
        assert!(caught(false, || panic!("first")).unwrap_err().reason.contains("first"));
        assert!(caught(false, || Ok(())).is_ok());
    }
}
