//! `bench-home`: what a node needs when it drives a home: its memory with fifty devices, five adapters and twenty automations, and what it
//! writes and computes while they measure.
//!
//! One real daemon on loopback, whose adapters speak to peers that run: ten bulbs of the LIFX emulator, ten WLED strips and
//! a Shelly (fakes of the public protocols), plugs and thermometers that are announced at a mosquitto and measure every ten
//! seconds, and a weather service. Each automation watches the power of a plug; when that is high it dims a bulb, waits, tells the others and
//! takes it back. Nothing is judged here.
//!
//! Build with `--release`, `hearth` too: `cargo build --release -p node -p hearth-tests --bins`.
#![allow(clippy::indexing_slicing, reason = "only JSON is indexed, which answers null for what is not there")]

use std::{
    fs,
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use hearth_tests::{
    daemon::{Daemon, Launch, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator},
    fakes::{
        mosquitto::{Client, Mosquitto},
        shelly::Shelly,
        weather::{Service, Weather},
        wled::Wled,
    },
};
use serde_json::{Value, json};
use tokio::time::interval;

const USAGE: &str = "\
Usage: bench-home [--devices N] [--automations N] [--seconds N] [--hearth FILE] [--json]
  --devices N      devices in all, at least 25 (50)
  --automations N  automations, at most 128 (20)
  --seconds N      how long the home is watched once all is there (180)
  --hearth FILE    the node (the one that is built beside this program)
  --json           print one JSON document
";
/// How long all devices may take to be there.
const ARRIVE: Duration = Duration::from_secs(120);
/// How often each announced device measures.
const MEASURES: Duration = Duration::from_secs(10);
const BULBS: usize = 10;
const STRIPS: u8 = 10;
/// A Shelly with a switch, a light, a strip of colours, a button and a contact.
const SHELLY_PARTS: usize = 5;

struct Options {
    devices: usize,
    automations: usize,
    seconds: u64,
    hearth: Option<String>,
    json: bool,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = options(&arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(bench(&options))
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options { devices: 50, automations: 20, seconds: 180, hearth: None, json: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value\n{USAGE}"));
        match argument.as_str() {
            "--devices" => options.devices = value()?.parse::<usize>()?.max(25),
            "--automations" => options.automations = value()?.parse::<usize>()?.min(128),
            "--seconds" => options.seconds = value()?.parse::<u64>()?.max(1),
            "--hearth" => options.hearth = Some(value()?.clone()),
            "--json" => options.json = true,
            other => bail!("unknown argument {other}\n{USAGE}"),
        }
    }
    Ok(options)
}

/// What the kernel counts of a process.
#[derive(Clone, Copy)]
struct Spent {
    cpu_ms: u64,
    written: u64,
}

async fn bench(options: &Options) -> Result<()> {
    let bulbs = Emulator::start(&[COLOR_BULB; BULBS]).await?;
    let mut strips = Vec::new();
    for number in 0..STRIPS {
        let strip = Wled::start(1, 1).await?;
        strip.set_info("mac", json!(format!("aabbccddee{number:02x}")));
        strips.push(strip);
    }
    let shelly = Shelly::start(None).await?;
    let weather = Weather::start(Service::OpenMeteo).await?;
    let broker = Mosquitto::start().await?;
    let client = broker.client().await?;
    let addresses: Vec<String> = strips.iter().map(|strip| strip.web.address().to_string()).collect();
    let config = format!(
        "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\n\
         [adapters.wled]\naddresses = {}\n\
         [adapters.shelly]\naddresses = [\"{}\"]\n\
         [adapters.mqtt]\nbroker = \"{}\"\n\
         [adapters.open_meteo]\nlatitude = 59.91\nlongitude = 10.75\nurl = \"{}\"\n",
        bulbs.address(),
        serde_json::to_string(&addresses)?,
        shelly.web.address(),
        broker.address(),
        weather.url(),
    );
    let launch = match &options.hearth {
        Some(program) => Launch::new().program(&[program]),
        None => Launch::new(),
    };
    let alone = Plan::new("alone").launch(launch.clone()).start().await?;
    let empty_kib = alone.rss_kib()?;
    drop(alone);
    let node = Plan::new("home").launch(launch).config(config).start().await?;
    let known = arrived(&node, 1 + BULBS + usize::from(STRIPS) + SHELLY_PARTS).await?;
    let announced = options.devices.saturating_sub(known);
    for number in 0..announced {
        announce(&client, number).await?;
    }
    let devices = arrived(&node, known + announced).await?;
    let lamps = lifx_bulbs(&node).await?;
    for number in 0..options.automations {
        let bulb = lamps.get(number % lamps.len().max(1)).context("there is no bulb")?;
        automate(&node, number, &format!("Plug {}", number % announced.max(1)), bulb).await?;
    }
    let (before, began) = (spent(&node)?, Instant::now());
    let mut pace = interval(MEASURES);
    let mut round = 0;
    while began.elapsed() < Duration::from_secs(options.seconds) {
        pace.tick().await;
        round += 1;
        for number in 0..announced {
            measure(&client, number, round).await?;
        }
    }
    let (after, took) = (spent(&node)?, began.elapsed());
    let seconds = took.as_secs_f64();
    let document = json!({
        "devices": devices, "adapters": running(&node).await?, "automations": options.automations,
        "runs": runs(&node).await?, "empty_kib": empty_kib, "rss_kib": node.rss_kib()?,
        "peak_rss_kib": node.peak_rss_kib()?, "seconds": took.as_secs(),
        "cpu_percent": f64::from(u32::try_from(after.cpu_ms - before.cpu_ms)?) / 10.0 / seconds,
        "written_bytes": after.written - before.written,
    });
    tell(options, &document)
}

fn tell(options: &Options, document: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if options.json {
        return Ok(writeln!(out, "{document}")?);
    }
    let mib = |name: &str| document[name].as_f64().unwrap_or_default() / 1_024.0;
    writeln!(out, "devices                 {}", document["devices"])?;
    writeln!(out, "adapters that run       {}", document["adapters"])?;
    writeln!(out, "automations             {}, with {} runs", document["automations"], document["runs"])?;
    writeln!(out, "resident, alone         {:.1} MiB", mib("empty_kib"))?;
    writeln!(out, "resident, with them     {:.1} MiB (at most {:.1})", mib("rss_kib"), mib("peak_rss_kib"))?;
    writeln!(
        out,
        "processor               {:.2} % of one core",
        document["cpu_percent"].as_f64().unwrap_or_default()
    )?;
    Ok(writeln!(out, "written in {} s        {} bytes", document["seconds"], document["written_bytes"])?)
}

/// Waits until so many devices are online; answers with how many there are.
async fn arrived(node: &Daemon, at_least: usize) -> Result<usize> {
    let mut online = 0;
    wait_until(&format!("{at_least} devices online"), ARRIVE, async || {
        let devices = node.json(&["devices"]).await?;
        let is_online = |device: &&Value| device["fields"]["availability"]["state"] == "online";
        online = devices["devices"].as_array().into_iter().flatten().filter(is_online).count();
        Ok(online >= at_least)
    })
    .await?;
    Ok(online)
}

/// A plug with a sensor of power and one of temperature, announced as Home Assistant's discovery wants it.
async fn announce(client: &Client, number: usize) -> Result<()> {
    let device = json!({ "identifiers": [format!("bench-{number}")], "name": format!("Plug {number}") });
    let part = |kind: &str| json!({ "unique_id": format!("bench-{number}-{kind}"), "device": device, "state_topic": format!("bench/{number}") });
    let mut plug = part("plug");
    plug["name"] = Value::Null;
    plug["command_topic"] = json!(format!("bench/{number}/set"));
    plug["value_template"] = json!("{{ value_json.state }}");
    client
        .publish(&format!("homeassistant/switch/bench{number}/plug/config"), plug.to_string(), true)
        .await?;
    for (kind, class, unit) in [("power", "power", "W"), ("warmth", "temperature", "°C")] {
        let mut sensor = part(kind);
        sensor["device_class"] = json!(class);
        sensor["unit_of_measurement"] = json!(unit);
        sensor["value_template"] = json!(format!("{{{{ value_json.{kind} }}}}"));
        client
            .publish(&format!("homeassistant/sensor/bench{number}/{kind}/config"), sensor.to_string(), true)
            .await?;
    }
    measure(client, number, 0).await
}

async fn measure(client: &Client, number: usize, round: u32) -> Result<()> {
    let power = (round * 7 + u32::try_from(number)?) % 100;
    let warmth = 20.0 + f64::from((round + u32::try_from(number)?) % 50) / 10.0;
    let state = json!({ "state": "ON", "power": power, "warmth": warmth });
    client.publish(&format!("bench/{number}"), state.to_string(), true).await
}

async fn lifx_bulbs(node: &Daemon) -> Result<Vec<String>> {
    let answer = node.json(&["devices"]).await?;
    let ids = answer["devices"].as_array().into_iter().flatten().filter_map(|device| device["id"].as_str());
    Ok(ids.filter(|id| id.starts_with("device/lifx-")).map(str::to_owned).collect())
}

/// One that begins whenever the plug comes to draw much, about once in two minutes.
async fn automate(node: &Daemon, number: usize, plug: &str, bulb: &str) -> Result<()> {
    let dim = |brightness: u32| json!({ "device": bulb, "change": { "brightness": brightness } });
    let mut first = dim(20);
    first["undo"] = json!([dim(80)]);
    let program = json!({
        "triggers": [{ "number": plug, "of": "power", "above": 90 }, { "event": format!("bench.{number}") }],
        "conditions": [{ "expression": format!("device('{plug}').warmth > 10") }, { "state": bulb, "of": "availability", "is": "online" }],
        "actions": [first, { "delay": "5s" }, { "event": "bench.high", "data": { "plug": number } }, dim(80)],
        "mode": "restart",
    });
    let path = format!("/api/v1/automations/bench-{number}");
    let view = node.client().send("PUT", &path, Some(&program)).await?.success()?;
    if view["state"] != "waiting" {
        bail!("the automation is not taken: {view}");
    }
    Ok(())
}

/// How many runs there are to be seen that came to their end.
async fn runs(node: &Daemon) -> Result<usize> {
    let answer = node.client().get("/api/v1/automations").await?.success()?;
    let automations = answer["automations"].as_array().into_iter().flatten();
    let runs = automations.filter_map(|automation| automation["runs"].as_array()).flatten();
    Ok(runs.filter(|run| run["state"] == "done").count())
}

async fn running(node: &Daemon) -> Result<usize> {
    let answer = node.json(&["adapter", "list"]).await?;
    let busy = ["lifx", "wled", "shelly", "mqtt", "open_meteo"];
    let adapters = answer["adapters"].as_array().into_iter().flatten();
    let runs = |adapter: &&Value| {
        busy.iter().any(|id| adapter["id"] == *id) && adapter["on"][0]["state"] == "running"
    };
    Ok(adapters.filter(runs).count())
}

fn spent(node: &Daemon) -> Result<Spent> {
    let pid = node.pid().context("it does not run")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |place: usize| fields.split_whitespace().nth(place).and_then(|text| text.parse::<u64>().ok());
    // utime and stime (proc(5), fields 14 and 15), in hundredths of a second.
    let cpu_ms = (ticks(11).context("no utime")? + ticks(12).context("no stime")?) * 10;
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
    Ok(Spent { cpu_ms, written: written.context("no write_bytes")? })
}
