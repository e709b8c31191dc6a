//! When a certificate is renewed: at a moment by chance inside the window that the authority suggests (ARI, RFC 9773), or, where it
//! suggests none, after two thirds of the certificate's own life and a little more. Pure: time and chance come in.

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::der::Certificate;

const HOUR: u64 = 3_600;
/// Between two looks at what the authority suggests (RFC 9773, section 4.3.2: it says when; a sane client bounds it).
const LOOK_WITHIN: std::ops::RangeInclusive<u64> = HOUR..=24 * HOUR;
/// Until the next look when the last one failed, in seconds.
pub(super) const LOOK_AGAIN: u64 = 6 * HOUR;

/// When one certificate is renewed. It is kept on the disk, so that chance is asked once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which certificate, by its fingerprint.
    pub certificate: String,
    /// The window that the authority suggested last, in seconds since 1970.
    pub window: Option<(u64, u64)>,
    /// When it is renewed, in seconds since 1970.
    pub at: u64,
    /// When the authority is asked again what it suggests.
    pub look: u64,
}

impl Plan {
    /// For a certificate of whose authority nothing was heard yet; it is asked at once.
    pub fn new(certificate: &str, validity: (u64, u64), chance: u64) -> Self {
        Self { certificate: certificate.to_owned(), window: None, at: by_life(validity, chance), look: 0 }
    }

    /// The authority suggests this window. A moment that lies inside it stays.
    pub fn suggest(&mut self, now: u64, window: Window, validity: (u64, u64), chance: u64) {
        let (start, end) = (window.start, window.end);
        self.look =
            now + window.again_s.unwrap_or(LOOK_AGAIN).clamp(*LOOK_WITHIN.start(), *LOOK_WITHIN.end());
        let kept = self.window.is_some() && (start..=end).contains(&self.at);
        self.window = Some((start, end));
        if !kept {
            self.at = start + chance % (end - start + 1);
        }
        // Whatever it suggests: what was just made is not made anew, and nobody is served what has ended.
        self.at = self.at.max(settled(validity)).min(nearly_over(validity));
    }

    /// The last certificate was made at that time: the next one is not made at once, whatever is suggested and from whenever on this
    /// one holds.
    pub fn rest(&mut self, made: u64, validity: (u64, u64)) {
        let rest = share(validity).min(HOUR);
        self.at = self.at.max(made.saturating_add(rest));
    }

    /// Mends what a clock has written that was ahead.
    pub fn mend(&mut self, now: u64) {
        self.look = self.look.min(now.saturating_add(*LOOK_WITHIN.end()));
    }

    /// The authority suggests nothing, or is not reached: what was known stays, and is asked for later.
    pub fn keep(&mut self, now: u64) {
        self.look = now + LOOK_AGAIN;
    }
}

/// Two thirds of the life, and up to a twenty-fourth of it more.
fn by_life((begins, ends): (u64, u64), chance: u64) -> u64 {
    let life = ends.saturating_sub(begins);
    begins + life / 3 * 2 + chance % (share((begins, ends)) + 1)
}

/// A small share of a life: so long each certificate is left alone.
fn share((begins, ends): (u64, u64)) -> u64 {
    ends.saturating_sub(begins) / 24
}

/// The first moment at which a certificate may be renewed: an authority that asks for it sooner, again and again, is broken.
fn settled(validity: (u64, u64)) -> u64 {
    validity.0 + share(validity)
}

/// The last moment that leaves time for another try.
fn nearly_over((begins, ends): (u64, u64)) -> u64 {
    begins + ends.saturating_sub(begins) / 10 * 9
}

/// What an authority suggests (RFC 9773, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first second, since 1970.
    pub start: u64,
    /// Its last.
    pub end: u64,
    /// After how many seconds it may be asked for again.
    pub again_s: Option<u64>,
}

impl Window {
    /// Reads the document; `None` when it is none, or its end lies before its start.
    pub fn read(document: &[u8], again_s: Option<u64>) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Info {
            suggested_window: Suggested,
        }
        #[derive(Deserialize)]
        struct Suggested {
            start: String,
            end: String,
        }
        let Info { suggested_window: Suggested { start, end } } = serde_json::from_slice(document).ok()?;
        let seconds = |at: &str| u64::try_from(at.parse::<Timestamp>().ok()?.as_second()).ok();
        let (start, end) = (seconds(&start)?, seconds(&end)?);
        (start < end).then_some(Self { start, end, again_s })
    }
}

/// By which name the authority knows a certificate (RFC 9773, section 4.1): the identifier of its own key, and the number.
pub fn name_of(certificate: &Certificate<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    certificate.authority_key.map(|key| (key.to_vec(), certificate.serial.to_vec()))
}

/// The name as it stands in a URL.
pub fn shown_name((key, serial): &(Vec<u8>, Vec<u8>)) -> String {
    format!("{}.{}", BASE64URL_NOPAD.encode(key), BASE64URL_NOPAD.encode(serial))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BEGINS: u64 = 1_800_000_000;
    const DAY: u64 = 24 * HOUR;

    fn window(start: u64, end: u64) -> Window {
        Window { start, end, again_s: Some(6 * HOUR) }
    }

    #[test]
    fn without_a_suggestion_two_thirds_of_any_life_count() {
        for life in [90 * DAY, 45 * DAY, 6 * DAY, 3_600, 30] {
            let validity = (BEGINS, BEGINS + life);
            for chance in [0, 1, u64::MAX, 12_345_678_901] {
                let plan = Plan::new("c", validity, chance);
                let after = plan.at - BEGINS;
                assert!((life / 3 * 2..=life / 3 * 2 + life / 24).contains(&after), "{after} of {life}");
                assert!(plan.at < nearly_over(validity));
                assert_eq!(plan.look, 0, "the authority is asked at once");
            }
        }
        assert_eq!(Plan::new("c", (5, 5), 9).at, 5, "a life of nothing does not divide by it");
    }

    #[test]
    fn a_suggested_window_gives_one_moment_by_chance_which_stays() {
        let validity = (BEGINS, BEGINS + 90 * DAY);
        let (start, end) = (BEGINS + 58 * DAY, BEGINS + 60 * DAY);
        let mut moments = Vec::new();
        for chance in (0..40).map(|turn: u64| turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let mut plan = Plan::new("c", validity, 0);
            plan.suggest(BEGINS, window(start, end), validity, chance);
            assert!((start..=end).contains(&plan.at));
            moments.push(plan.at);
            let chosen = plan.at;
            plan.suggest(BEGINS + DAY, window(start, end), validity, chance + 1_000_003);
            plan.suggest(BEGINS + DAY, window(start - 1, end + 1), validity, chance + 1_000_003);
            assert_eq!(plan.at, chosen);
            plan.keep(BEGINS + 2 * DAY);
            assert_eq!((plan.at, plan.look), (chosen, BEGINS + 2 * DAY + LOOK_AGAIN));
        }
        moments.sort_unstable();
        moments.dedup();
        assert!(moments.len() > 30, "by chance");
    }

    #[test]
    fn a_window_that_moves_moves_the_moment() {
        let validity = (BEGINS, BEGINS + 90 * DAY);
        let mut plan = Plan::new("c", validity, 0);
        plan.suggest(BEGINS, window(BEGINS + 58 * DAY, BEGINS + 60 * DAY), validity, 5);
        // Revoked in bulk: the authority wants it replaced by yesterday.
        let now = BEGINS + 10 * DAY;
        plan.suggest(now, window(now - 2 * DAY, now - DAY), validity, 7);
        assert!(plan.at < now);
        plan.suggest(now, window(BEGINS + 80 * DAY, BEGINS + 99 * DAY), validity, 17 * DAY);
        assert_eq!(plan.at, BEGINS + 81 * DAY, "never so late that what is served ends");
    }

    #[test]
    fn a_window_in_the_past_renews_nothing_that_is_new() {
        for life in [90 * DAY, 6 * DAY, 3_600, 48] {
            let validity = (BEGINS, BEGINS + life);
            let mut plan = Plan::new("c", validity, 0);
            for turn in 0..3 {
                plan.suggest(BEGINS, window(BEGINS - 9 * DAY, BEGINS - 8 * DAY), validity, turn);
                assert_eq!(plan.at, BEGINS + life / 24);
            }
            // One that begins long before it is made is left alone for a while, too.
            plan.rest(BEGINS + life / 2, validity);
            assert_eq!(plan.at, BEGINS + life / 2 + (life / 24).min(HOUR));
            let drawn = plan.at;
            plan.rest(BEGINS, validity);
            assert_eq!(plan.at, drawn, "never sooner");
        }
    }

    #[test]
    fn the_authority_is_asked_again_when_it_says_within_bounds() {
        let validity = (BEGINS, BEGINS + 90 * DAY);
        let mut plan = Plan::new("c", validity, 0);
        for (says, waits) in
            [(None, LOOK_AGAIN), (Some(1), HOUR), (Some(2 * HOUR), 2 * HOUR), (Some(u64::MAX), DAY)]
        {
            let window = Window { again_s: says, ..window(BEGINS, BEGINS + 1) };
            plan.suggest(BEGINS, window, validity, 0);
            assert_eq!(plan.look, BEGINS + waits);
        }
    }

    #[test]
    fn windows_are_read_and_nonsense_is_none() {
        let read = |text: &str| Window::read(text.as_bytes(), None);
        let found = read(
            r#"{"suggestedWindow":{"start":"2026-01-02T04:00:00Z","end":"2026-01-03T04:00:00.5Z"},"x":1}"#,
        );
        assert_eq!(found, Some(Window { start: 1_767_326_400, end: 1_767_412_800, again_s: None }));
        for wrong in [
            "",
            "{}",
            r#"{"suggestedWindow":{"start":"2026-01-03T04:00:00Z","end":"2026-01-02T04:00:00Z"}}"#,
            r#"{"suggestedWindow":{"start":"2026-01-03T04:00:00Z","end":"2026-01-03T04:00:00Z"}}"#,
            r#"{"suggestedWindow":{"start":"1950-01-03T04:00:00Z","end":"2026-01-03T04:00:00Z"}}"#,
            r#"{"suggestedWindow":{"start":1,"end":2}}"#,
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    /// The example of RFC 9773, section 4.1.
    #[test]
    fn a_certificate_is_named_as_the_standard_shows_it() {
        let key = vec![
            0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae, 0x2c,
            0xde, 0x01, 0xc8, 0xd4,
        ];
        let serial = vec![0x00, 0x87, 0x65, 0x43, 0x21];
        assert_eq!(shown_name(&(key, serial)), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
    }
}
