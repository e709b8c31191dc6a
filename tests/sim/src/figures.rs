//! How fast a household learns of deaths, departures and healed partitions, in simulated time, and
//! whether it ever takes the living for dead.

use mesh_proto::{FieldName, Key, ObjectId, Value, mesh::Op, planted::Plant};

use super::{
    Failure,
    members::Members,
    scenario, setup,
    trace::Trace,
    world::{Happening, World},
};

/// How finely the nodes are looked at, in milliseconds.
const STEP_MS: u64 = 10;
/// When a figure is given up.
const GIVE_UP_MS: u64 = 30_000;
const HOUR_MS: u64 = 3_600_000;

/// How much is simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) nodes: u64,
    pub(crate) trials: usize,
    pub(crate) objects: usize,
    pub(crate) node_hours: u64,
}

impl Size {
    /// What the test command runs.
    pub(crate) const QUICK: Self = Self { nodes: 32, trials: 100, objects: 10_000, node_hours: 24 };
    /// What the README's figures come from.
    pub(crate) const FULL: Self = Self { nodes: 32, trials: 200, objects: 10_000, node_hours: 720 };
}

/// A figure with its goal.
struct Figure {
    what: String,
    seen: u64,
    goal: u64,
    unit: &'static str,
}

type Figures = Result<Vec<Figure>, Failure>;
type Part = fn(Size) -> Figures;

/// What can be asked for by itself.
const PARTS: [(&str, Part); 4] =
    [("deaths", deaths), ("departures", departures), ("partition", partition), ("month", month)];

/// Prints all figures, or those of one part. Returns the exit code: 1 when one misses its goal.
///
/// # Errors
/// When there is no such part.
pub(crate) fn main(size: Size, only: Option<&str>) -> Result<u8, String> {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    if let Some(only) = only.filter(|only| PARTS.iter().all(|(part, _)| part != only)) {
        let parts = PARTS.map(|(part, _)| part).join(", ");
        return Err(format!("there are no figures of {only}; there are: {parts}"));
    }
    let (mut passed, mut failed) = (0, 0);
    for (_, figures) in PARTS.iter().filter(|(part, _)| wanted(part)) {
        match figures(size) {
            Ok(figures) => figures.iter().for_each(|figure| {
                let kept = figure.seen <= figure.goal;
                *(if kept { &mut passed } else { &mut failed }) += 1;
                println!(
                    "{:<78} {:>6} {}, goal {}{}",
                    figure.what,
                    figure.seen,
                    figure.unit,
                    figure.goal,
                    if kept { "" } else { "  MISSED" }
                );
            }),
            Err(failure) => {
                failed += 1;
                println!("{}: {} (at {} ms)", failure.oracle, failure.reason, failure.at);
            }
        }
    }
    println!("sim figures: {passed} passed, {failed} failed");
    println!("test result: {}. {passed} passed; {failed} failed", if failed == 0 { "ok" } else { "FAILED" });
    Ok(u8::from(failed > 0))
}

/// A household that has found itself.
fn household(size: Size, seed: u64) -> Result<World, Failure> {
    let mut world = World::new(seed, scenario::figures(size.nodes), Plant::default(), Trace::new(false));
    setup::found(&mut world, seed)?;
    world.run_until(10_000)?;
    until(&mut world, "the household finds itself", all_alive)?;
    Ok(world)
}

/// How long until something is so, in milliseconds.
fn until(world: &mut World, what: &'static str, is_so: impl Fn(&World) -> bool) -> Result<u64, Failure> {
    let from = world.now;
    while !is_so(world) {
        if world.now > from + GIVE_UP_MS {
            return Err(
                Failure::new("the figures", format!("not within {GIVE_UP_MS} ms: {what}")).at(world.now)
            );
        }
        world.events = 0;
        world.run_until(world.now + STEP_MS)?;
    }
    Ok(world.now - from)
}

fn all_alive(world: &World) -> bool {
    let running = world.nodes.iter().filter_map(|node| node.mesh.as_ref());
    running.into_iter().all(|mesh| mesh.alive().len() + 1 == world.nodes.len())
}

/// Whether nobody who runs takes this one for alive.
fn is_gone(world: &World, gone: usize) -> bool {
    let name = world.nodes[gone].short();
    let others = world.nodes.iter().filter(|node| node.index != gone).filter_map(|node| node.mesh.as_ref());
    others.into_iter().all(|mesh| mesh.alive().iter().all(|(node, _)| *node != name))
}

fn back(world: &mut World, node: usize) -> Result<(), Failure> {
    world.after(500, Happening::Do(scenario::Action::Start(node)));
    world.run_until(world.now + 2_000)?;
    until(world, "who was away is back", all_alive)?;
    let wait = world.rng.between((500, 3_000));
    world.run_until(world.now + wait)
}

/// By nearest rank.
fn percentile(times: &mut [u64], percent: usize) -> u64 {
    times.sort_unstable();
    times[(times.len() * percent).div_ceil(100).max(1) - 1]
}

fn deaths(size: Size) -> Figures {
    let mut world = household(size, 1)?;
    let mut times = Vec::new();
    for _ in 0..size.trials {
        let node = world.rng.index(world.nodes.len());
        world.crash_node(node)?;
        times.push(until(&mut world, "all know of the death", |world| is_gone(world, node))?);
        back(&mut world, node)?;
    }
    let what = |p| {
        format!("{} nodes, 5 % loss: the last of them knows of a death, p{p} of {}", size.nodes, size.trials)
    };
    let figure = |p, seen, goal| Figure { what: what(p), seen, goal, unit: "ms" };
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    Ok(vec![figure(50, p50, 2_000), figure(99, p99, 3_000)])
}

fn departures(size: Size) -> Figures {
    let mut world = household(size, 2)?;
    let mut times = Vec::new();
    let trials = size.trials / 4;
    for _ in 0..trials {
        let node = world.rng.index(world.nodes.len());
        world.leave(node)?;
        times.push(until(&mut world, "all know who left", |world| is_gone(world, node))?);
        back(&mut world, node)?;
    }
    let what = format!("{} nodes, 5 % loss: the last knows that one left, worst of {trials}", size.nodes);
    Ok(vec![Figure { what, seen: percentile(&mut times, 100), goal: 300, unit: "ms" }])
}

/// Writes objects on one node, as many in a request as it takes.
fn write(world: &mut World, node: usize, names: core::ops::Range<usize>) -> Result<(), Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::new("the figures", error.to_string());
    let mut ops = Vec::new();
    for name in names {
        let object = ObjectId::new(&format!("note/o{name}")).map_err(|error| wrong(&error))?;
        let field = FieldName::new("text").map_err(|error| wrong(&error))?;
        ops.push(Op::Set(Key { object, field }, Value::from(i64::try_from(name).unwrap_or(0))));
    }
    for part in ops.chunks(1_000) {
        world.write_ops(node, part.to_vec())?;
        world.events = 0;
        world.run_until(world.now + 500)?;
    }
    Ok(())
}

fn are_equal(world: &World) -> bool {
    let mut meshes = world.nodes.iter().filter_map(|node| node.mesh.as_ref());
    let Some(first) = meshes.next() else { return false };
    meshes.all(|mesh| {
        mesh.replica().tree().root() == first.replica().tree().root()
            && mesh.commits().durable() == first.commits().durable()
    })
}

fn partition(size: Size) -> Figures {
    let mut world = household(size, 3)?;
    let half = world.nodes.len() / 2;
    let pairs: Vec<(usize, usize)> =
        world.edges.iter().copied().filter(|(a, b)| (*a < half) != (*b < half)).collect();
    world.split(&pairs)?;
    let began = world.now;
    write(&mut world, 0, 0..size.objects / 2)?;
    write(&mut world, half, size.objects / 2..size.objects)?;
    while world.now < began + 60_000 {
        world.events = 0;
        world.run_until(world.now + 1_000)?;
    }
    let halves = |world: &World| {
        world.nodes.iter().filter_map(|n| n.mesh.as_ref()).all(|m| m.alive().len() < half.max(2))
    };
    if !halves(&world) || are_equal(&world) {
        return Err(Failure::new("the figures", "the partition was not noticed".into()));
    }
    let healed = world.now;
    world.heal()?;
    pairs.iter().for_each(|pair| world.connect(*pair));
    let alive = until(&mut world, "all see all", all_alive)?;
    until(&mut world, "all hold the same", are_equal)?;
    let what = |what| format!("{} nodes, 5 % loss: {what} after 60 s apart, from the links", size.nodes);
    let objects = format!("equal with {} divergent objects", size.objects);
    let equal = world.now - healed;
    Ok(vec![
        Figure { what: what("all see all alive"), seen: alive, goal: 2_000, unit: "ms" },
        Figure { what: what(&objects), seen: equal, goal: 5_000, unit: "ms" },
    ])
}

/// Liveness alone: a whole household would take days.
fn month(size: Size) -> Figures {
    let mut figures = Vec::new();
    for nodes in [4, 16] {
        let mut members = Members::new(nodes, 5, 4);
        let hours = size.node_hours / 2 / u64::try_from(nodes).unwrap_or(1);
        members.run(hours.max(1) * HOUR_MS);
        let what = format!(
            "{nodes} nodes, 5 % loss, {} node-hours, {} stalls of 10 s: false deaths",
            hours.max(1) * u64::try_from(nodes).unwrap_or(1),
            members.stalls
        );
        figures.push(Figure { what, seen: members.false_deaths, goal: 0, unit: "" });
        let back =
            format!("the same: a stalled node is alive for all after it woke, worst of {}", members.stalls);
        figures.push(Figure { what: back, seen: members.slowest_return, goal: 3_000, unit: "ms" });
    }
    Ok(figures)
}
