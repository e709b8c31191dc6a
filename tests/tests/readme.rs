//! README.md word by word: its tour and its Python as a newcomer pastes them, on other ports and in another folder. And
//! docs/devices.md, as far as what it names can be counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    process::Stdio,
};

use hearth_tests::daemon::{self, Folder, PATIENCE, free_port};
use hearth_tests::fakes::weather::{Service, Weather};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

const README: &str = include_str!("../../README.md");
const DEVICES: &str = include_str!("../../docs/devices.md");
const WATCH: &str = include_str!("../watch.py");
const BULB: &str = "device/lifx-d073d5000001";
const LIFE: [&str; 4] = ["accepted", "sent", "acknowledged", "confirmed"];
/// Where the tour asks for the weather; the test names its own service behind it.
const LONGITUDE: &str = "longitude=10.75";
/// What the shell says when a line is done, before its exit code.
const DONE: &str = "@@done ";

/// The blocks of a language in the section of this title, in their order.
fn blocks(title: &str, language: &str) -> Vec<&'static str> {
    let section = README.split_once(&format!("\n## {title}\n")).unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    section.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The commands of a block. A here-document is part of the one that reads it.
fn commands(block: &str) -> Vec<String> {
    let (mut commands, mut within) = (Vec::<String>::new(), false);
    for line in block.lines() {
        match commands.last_mut().filter(|_| within) {
            Some(command) => write!(command, "\n{line}").unwrap(),
            None => commands.push(line.to_owned()),
        }
        within = if within { line != "END" } else { line.ends_with("<<'END'") };
    }
    commands
}

/// A shell into which a newcomer pastes. Its processes end with it.
struct Terminal {
    _shell: Child,
    group: Pid,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    said: String,
}

impl Terminal {
    fn open(home: &Path) -> Self {
        let mut command = std::process::Command::new("bash");
        daemon::clean(&mut command);
        // Nothing that a test sends may leave the machine.
        command.env("HEARTH_DISCOVERY_MDNS", "false").env("HOME", home);
        for variable in ["BASH_ENV", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            command.env_remove(variable);
        }
        let mut command = Command::from(command);
        // Everything that a terminal would show, in its order.
        command.args(["-c", "exec bash 2>&1"]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut shell = command.spawn().unwrap();
        Self {
            group: Pid::from_raw(shell.id().unwrap().cast_signed()).unwrap(),
            stdin: shell.stdin.take().unwrap(),
            lines: BufReader::new(shell.stdout.take().unwrap()).lines(),
            said: String::new(),
            _shell: shell,
        }
    }

    /// Pastes lines at once; a command that reads them from the terminal takes them from the shell.
    async fn paste(&mut self, lines: &[String]) {
        let mut text = String::new();
        lines.iter().for_each(|line| writeln!(text, "{line}\necho \"{DONE}$?\"").unwrap());
        self.stdin.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until a line is what is waited for; answers with what came before.
    async fn until(&mut self, what: &str, mut is_it: impl FnMut(&str) -> bool) -> String {
        let mut before = String::new();
        let reading = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                writeln!(self.said, "{line}").unwrap();
                if is_it(&line) {
                    return true;
                }
                writeln!(before, "{line}").unwrap();
            }
            false
        };
        let is_there = timeout(PATIENCE, reading).await == Ok(true);
        assert!(is_there, "waited for {what}; the terminal shows\n{}", self.said);
        before
    }

    /// What is shown until the line is done. It ends well.
    async fn done(&mut self, line: &str) -> String {
        let mut code = String::new();
        let shown = self.until(line, |shown| {
            code = shown.strip_prefix(DONE).unwrap_or_default().to_owned();
            !code.is_empty()
        });
        let shown = shown.await;
        assert_eq!(code, "0", "{line}\nended badly; the terminal shows\n{}", self.said);
        shown
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // All of it may have ended.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// The states that `hearth light` shows, each at the start of its line.
fn life(shown: &str) -> Vec<&str> {
    let first = shown.lines().filter_map(|line| line.split_whitespace().next());
    first.filter(|word| [&LIFE[..], &["timed_out", "superseded", "failed"]].concat().contains(word)).collect()
}

/// The states that `hearth watch` shows of the command that it showed first.
fn watched(shown: &str) -> Vec<&str> {
    let steps = shown.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&BULB)).then(|| (words[2], words[3]))
    });
    let steps: Vec<(&str, &str)> = steps.collect();
    steps.iter().filter(|(_, id)| *id == steps[0].1).map(|(state, _)| *state).collect()
}

/// The text with places of another in place of its own, in one pass: what comes in may look like what goes out.
fn replaced(mut text: &str, places: &[(String, String)]) -> String {
    let mut done = String::new();
    while let Some(next) = text.chars().next() {
        if let Some((from, to)) = places.iter().find(|(from, _)| text.starts_with(from)) {
            done.push_str(to);
            text = &text[from.len()..];
        } else {
            done.push(next);
            text = &text[next.len_utf8()..];
        }
    }
    done
}

/// A folder with a home in it, and what stands there in the place of what README says: programs, folders, ports.
fn elsewhere(ports: &[&str]) -> (Folder, Vec<(String, String)>) {
    let folder = Folder::new().unwrap();
    std::fs::create_dir(folder.join("home")).unwrap();
    let program = daemon::program().unwrap();
    let mut places = vec![
        ("$PWD/target/release".to_owned(), program.parent().unwrap().to_string_lossy().into_owned()),
        ("/tmp/".to_owned(), folder.join("").to_string_lossy().into_owned()),
    ];
    places.extend(ports.iter().map(|port| ((*port).to_owned(), free_port().unwrap().to_string())));
    (folder, places)
}

#[tokio::test]
async fn the_tour_does_what_it_says_and_so_does_its_python() {
    let (folder, mut places) = elsewhere(&["7901", "7902", "56701", "18830"]);
    let weather = Weather::start(Service::OpenMeteo).await.unwrap();
    places.push((LONGITUDE.to_owned(), format!("{LONGITUDE} url={}", weather.url())));
    let [tour, client] = &blocks("A tour", "sh")[..] else { panic!("the tour has two blocks for the shell") };
    for (place, _) in &places {
        assert!(tour.contains(place), "the tour has no {place} any more, which this test replaces");
    }
    let (tour, client) = (commands(&replaced(tour, &places)), commands(&replaced(client, &places)));

    let mut terminal = Terminal::open(&folder.join("home"));
    terminal.paste(&tour).await;
    let mut shown = Vec::new();
    for line in &tour {
        shown.push((line.as_str(), terminal.done(line).await));
    }
    let of = |part: &str| {
        let found: Vec<&str> =
            shown.iter().filter(|(line, _)| line.contains(part)).map(|(_, shown)| shown.as_str()).collect();
        assert_eq!(found.len(), 1, "one line of the tour has {part}");
        found[0].to_owned()
    };
    assert!(of("/b get note/shopping").contains("oat milk"), "{}", terminal.said);
    assert!(life(&of(" on --brightness 40 --color orange")).ends_with(&LIFE), "{}", terminal.said);
    // That the broker took it is no acknowledgement of the bulb.
    assert!(life(&of("light Hall on")).ends_with(&["confirmed"]), "{}", terminal.said);
    let announced = of("-t 'homeassistant/device/+/config'");
    let own = "homeassistant/device/hearth_lifx-d073d5000001/config";
    assert!(announced.lines().any(|line| line == own), "{}", terminal.said);
    let shown_weather = of("devices | grep °C");
    let row = shown_weather.lines().find(|line| line.starts_with("Weather ")).expect(&terminal.said);
    assert!(row.contains(" 13.4 °C") && row.contains(" online"), "{row}");
    assert!(of("scene save cosy").contains("device/lifx-d073d5000001: brightness 40"), "{}", terminal.said);
    let schedule = of("schedule set dusk");
    assert!(schedule.contains("does  scene cosy") && schedule.contains("30m before sunset"), "{schedule}");
    // What `watch` shows in the background may stand between the lines.
    let rehearsal = of("automation test doorbell");
    assert!(rehearsal.lines().any(|line| line == "it comes to its end"), "{rehearsal}");
    let run = of("automation show doorbell");
    let steps = ["\"color\":\"red\"", "\"Attic\"", "scene \"cosy\""].map(|step| {
        run.lines().position(|line| line.contains(step)).unwrap_or_else(|| panic!("no {step} in\n{run}"))
    });
    let has_failed = |line: &str| line.contains("  failed after ") && line.contains("no device `Attic`");
    assert!(steps.is_sorted() && run.lines().any(has_failed), "{run}");
    let status = of("/a status");
    for (name, state) in [("kitchen", "self"), ("cellar", "alive")] {
        let row = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{status}"));
        assert!(row.split_whitespace().any(|word| word == state), "{status}");
    }
    assert!(life(&of("kill -9 %2")).ends_with(&LIFE), "{}", terminal.said);
    assert_eq!(watched(&terminal.said), LIFE, "{}", terminal.said);

    // Its last line watches until it is stopped.
    let (last, before) = client.split_last().unwrap();
    terminal.paste(before).await;
    for line in before {
        terminal.done(line).await;
    }
    terminal.paste(std::slice::from_ref(last)).await;
    let (mut is_off, mut is_confirmed) = (false, false);
    let both = terminal.until("the bulb and its command, by Python", |line| {
        let Some((id, Ok(fields))) =
            line.split_once(' ').map(|(id, rest)| (id, serde_json::from_str::<Value>(rest)))
        else {
            return false;
        };
        is_off |= id == BULB && fields["reported"]["value"]["on"] == false;
        let states = fields["life"].as_array().into_iter().flatten().map(|step| step["state"].clone());
        is_confirmed |= id.starts_with("command/") && states.eq(LIFE.map(Value::from));
        is_off && is_confirmed
    });
    both.await;
}

/// What a browser needs beside where nobody has a desktop, and not to ask the network for anything of its own.
const BROWSER: &str = "chromium --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
                       --disable-component-update --disable-sync ";

#[tokio::test]
async fn the_front_door_goes_from_a_name_to_the_lock_and_from_the_code_to_a_token() {
    let (folder, mut places) = elsewhere(&["14000", "5002", "7903"]);
    places.push(("chromium ".to_owned(), BROWSER.to_owned()));
    let [block] = blocks("The front door", "sh")[..] else {
        panic!("the front door has one block for the shell")
    };
    for (place, _) in &places {
        assert!(block.contains(place), "the block has no {place} any more, which this test replaces");
    }
    let lines = commands(&replaced(block, &places));
    let mut terminal = Terminal::open(&folder.join("home"));
    terminal.paste(&lines).await;
    let mut shown = Vec::new();
    for line in &lines {
        shown.push((line.as_str(), terminal.done(line).await));
    }
    let of = |part: &str| {
        let (_, shown) = shown.iter().find(|(line, _)| line.contains(part)).unwrap();
        shown.as_str()
    };
    assert!(of("status |").contains("home.example.org: until "), "{}", terminal.said);
    // Without trust in the authority a browser shows a warning in the place of the page.
    assert!(of("--dump-dom").contains("{\"status\":\"ok\"}"), "{}", terminal.said);
    assert!(of("/api/v1/setup").contains("\"user\":\"ann\""), "{}", terminal.said);
    let seen: Value = serde_json::from_str(of("Authorization").trim()).unwrap();
    let ids: Vec<&Value> = seen["objects"].as_array().unwrap().iter().map(|object| &object["id"]).collect();
    assert_eq!(ids, ["note/shopping"], "the tablet sees its notes and nothing else");
    let trail = of("door audit");
    for done in ["POST /api/v1/setup ", "POST /api/v1/tokens ", "note/shopping", "user:ann "] {
        assert!(trail.contains(done), "{trail}");
    }
    let token = terminal.said.contains("hth_");
    assert!(!token, "a token is shown\n{}", terminal.said);
}

#[test]
fn the_python_that_is_shown_is_the_one_that_is_tested() {
    let [shown] = blocks("A tour", "python")[..] else { panic!("the tour has one block of Python") };
    let (usage, program) = WATCH.split_once("\"\"\"\n").unwrap();
    assert!(usage.starts_with("\"\"\"") && usage.lines().count() == 1, "{usage}");
    assert_eq!(shown, program);
}

/// The names of the settings of a schema, with those of the objects that lists of it hold.
fn settings(schema: &Value) -> Vec<&str> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties.flat_map(|(key, setting)| [vec![key.as_str()], settings(&setting["items"])].concat()).collect()
}

#[test]
fn every_adapter_stands_in_the_guide_with_all_its_settings_and_no_others() {
    let sections: BTreeMap<&str, &str> =
        DEVICES.split("\n### `").skip(1).filter_map(|section| section.split_once("`\n")).collect();
    let adapters: Vec<&str> =
        device_adapters::registry().iter().map(|adapter| adapter.descriptor.id).collect();
    assert_eq!(sections.keys().copied().collect::<Vec<_>>(), adapters);
    for adapter in device_adapters::registry() {
        let id = adapter.descriptor.id;
        let list =
            sections[id].split_once("\nSettings: ").unwrap_or_else(|| panic!("{id} lists no settings")).1;
        let list = list.split_once("Source:").unwrap_or_else(|| panic!("{id} names no source")).0;
        let told: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
        let schema = (adapter.descriptor.settings_schema)();
        assert_eq!(told, settings(&schema).into_iter().collect(), "the settings of {id}");
    }
}
