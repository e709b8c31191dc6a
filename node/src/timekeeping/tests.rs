//! The answers are those of chronyd 4.3 and of NTPsec's ntpd 1.2.2, byte for byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use data_encoding::HEXLOWER_PERMISSIVE as HEX;

use super::*;

const ASKED: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];
const ASKED_NTP: [u8; 8] = *b"ABCDEFGH";

/// chronyd that has reached no server yet.
const CHRONY_ALONE: &str = "06020000002100050000000000000000deadbeef000000000000000000000000000000000000000000000000000000000000000000000003000000000000000000000000000000000000000000000000000000000000000000000000048000000480000000000000";
/// chronyd with `local stratum 8`: it serves the clock of its own machine.
const CHRONY_LOCAL: &str = "06020000002100050000000000000000deadbeef00000000000000007f7f0101000000000000000000000000000000000000000000080000000000006b02b74b243c3f98000000000000000000000000000000000000000000000000000000000000000000000000";
/// chronyd that follows a server.
const CHRONY_SERVED: &str = "06020000002100050000000000000000deadbeef00000000000000007f0000017f0000010000000000000000000000000001000000090000000000006b02b78c32906bf3dd1bfe8fd763e94bd8dd05c8fb6a119df50f980dfea36988e0da4e1ddcc879d704820586";
/// ntpd that has reached no server yet.
const NTP_ALONE: &str =
    "e40000e80000000000000002494e495400000000000000004142434445464748eead35d9066bdf57eead35d9066ed94c";
/// chronyd with `local stratum 8`, asked over NTP.
const NTP_LOCAL: &str =
    "240800e700000000000000007f7f0101eead35cb9ba12efe4142434445464748eead35cd3e1ee165eead35cd3e2028a4";
/// chronyd that follows a server, asked over NTP.
const NTP_SERVED: &str =
    "240900e700000001000000017f000001eead360cd92bde254142434445464748eead360df46be9f7eead360df46d361a";

fn bytes(hex: &str) -> Vec<u8> {
    HEX.decode(hex.as_bytes()).unwrap()
}

#[test]
fn only_a_program_that_follows_another_clock_keeps_this_one() {
    for (answer, expected) in [(CHRONY_ALONE, false), (CHRONY_LOCAL, false), (CHRONY_SERVED, true)] {
        assert_eq!(chrony_is_synchronised(&bytes(answer), ASKED), expected, "{answer}");
        assert!(!chrony_is_synchronised(&bytes(answer), [0; 4]), "an answer to somebody else");
    }
    for (answer, expected) in [(NTP_ALONE, false), (NTP_LOCAL, false), (NTP_SERVED, true)] {
        assert_eq!(ntp_is_synchronised(&bytes(answer), ASKED_NTP), expected, "{answer}");
        assert!(!ntp_is_synchronised(&bytes(answer), [0; 8]), "an answer to somebody else");
    }
}

#[test]
fn one_wrong_field_makes_the_answer_worthless() {
    // Version, kind, command, kind of reply, status, reference, stratum, leap.
    let changes = [(0, 5), (1, 1), (5, 34), (7, 6), (9, 1), (53, 0), (53, 16), (55, 3)];
    for (at, value) in changes {
        let mut answer = bytes(CHRONY_SERVED);
        answer[at] = value;
        assert!(!chrony_is_synchronised(&answer, ASKED), "byte {at} is {value}");
    }
    // Mode, leap, stratum, delay, dispersion.
    for (at, value) in [(0, 0x23), (0, 0xe4), (1, 0), (1, 16), (5, 34), (9, 16)] {
        let mut answer = bytes(NTP_SERVED);
        answer[at] = value;
        assert!(!ntp_is_synchronised(&answer, ASKED_NTP), "byte {at} is {value}");
    }
    let mut answer = bytes(NTP_SERVED);
    answer[12..16].copy_from_slice(b"LOCL");
    assert!(!ntp_is_synchronised(&answer, ASKED_NTP));
    for length in 0..48 {
        assert!(!ntp_is_synchronised(&bytes(NTP_SERVED)[..length], ASKED_NTP), "{length} bytes");
    }
    for length in 0..56 {
        assert!(!chrony_is_synchronised(&bytes(CHRONY_SERVED)[..length], ASKED), "{length} bytes");
    }
}

/// Answers as a program did, to whoever asks now.
async fn program(recorded: &str, copy: fn(&[u8], &mut [u8])) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let mut answer = bytes(recorded);
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            copy(&question[..length], &mut answer);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

async fn chrony(recorded: &str) -> SocketAddr {
    program(recorded, |question, answer| {
        assert_eq!((question.len(), &question[..8]), (104, [6, 1, 0, 0, 0, 33, 0, 0].as_slice()));
        answer[16..20].copy_from_slice(&question[8..12]);
    })
    .await
}

async fn ntp(recorded: &str) -> SocketAddr {
    program(recorded, |question, answer| {
        assert_eq!((question.len(), question[0]), (48, 0x23));
        answer[24..32].copy_from_slice(&question[40..48]);
    })
    .await
}

/// A machine on which nothing keeps the clock.
async fn nothing() -> TimePrograms {
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    TimePrograms { timesyncd: "/nonexistent".into(), chrony: closed, ntp: closed, rtc: "/nonexistent".into() }
}

#[tokio::test]
async fn each_program_is_asked_in_its_own_way() {
    let none = nothing().await;
    assert!(!none.keep_the_clock().await);
    for (chrony_says, ntp_says, expected) in [
        (CHRONY_SERVED, NTP_ALONE, true),
        (CHRONY_ALONE, NTP_SERVED, true),
        (CHRONY_ALONE, NTP_ALONE, false),
        (CHRONY_LOCAL, NTP_LOCAL, false),
    ] {
        let programs =
            TimePrograms { chrony: chrony(chrony_says).await, ntp: ntp(ntp_says).await, ..none.clone() };
        assert_eq!(programs.keep_the_clock().await, expected, "{chrony_says} {ntp_says}");
    }
    let timesyncd = std::env::current_exe().unwrap();
    assert!(TimePrograms { timesyncd, ..none }.keep_the_clock().await);
}

#[tokio::test]
async fn a_program_that_does_not_answer_delays_nobody_for_long() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let programs = TimePrograms { chrony: address, ntp: address, ..nothing().await };
    let began = std::time::Instant::now();
    assert!(!programs.keep_the_clock().await);
    assert!(began.elapsed() < ANSWER_WITHIN * 4, "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_rule_decides_but_never_for_a_clock_before_this_software() {
    let none = nothing().await;
    let served = TimePrograms { ntp: ntp(NTP_SERVED).await, ..none.clone() };
    for (rule, programs, expected) in [
        (ClockRule::Ask, &none, false),
        (ClockRule::Ask, &served, true),
        (ClockRule::Trusted, &none, true),
        (ClockRule::Untrusted, &served, false),
    ] {
        assert_eq!(look(rule, programs, BUILD_S).await, expected, "{rule:?}");
        assert!(!look(rule, programs, BUILD_S - 1).await, "{rule:?} in the past");
    }
}

#[tokio::test]
async fn a_clock_that_becomes_right_is_noticed() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = socket.local_addr().unwrap();
    let programs = TimePrograms { ntp: at, ..nothing().await };
    tokio::spawn(async move {
        let mut question = [0; 512];
        for recorded in [NTP_ALONE, NTP_SERVED] {
            let (_, from) = socket.recv_from(&mut question).await.unwrap();
            let mut answer = bytes(recorded);
            answer[24..32].copy_from_slice(&question[40..48]);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    let (mut seen, task) = follow(ClockRule::Ask, programs).await;
    assert!(!*seen.borrow());
    let task = tokio::spawn(task);
    timeout(LOOK_SOON * 10, seen.wait_for(|seen| *seen)).await.expect("it is noticed").unwrap();
    // The task ends with the last who wants to know.
    drop(seen);
    timeout(LOOK_SOON, task).await.expect("it ends").unwrap();
}

#[test]
fn a_battery_clock_counts_when_the_kernel_went_by_it() {
    let folder = std::env::temp_dir().join(format!("hearth-rtc-{}", std::process::id()));
    let programs = TimePrograms { rtc: folder.clone(), ..TimePrograms::default() };
    assert!(!programs.began_by_battery(), "there is none");
    let clock = |name: &str, answer: &str| {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("hctosys"), answer).unwrap();
    };
    clock("rtc0", "0\n");
    assert!(!programs.began_by_battery());
    clock("rtc1", "1\n");
    assert_eq!(at_start(ClockRule::Ask, &programs, false), WallClock::Battery);
    assert_eq!(at_start(ClockRule::Untrusted, &programs, false), WallClock::Unknown);
    assert_eq!(at_start(ClockRule::Ask, &programs, true), WallClock::Right);
    let none = TimePrograms { rtc: folder.join("none"), ..TimePrograms::default() };
    assert_eq!(at_start(ClockRule::Ask, &none, false), WallClock::Unknown);
    std::fs::remove_dir_all(&folder).unwrap();
}
