#![allow(clippy::unwrap_used)]
use super::*;
use crate::cli::model::read;
use serde_json::json;

#[test]
fn status_is_a_header_and_an_aligned_table() {
    let (own, other) = ("a1".repeat(32), "b2".repeat(32));
    let answer = json!({
        "household": "c3".repeat(32), "node": own, "version": "0.1.0", "uptime_s": 90_061, "objects": 12,
        "incomplete": 1, "clock_synchronised": true, "api": ["https://10.0.0.1:7843"], "listen": "0.0.0.0:7843",
        "nodes": [
            {"id": own, "name": "kitchen", "roles": ["admin", "member"], "state": "self", "lag": 0},
            {"id": other, "name": "attic", "roles": ["member"], "state": "alive", "address": "10.0.0.2:7843",
             "transport": "quic", "rtt_us": 1_250, "version": "0.1.0", "lag": 3, "clock_offset_ms": -20},
            {"id": "d4".repeat(32), "name": "cellar", "roles": ["member"], "state": "dead", "new_member": 1},
            {"id": "e5".repeat(32), "name": "shed", "roles": ["member"], "state": "alive", "transport": "relay",
             "via": "attic", "hops": 2},
            {"id": "f6".repeat(32), "name": "barn", "roles": ["member"], "state": "unreachable"},
        ],
    });
    let expected = "\
household  c3c3c3c3c3c3c3c3
node       kitchen (a1a1a1a1a1a1a1a1), hearth 0.1.0, up 1d 1h
objects    12, 1 incomplete
clock      synchronised
listens    0.0.0.0:7843 (UDP and TCP)
API        https://10.0.0.1:7843

NAME     ROLE          STATE        ADDRESS        TRANSPORT             RTT  VERSION  OBJECTS  LAG   CLOCK
kitchen  admin+member  self         -              -                       -  0.1.0         12    0       -
attic    member        alive        10.0.0.2:7843  quic               1.2 ms  0.1.0          -    3  -20 ms
cellar   member        dead         -              -                       -  -              -    -       -
shed     member        alive        -              via attic, 2 hops       -  -              -    -       -
barn     member        unreachable  -              -                       -  -              -    -       -";
    assert_eq!(status(&read(&answer).unwrap(), false), expected);
    assert!(status(&read(&answer).unwrap(), true).contains("\u{1b}[31mdead\u{1b}[0m"));
}

#[test]
fn the_public_certificate_is_shown_with_its_renewal_and_what_is_wrong() {
    let served = json!({"public": ["https://home.example.org"], "certificate": {
        "names": ["home.example.org", "*.home.example.org"], "directory": "letsencrypt", "doing": "is served",
        "until": "2027-01-15T08:00:00.000Z", "renewal": {"at": "2026-12-16T03:04:05.000Z", "why": "W"}, "next_try": null,
    }});
    let text = status(&read(&served).unwrap(), false);
    let expected = "public     https://home.example.org\ncertificate home.example.org *.home.example.org: until 2027-01-15 08:00 UTC, from letsencrypt\n           \
         renewed 2026-12-16 03:04 UTC: W\n";
    assert!(text.contains(expected), "{text}");
    let failing = json!({"certificate": {
        "names": ["a.example.org"], "directory": "staging", "doing": "waits after a failure", "until": null,
        "next_try": "2027-01-15T09:00:00.000Z", "error": {"at": "2027-01-15T08:00:00.000Z", "words": "no such host"},
    }});
    let text = status(&read(&failing).unwrap(), false);
    let expected = "certificate a.example.org: none yet, from staging\n           waits after a failure; next look 2027-01-15 09:00 UTC\n           \
         LAST FAILURE 2027-01-15 08:00 UTC: no such host\n";
    assert!(text.contains(expected) && !text.contains("public  "), "{text}");
}

#[test]
fn a_status_of_which_nothing_is_known_still_shows() {
    let text = status(&read(&json!({})).unwrap(), false);
    assert!(text.starts_with("household  \nnode       ? ()") && text.contains("not synchronised"), "{text}");
}

#[test]
fn an_object_shows_each_field_with_its_writer() {
    let answer = json!({
        "id": "note/x", "fields": {"count": 3, "text": "hi there"}, "complete": true,
        "meta": {"text": {"at": "2026-11-22T06:00:00.123Z", "by": "00112233445566aa", "durable": true}},
    });
    let expected = "\
note/x
FIELD  VALUE     WRITTEN                   BY                DURABLE
count  3         -                         -                 -
text   hi there  2026-11-22T06:00:00.123Z  00112233445566aa  yes";
    assert_eq!(object(&read(&answer).unwrap()), expected);
    let empty = json!({"id": "note/x", "complete": false});
    assert_eq!(object(&read(&empty).unwrap()), "note/x  (incomplete: its kind requires more fields)");
}

#[test]
fn fields_stay_apart_on_one_line() {
    let answer: Object = read(&json!({"fields": {"a": "x y", "b": "3", "c": 3, "d": {"e": [1]}}})).unwrap();
    assert_eq!(fields(&answer.fields), "a=\"x y\" b=\"3\" c=3 d={\"e\":[1]}");
}

#[test]
fn devices_show_what_they_report_and_why_they_are_away() {
    let objects: Vec<Object> = read(&json!([
        {"id": "device/lifx-1", "fields": {"name": "desk", "label": "Bulb 1", "model": "LIFX Mini", "adapter": "lifx",
         "area": "office",
         "reported": {"value": {"kind": "light", "on": true, "brightness": 26214, "color": {"mode": "temperature", "kelvin": 2700}}}, "availability": {"state": "online"}}},
        {"id": "device/lifx-2", "fields": {"label": "Bulb 2", "adapter": "lifx",
         "availability": {"state": "offline", "reason": "no answer for 30 s"}}},
    ]))
    .unwrap();
    let expected = "\
NAME    AREA    ID             MODEL      STATE           AVAILABILITY                 ADAPTER
desk    office  device/lifx-1  LIFX Mini  on 40 % 2700 K  online                       lifx
Bulb 2  -       device/lifx-2  -          -               offline: no answer for 30 s  lifx";
    assert_eq!(devices(&objects, false), expected);
}

#[test]
fn steps_of_a_command_count_from_the_first() {
    let first = json!("2026-11-22T06:00:00.100Z");
    assert_eq!(step("accepted", &first, &first), "accepted      2026-11-22T06:00:00.100Z");
    assert_eq!(step("confirmed", &json!("2026-11-22T06:00:00.141Z"), &first), "confirmed     +41 ms");
    assert_eq!(step("sent", &json!(1_000), &json!(900)), "sent          +100 ms");
    assert_eq!(step("sent", &Value::Null, &first), "sent");
}

#[test]
fn checks_show_the_way_out_of_each_that_failed() {
    let all: Vec<Check> = read(&json!([
        {"name": "store", "status": "ok", "detail": "writable", "fix": "unused"},
        {"name": "clock", "status": "warn", "detail": "not synchronised", "fix": "sudo timedatectl set-ntp true"},
    ]))
    .unwrap();
    let expected = "\
CHECK  STATUS  DETAIL
store  ok      writable
clock  warn    not synchronised
clock: sudo timedatectl set-ntp true";
    assert_eq!(checks(&all, false), expected);
}

#[test]
fn lists_of_tokens_show_what_is_there() {
    let items =
        [json!({"id": "t1", "role": "viewer", "label": "hall"}), json!({"id": "t2", "roles": ["a", "b"]})];
    let expected = "ID  ROLE    LABEL\nt1  viewer  hall\nt2  -       -";
    assert_eq!(rows(&items, ["ID", "ROLE", "LABEL"], ["id", "role", "label"]), expected);
}

#[test]
fn times_are_short() {
    assert_eq!((rtt(85), rtt(9_990), rtt(140_000)), ("85 µs".into(), "9.9 ms".into(), "140 ms".into()));
    assert_eq!((age(5), age(725), age(7_260)), ("5s".into(), "12m 5s".into(), "2h 1m".into()));
}
