//! What is made of an answer: its freshness, refusals, redirects, compressed bodies, and what is none.

use super::*;

#[test]
fn freshness_is_told_by_the_clock_of_the_service_alone() {
    let headers = [
        ("date", "Wed, 10 Jun 2020 13:00:05 GMT"),
        ("expires", "Wed, 10 Jun 2020 13:32:17 GMT"),
        ("last-modified", "Wed, 10 Jun 2020 13:00:02 GMT"),
    ];
    let Outcome::Fresh(answer, freshness) = judged(200, &headers, b"20.5") else { panic!() };
    assert!((answer - 20.5).abs() < f64::EPSILON);
    let wanted = Freshness {
        date: Some(T + 5),
        holds: Some(Duration::from_secs(32 * 60 + 12)),
        last_modified: Some("Wed, 10 Jun 2020 13:00:02 GMT".into()),
        is_deprecated: false,
    };
    assert_eq!(freshness, wanted);
    // Without a clock over there ours must do; what is over is over, and nonsense is nothing.
    let Outcome::Unchanged(freshness) = judged(304, &[headers[1]], b"") else { panic!() };
    assert_eq!((freshness.date, freshness.holds), (None, Some(Duration::from_secs(32 * 60 + 17))));
    let Outcome::Unchanged(freshness) =
        judged(304, &[headers[0], ("expires", "Tue, 09 Jun 2020 13:00:00 GMT")], b"")
    else {
        panic!()
    };
    assert_eq!(freshness.holds, Some(Duration::ZERO));
    let long = "x".repeat(65);
    let Outcome::Fresh(_, freshness) =
        judged(200, &[("expires", "0"), ("date", "yesterday"), ("last-modified", &long)], b"1")
    else {
        panic!()
    };
    assert_eq!(freshness, Freshness::default());
}

#[test]
fn a_refusal_has_words_and_says_whether_it_may_pass() {
    let busy = fault(judged(429, &[("retry-after", "120")], b""));
    assert_eq!(busy.words, "weather.example:80 answered 429 (Too Many Requests)");
    assert_eq!((busy.retry_after, busy.is_futile), (Some(Duration::from_secs(120)), false));
    let later = [("date", "Wed, 10 Jun 2020 13:00:00 GMT"), ("retry-after", "Wed, 10 Jun 2020 13:10:00 GMT")];
    assert_eq!(fault(judged(503, &later, b"")).retry_after, Some(Duration::from_secs(600)));
    assert_eq!(fault(judged(503, &[("retry-after", "soon")], b"")).retry_after, None);
    assert_eq!(fault(judged(503, &[("retry-after", "-5")], b"")).retry_after, Some(Duration::ZERO));
    let refused = fault(judged(403, &[], b"who are you"));
    assert_eq!(refused.words, "weather.example:80 answered 403 (Forbidden): who are you");
    assert!(refused.is_futile && !refused.is_unreachable);
    assert!(fault(judge(&service(), &origin(), &response(304, &[], b""), false, T)).words.contains("304"));
    let long = fault(judged(500, &[], "ä\n".repeat(10_000).as_bytes()));
    assert!(long.words.len() < 600 && !long.words.contains('\n'), "{}", long.words.len());
}

#[test]
fn a_secret_that_comes_back_is_not_shown() {
    let refused = fault(judged(400, &[], b"the key geheim is no key"));
    assert!(refused.words.contains("the key … is no key"), "{}", refused.words);
    let moved = fault(judged(302, &[("location", "http://elsewhere.example/?apikey=geheim")], b""));
    assert!(moved.words.contains("elsewhere.example") && !moved.words.contains("geheim"), "{}", moved.words);
}

#[test]
fn no_part_of_a_secret_is_left_where_words_are_cut() {
    for before in 180..=200 {
        let body = format!("{} geheim", "x".repeat(before));
        let words = fault(judged(400, &[], body.as_bytes())).words;
        assert!(!words.contains(" g"), "{words}");
    }
    let torn = fault(judged(400, &[], b"the key ge\nheim is no key"));
    assert!(torn.words.contains("the key … is"), "{}", torn.words);
}

#[test]
fn a_redirect_is_followed_on_the_same_server_alone() {
    let to = |status, location: &str| redirect(&origin(), &response(status, &[("location", location)], b""));
    assert_eq!(to(302, "/v2/?lat=1").as_deref(), Some("/v2/?lat=1"));
    assert_eq!(to(308, "http://weather.example/v2").as_deref(), Some("/v2"));
    assert_eq!(to(301, "http://WEATHER.example:80/v2").as_deref(), Some("/v2"));
    for elsewhere in [
        "https://weather.example/v2",
        "http://weather.example:81/",
        "http://other.example/",
        "//other.example/",
        "",
    ] {
        assert_eq!(to(302, elsewhere), None, "{elsewhere}");
    }
    assert_eq!(to(200, "/v2"), None);
}

#[test]
fn a_compressed_answer_is_unpacked_within_bounds() {
    let packed = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let gzip = ("content-encoding", "gzip");
    assert!(matches!(judged(200, &[gzip], &packed(b"20.5")), Outcome::Fresh(answer, _) if answer > 20.0));
    let bomb = packed(&vec![b' '; 50_000_000]);
    assert!(bomb.len() < 256 * 1024);
    let words = |bytes: &[u8], encoding| fault(judged(200, &[("content-encoding", encoding)], bytes)).words;
    assert!(words(&bomb, "gzip").contains("too large"));
    let whole = packed(b"20.5");
    assert!(words(&whole[..whole.len() - 4], "gzip").contains("is broken"));
    assert!(words(b"20.5", "gzip").contains("is broken"));
    assert!(words(b"20.5", "br").contains("nobody asked for"));
}

#[test]
fn what_is_no_answer_is_described_without_repeating_it() {
    for (body, words) in [
        (&b"\"geheim and more\""[..], "a wrong type or a missing field at line 1"),
        (b"2.", "an early end"),
        (b"", "an early end"),
        (b"<html>", "broken JSON"),
        (b"1e999", "broken JSON"),
        (b"NaN", "broken JSON"),
    ] {
        let fault = fault(judged(200, &[], body));
        assert!(fault.words.contains(words), "{}", fault.words);
        assert!(!fault.is_futile);
    }
}
