#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod killed;

use std::sync::Mutex;

use mesh_proto::ShortId;

use super::*;
use crate::api::fake::{FakeLoop, NODE, TestFolder};
use crate::config::{Challenge, DnsConfig, DnsProviderConfig};
use crate::tls::acme::fake::{Ca, Fault, Hosts, Shelf};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
const CA: &str = "ca.test";

type Served = Arc<Mutex<Vec<(Arc<CertifiedKey>, Vec<Domain>)>>>;

/// A node with its folder, its authority, and what it published and served.
struct Node {
    folder: TestFolder,
    hosts: Hosts,
    shelf: Shelf,
    served: Served,
    config: TlsConfig,
    records: Records,
    report: watch::Receiver<Report>,
}

fn config(names: &[&str]) -> TlsConfig {
    TlsConfig {
        domains: names.iter().map(|name| name.parse().unwrap()).collect(),
        directory: Directory::Other(format!("https://{CA}/dir")),
        ..TlsConfig::default()
    }
}

impl Node {
    fn new(names: &[&str]) -> Self {
        let shelf = Shelf::default();
        Self {
            folder: TestFolder::new(),
            hosts: Hosts::new(&shelf, &[CA]),
            shelf,
            served: Served::default(),
            config: config(names),
            records: Records::alone(ShortId(7)),
            report: watch::channel(Report::default()).1,
        }
    }

    /// Whether there is room for more than one proof at a time.
    fn hold(&mut self, many: bool) {
        self.shelf.holds_many = many;
    }

    fn ca(&self) -> Arc<Ca> {
        self.hosts.ca(CA)
    }

    /// Starts the owner, as a daemon does.
    async fn open(&mut self) -> Engine<Shelf> {
        let (told, report) = watch::channel(Report::default());
        self.report = report;
        let served = self.served.clone();
        let parts = EngineParts {
            config: self.config.clone(),
            folder: self.folder.path().join("acme"),
            transport: Arc::new(self.hosts.clone()),
            solver: self.shelf.clone(),
            records: self.records.clone(),
            serve: Box::new(move |key, names| served.lock().unwrap().push((key, names))),
            report: told,
        };
        Engine::open(parts).await
    }

    fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    fn served(&self) -> usize {
        self.served.lock().unwrap().len()
    }
}

fn at(unix: u64) -> WallClock {
    WallClock { unix, trusted: true }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_ordered_served_and_renewed_as_its_authority_suggests() {
    let mut node = Node::new(&["a.example.org", "b.example.org"]);
    let ca = node.ca();
    ca.set(|state| state.window = Some((NOW + 50 * DAY, NOW + 52 * DAY)));
    let mut engine = node.open().await;
    let look = engine.look(at(NOW)).await;
    assert_eq!(look.did, Did::Renewed, "{:?}", node.report());
    assert_eq!(node.served.lock().unwrap()[0].1, node.config.domains);
    assert!(node.shelf.is_empty(), "every proof is taken away again");
    let report = node.report();
    let renewal = report.renewal.unwrap();
    assert_eq!(renewal.why, SUGGESTED_FOR_TESTS);
    assert!((NOW + 50 * DAY..=NOW + 52 * DAY).contains(&renewal.at));
    assert_eq!((report.until, report.error), (Some(NOW + 90 * DAY), None));
    // Nothing happens before, whatever restarts in between: the moment is kept.
    let mut engine = node.open().await;
    assert_eq!(node.served(), 2, "served from the disk, without the authority");
    let look = engine.look(at(NOW + DAY)).await;
    assert_eq!((look.did, node.report().renewal.unwrap().at), (Did::Nothing, renewal.at));
    assert!(look.next <= NOW + 2 * DAY, "the authority is asked again");
    let look = engine.look(at(renewal.at)).await;
    assert_eq!(look.did, Did::Renewed);
    let replaced = ca.get(|state| state.replaced.clone());
    assert!(
        replaced[0].is_none() && replaced[1].as_ref().is_some_and(|name| name.contains('.')),
        "{replaced:?}"
    );
    assert_eq!(ca.get(|state| state.accounts.len()), 1);
}

/// As the report says it.
const SUGGESTED_FOR_TESTS: &str = crate::tls::acme::report::SUGGESTED;

#[tokio::test(start_paused = true)]
async fn without_suggestions_two_thirds_of_the_life_count() {
    let mut node = Node::new(&["a.example.org"]);
    let mut engine = node.open().await;
    engine.look(at(NOW)).await;
    let renewal = node.report().renewal.unwrap();
    // It begins an hour before it is made.
    let life = 90 * DAY + 3_600;
    assert!((life * 2 / 3..=life * 17 / 24 + 1).contains(&(renewal.at - (NOW - 3_600))), "{renewal:?}");
    assert_eq!(engine.look(at(renewal.at - 1)).await.did, Did::Nothing);
    assert_eq!(engine.look(at(renewal.at)).await.did, Did::Renewed);
    assert_eq!(node.ca().get(|state| state.replaced.clone()), [None, None]);
}

#[tokio::test(start_paused = true)]
async fn proofs_stand_side_by_side_before_the_authority_looks_at_the_first_if_there_is_room() {
    for (holds_many, stood) in [(true, [3, 3, 3]), (false, [1, 1, 1])] {
        let mut node = Node::new(&["a.example.org", "b.example.org", "c.example.org"]);
        node.hold(holds_many);
        let mut engine = node.open().await;
        assert_eq!(engine.look(at(NOW)).await.did, Did::Renewed, "{:?}", node.report());
        assert_eq!(node.ca().get(|state| state.stood.clone()), stood);
        assert!(node.shelf.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_validation_is_shown_in_the_authoritys_words_and_tried_again_later() {
    let mut node = Node::new(&["a.example.org"]);
    let ca = node.ca();
    ca.set(|state| state.fault = Some(Fault::Validation));
    let mut engine = node.open().await;
    let mut now = NOW;
    for attempt in 1..=6 {
        let look = engine.look(at(now)).await;
        assert_eq!(look.did, Did::Failed);
        assert_eq!(ca.get(|state| state.failed), attempt);
        assert!(look.next > now && look.next <= now + DAY + DAY / 4);
        assert_eq!(engine.look(at(look.next - 1)).await.did, Did::Nothing, "not before");
        now = look.next;
    }
    let report = node.report();
    let words = report.error.unwrap().words;
    assert!(
        words.contains("a.example.org") && words.contains("urn:ietf:params:acme:error:unauthorized"),
        "{words}"
    );
    assert!(words.contains("(hidden)") && !words.contains(&"T".repeat(43)), "{words}");
    assert!(node.shelf.is_empty());
    assert_eq!((report.attempts, report.failures), (6, 6));
    ca.set(|state| state.fault = None);
    let mut engine = node.open().await;
    assert_eq!(engine.look(at(now - 1)).await.did, Did::Nothing, "a restart is no reason to try");
    assert_eq!(engine.look(at(now)).await.did, Did::Renewed);
    assert_eq!(node.report().error, None);
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_production_proves_itself_at_staging_before_it_counts_again() {
    let mut node = Node::new(&["a.example.org"]);
    node.config.directory = Directory::LetsEncrypt;
    let host = |directory: Directory| directory.url().split('/').nth(2).unwrap().to_owned();
    let (real, trial) = (host(Directory::LetsEncrypt), host(Directory::Staging));
    node.hosts = Hosts::new(&node.shelf, &[&real, &trial]);
    let (production, staging) = (node.hosts.ca(&real), node.hosts.ca(&trial));
    for ca in [&production, &staging] {
        ca.set(|state| state.fault = Some(Fault::Validation));
    }
    let mut engine = node.open().await;
    let mut now = NOW;
    for _ in 0..4 {
        now = engine.look(at(now)).await.next;
    }
    let failed = |ca: &Arc<Ca>| ca.get(|state| state.failed);
    assert_eq!((failed(&production), failed(&staging)), (1, 3));
    staging.set(|state| state.fault = None);
    // The owner is put together anew: what it knew is on the disk.
    let mut engine = node.open().await;
    let look = engine.look(at(now)).await;
    assert_eq!((look.did, node.served()), (Did::Passed, 0), "a try is served to nobody");
    let look = engine.look(at(look.next)).await;
    assert_eq!((look.did, failed(&production)), (Did::Failed, 2), "and then it counts");
    assert!(look.next >= now + 6 * 3_600, "the pauses stay as long as they have become");
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_says_when_to_come_back_is_left_alone_until_then() {
    let mut node = Node::new(&["a.example.org"]);
    node.ca().set(|state| state.fault = Some(Fault::Limited(50_000)));
    let mut engine = node.open().await;
    let look = engine.look(at(NOW)).await;
    assert_eq!(look, Look { did: Did::Failed, next: NOW + 50_000 });
    assert!(node.report().error.unwrap().words.contains("rateLimited"));
    node.ca().set(|state| state.fault = Some(Fault::Down));
    let look = engine.look(at(look.next)).await;
    assert_eq!(look.did, Did::Failed);
    assert!(look.next <= NOW + 50_000 + 75, "that costs the authority nothing");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_not_right_orders_nothing() {
    let mut node = Node::new(&["a.example.org"]);
    let mut engine = node.open().await;
    let look = engine.look(WallClock { unix: NOW, trusted: false }).await;
    assert_eq!((look.did, node.ca().get(|state| state.requests)), (Did::Nothing, 0));
    assert!(node.report().doing.contains("clock"), "{:?}", node.report());
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_no_replacement_for_the_authority_is_made_without() {
    for fault in [Fault::Replaced, Fault::Lost] {
        let mut node = Node::new(&["a.example.org"]);
        let ca = node.ca();
        ca.set(|state| state.window = Some((NOW + 5 * DAY, NOW + 6 * DAY)));
        let mut engine = node.open().await;
        engine.look(at(NOW)).await;
        ca.set(|state| state.fault = Some(fault));
        assert_eq!(engine.look(at(NOW + 7 * DAY)).await.did, Did::Renewed, "{fault:?}: {:?}", node.report());
        assert_eq!(ca.get(|state| state.replaced.len()), 2, "the refused one was none");
    }
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_always_wants_renewal_at_once_gets_few_orders() {
    let mut node = Node::new(&["a.example.org"]);
    let ca = node.ca();
    ca.set(|state| state.window = Some((NOW - 2 * DAY, NOW - DAY)));
    let (mut now, mut orders) = (NOW, 0);
    while now < NOW + 3 * DAY {
        // Nor by one restart after the other, with the file of when to renew lost.
        let mut engine = node.open().await;
        let look = engine.look(at(now)).await;
        orders += usize::from(look.did == Did::Renewed);
        let _none = std::fs::remove_file(node.folder.path().join("acme/renewal"));
        assert!(look.next > now);
        now += 1_800;
    }
    assert_eq!((orders, ca.get(|state| state.orders.len())), (1, 1));
    let mut engine = node.open().await;
    assert_eq!(engine.look(at(NOW + 4 * DAY)).await.did, Did::Renewed, "then it is");
    // The fake's certificate begins when the first one did: only that it was just made keeps it.
    let look = engine.look(at(NOW + 4 * DAY + 10)).await;
    assert_eq!((look.did, look.next), (Did::Nothing, NOW + 4 * DAY + 3_600));
}

#[tokio::test(start_paused = true)]
async fn without_leave_to_replace_the_limits_count_and_are_waited_for() {
    let mut node = Node::new(&["a.example.org"]);
    let ca = node.ca();
    ca.set(|state| state.window = Some((NOW + 5 * DAY, NOW + 6 * DAY)));
    let mut engine = node.open().await;
    engine.look(at(NOW)).await;
    let (now, set) = (NOW + 7 * DAY, engine.set());
    (0..5).for_each(|turn| engine.tries.counted.issue(now - turn, &set));
    ca.set(|state| state.fault = Some(Fault::Replaced));
    let look = engine.look(at(now)).await;
    assert_eq!(look, Look { did: Did::Failed, next: now - 4 + 7 * DAY });
    let words = node.report().error.unwrap().words;
    assert!(words.contains("5 certificates for the same names"), "{words}");
    assert_eq!(ca.get(|state| state.orders.len()), 1, "none is spent");
    assert_eq!(engine.look(at(look.next)).await.did, Did::Renewed);
}

#[tokio::test(start_paused = true)]
async fn what_a_clock_that_was_ahead_has_written_delays_nothing_for_years() {
    let mut node = Node::new(&["a.example.org"]);
    let mut engine = node.open().await;
    engine.tries.not_before = NOW + 9_999 * DAY;
    engine.tries.counted.fail(NOW + 9_999 * DAY);
    let look = engine.look(at(NOW)).await;
    assert_eq!(look, Look { did: Did::Nothing, next: NOW + 8 * DAY });
    let mut engine = node.open().await;
    assert_eq!(engine.tries.counted.failed, [NOW], "it is written as mended");
    assert_eq!(engine.look(at(look.next)).await.did, Did::Renewed);
    engine.plan.as_mut().unwrap().look = NOW + 9_999 * DAY;
    assert_eq!(engine.look(at(look.next)).await.next, look.next + DAY, "it is asked again");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_does_not_pass_its_check_takes_nobodys_place() {
    let mut node = Node::new(&["a.example.org"]);
    let ca = node.ca();
    let mut engine = node.open().await;
    engine.look(at(NOW)).await;
    let due = node.report().renewal.unwrap().at;
    for fault in [Fault::OtherKey, Fault::OtherName, Fault::Expired] {
        ca.set(|state| state.fault = Some(fault));
        let mut engine = node.open().await;
        engine.tries.not_before = 0;
        engine.tries.counted = Counted::default();
        let served = node.served();
        assert_eq!(engine.look(at(due)).await.did, Did::Failed, "{fault:?}");
        assert_eq!(node.served(), served, "{fault:?}");
        assert_eq!(node.report().until, Some(NOW + 90 * DAY), "the old one is served");
        assert!(node.report().error.unwrap().words.contains("not served"));
    }
}

#[tokio::test(start_paused = true)]
async fn one_node_of_the_household_orders_at_a_time_and_they_count_together() {
    let fake = FakeLoop::start();
    let (me, another) = (ShortId(7), NODE.get(..16).unwrap());
    let mut node = Node::new(&["a.example.org"]);
    node.records = Records::new(fake.service(), me).unwrap();
    let turn = |orders: bool, until: u64| {
        let until = Value::Int(i64::try_from(until).unwrap());
        Value::Map([("orders".into(), Value::Bool(orders)), ("until".into(), until)].into())
    };
    fake.put(&format!("certificate/{another}"), "turn", turn(true, NOW + 100)).await;
    fake.called(me);
    let mut engine = node.open().await;
    let look = engine.look(at(NOW)).await;
    assert_eq!(look, Look { did: Did::Nothing, next: NOW + WAIT_S });
    assert!(node.report().doing.contains("turn"), "{:?}", node.report());
    let mut counted = Counted::default();
    (0..5).for_each(|at| counted.issue(NOW - at, &engine.set()));
    let issued = counted.issued.iter().map(|issued| {
        let at = Value::Int(i64::try_from(issued.at).unwrap());
        Value::Map([("at".into(), at), ("set".into(), Value::from(issued.set.as_str()))].into())
    });
    fake.called(another.parse().unwrap());
    fake.put(&format!("certificate/{another}"), "issued", Value::List(issued.collect())).await;
    fake.called(me);
    let look = engine.look(at(NOW + 101)).await;
    assert_eq!(look, Look { did: Did::Nothing, next: NOW - 4 + 7 * DAY });
    assert!(node.report().doing.contains("5 certificates for the same names"), "{:?}", node.report());
    assert_eq!(node.ca().get(|state| state.requests), 0);
    assert_eq!(
        engine.look(at(look.next)).await.did,
        Did::Renewed,
        "its turn is over in time, and it is granted again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_tell_the_others_orders_nothing() {
    let fake = FakeLoop::start();
    let mut node = Node::new(&["a.example.org"]);
    node.records = Records::new(fake.service(), ShortId(7)).unwrap();
    drop(fake);
    let mut engine = node.open().await;
    let look = engine.look(at(NOW)).await;
    assert_eq!((look, engine.told.is_none()), (Look { did: Did::Nothing, next: NOW + WAIT_S }, true));
    assert!(node.report().doing.contains("cannot be told"), "{:?}", node.report());
    assert_eq!(node.ca().get(|state| state.requests), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_had_is_served_although_the_rest_of_the_folder_cannot_be_read() {
    for file in ["pace", "renewal"] {
        let mut node = Node::new(&["a.example.org"]);
        let mut engine = node.open().await;
        engine.look(at(NOW)).await;
        let path = node.folder.path().join("acme").join(file);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let mut engine = node.open().await;
        assert_eq!(node.served(), 2, "{file}");
        let look = engine.look(at(NOW + 1)).await;
        assert_eq!(look, Look { did: Did::Nothing, next: NOW + 1 + DISK_S }, "{file}");
        assert!(node.report().error.unwrap().words.contains(file), "it is shown");
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(engine.look(at(look.next)).await.did, Did::Nothing, "{file}: and then all is well");
        assert_eq!((node.report().error, node.served()), (None, 2), "{file}");
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_private_and_nothing_that_is_shown_or_told_holds_a_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let fake = FakeLoop::start();
    let mut node = Node::new(&["a.example.org"]);
    let me: ShortId = NODE.get(..16).unwrap().parse().unwrap();
    node.records = Records::new(fake.service(), me).unwrap();
    let mut engine = node.open().await;
    engine.look(at(NOW)).await;
    let folder = node.folder.path().join("acme");
    for entry in std::fs::read_dir(&folder).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    let saved = engine.files.certificate().await.unwrap().unwrap();
    let key = data_encoding::BASE64URL_NOPAD.encode(&saved.key.0);
    let object = fake.service().list("certificate/", None, 9, true).await.unwrap();
    let told = format!("{object:?} {:?} {:?} {saved:?}", node.report(), engine.told);
    assert!(!told.contains(&key) && told.contains("a.example.org") && told.contains("standing"), "{told}");
    let account = engine.files.account(node.config.directory.url()).await.unwrap().unwrap();
    assert!(account.id.is_some() && account.key != saved.key, "two keys");
    std::fs::write(folder.join("certificate"), b"damaged").unwrap();
    let mut engine = node.open().await;
    assert_eq!(engine.look(at(NOW + 1)).await.did, Did::Renewed, "what is damaged is made anew");
}

#[tokio::test(start_paused = true)]
async fn other_settings_end_a_pause_once_but_never_beyond_what_is_granted() {
    let mut node = Node::new(&["a.example.org"]);
    let ca = node.ca();
    ca.set(|state| state.fault = Some(Fault::Validation));
    assert_eq!(node.open().await.look(at(NOW)).await.did, Did::Failed);
    for failed in 2..=4 {
        let mut engine = node.open().await;
        assert_eq!(engine.look(at(NOW + failed)).await.did, Did::Nothing, "a restart alone is no reason");
        node.config.contact = Some(format!("{failed}@example.org"));
        let mut engine = node.open().await;
        let look = engine.look(at(NOW + failed)).await;
        assert_eq!((look.did, ca.get(|state| state.failed)), (Did::Failed, usize::try_from(failed).unwrap()));
        assert_eq!(engine.look(at(NOW + failed + 1)).await.did, Did::Nothing, "once");
    }
    node.config.contact = None;
    let look = node.open().await.look(at(NOW + 5)).await;
    assert_eq!(look, Look { did: Did::Nothing, next: NOW + 3_600 });
    assert!(node.report().doing.contains("4 failed validations in an hour"), "{:?}", node.report());
    assert_eq!(ca.get(|state| state.failed), 4);
    // Nor does it when the authority has said when to come back.
    ca.set(|state| state.fault = Some(Fault::Limited(50_000)));
    assert_eq!(node.open().await.look(at(look.next)).await.did, Did::Failed);
    node.config.contact = Some("5@example.org".into());
    let again = node.open().await.look(at(look.next + 1)).await;
    assert_eq!(again, Look { did: Did::Nothing, next: look.next + 50_000 });
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_missing_and_is_there_now_is_tried_at_once() {
    let mut node = Node::new(&["a.example.org"]);
    let token_file = node.folder.path().join("duckdns.token");
    let provider = DnsProviderConfig::DuckDns { token_file: token_file.clone() };
    let dns = DnsConfig { provider, propagation: Duration::from_secs(1), resolvers: Vec::new() };
    node.config = TlsConfig { challenge: Challenge::Dns, dns: Some(dns), ..node.config };
    let mut engine = node.open().await;
    // The authority offers HTTP-01 alone.
    assert_eq!(engine.look(at(NOW)).await.did, Did::Failed);
    assert_eq!(engine.look(at(NOW + 1)).await.did, Did::Nothing);
    std::fs::write(&token_file, "very-secret-token").unwrap();
    assert_eq!(engine.look(at(NOW + 2)).await.did, Did::Failed, "without a restart");
    assert_eq!(engine.look(at(NOW + 3)).await.did, Did::Nothing);
    let mut engine = node.open().await;
    assert_eq!(
        engine.look(at(NOW + 4)).await.did,
        Did::Nothing,
        "nor after one: it failed by the same means"
    );
    let kept = std::fs::read(node.folder.path().join("acme/pace")).unwrap();
    assert!(!String::from_utf8_lossy(&kept).contains("secret"), "{kept:?}");
}
