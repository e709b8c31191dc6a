//! The power goes while many write: whatever the moment, what was answered is on the card.

use tokio::{task::JoinSet, time::timeout};

use super::*;
use crate::store::{
    Store as _,
    unsynced::{Hook, UnsyncedStore},
};

/// So many write at once, each its next note when the last was answered.
const WRITERS: usize = 8;
const MOMENTS: [Moment; 3] = [Moment::Before, Moment::Written, Moment::Synced];

/// A commit, counted from 0, and a moment inside it.
type Point = (u64, Moment);

#[derive(Clone, Copy, Debug)]
struct Case {
    /// Where the disk refuses, once.
    refuses: Option<Point>,
    /// Where the power goes.
    cut: Point,
    /// How many batches the kernel had written by its own choice before anybody synced them.
    kept: usize,
}

impl Case {
    fn hook(self, dark: Arc<AtomicBool>) -> Hook {
        let mut refuses = self.refuses;
        Box::new(move |commit, moment| {
            let here = (commit, moment);
            if here == self.cut {
                dark.store(true, Ordering::SeqCst);
                Power::Cut
            } else if refuses.take_if(|point| *point == here).is_some() {
                Power::Refuse
            } else {
                Power::On
            }
        })
    }

    /// Lets the writers write until the power goes, starts again with what is left, and looks for all that was
    /// answered. Returns how much that is.
    async fn loses_nothing(self) -> usize {
        let dark = Arc::new(AtomicBool::new(false));
        let card = Card::new(self.hook(dark.clone()));
        let bench = Bench::over(card.clone());
        let service = bench.service.clone();
        let running = tokio::spawn(bench.run());
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(write(service.clone(), writer, dark.clone()))).collect();
        let mut answered = Vec::new();
        for writer in writers {
            answered.push(timeout(PATIENCE, writer).await.expect("the power goes").unwrap());
        }
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());

        let mesh = start_again(&mut card.pull().crash_keeping(self.kept));
        for (writer, answered) in answered.iter().enumerate() {
            for number in answered {
                let shown = text(&mesh, &format!("note/w{writer}-{number}"));
                assert_eq!(shown, Some(*number), "{self:?}: writer {writer} was answered");
            }
            let newest = text(&mesh, &format!("note/w{writer}"));
            assert!(newest.as_ref() >= answered.last(), "{self:?}: {newest:?} of {answered:?}");
        }
        answered.iter().map(Vec::len).sum()
    }
}

/// Writes notes, and in the same request the newest number to a note that all of them share, until the power is
/// gone. Returns the numbers that were answered.
async fn write(service: Service, writer: usize, dark: Arc<AtomicBool>) -> Vec<i64> {
    let mut answered = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    for number in 0.. {
        let set = |name: String| Op::Set(id(&name), field("text"), Value::from(number));
        let ops = vec![set(format!("note/w{writer}-{number}")), set(format!("note/w{writer}"))];
        match service.write(Author::Client, ops).await {
            Ok(()) => answered.push(number),
            Err(_) if dark.load(Ordering::SeqCst) => break,
            Err(ServiceError::Store(_)) => drop(pace.tick().await),
            Err(other) => panic!("{other}"),
        }
    }
    answered
}

/// The machine as the next start makes it.
fn start_again(store: &mut UnsyncedStore) -> Mesh {
    let mut loader = Loader::new(Plant::default());
    store.load(&mut |key, value| loader.record(key, value).unwrap()).unwrap();
    assert_eq!(loader.damaged(), 0);
    Mesh::new(boot(2), Clock::new().now(), loader)
}

fn text(mesh: &Mesh, object: &str) -> Option<i64> {
    mesh.object(&id(object))?.fields.get(&field("text"))?.value.as_int()
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut_at_any_moment_of_any_commit() {
    let (mut answered, mut commits) = (0, 0);
    for commit in 0..6 {
        for moment in MOMENTS {
            for kept in 0..=usize::from(moment == Moment::Written) {
                answered += Case { refuses: None, cut: (commit, moment), kept }.loses_nothing().await;
                commits += usize::try_from(commit).unwrap();
            }
        }
    }
    assert!(answered > commits, "{commits} commits, none of which answered several writers: {answered}");
}

#[tokio::test]
async fn what_was_answered_around_a_commit_that_failed_survives_a_power_cut() {
    let mut cases = JoinSet::new();
    for refused in MOMENTS {
        for cut in MOMENTS {
            let case = Case { refuses: Some((1, refused)), cut: (6, cut), kept: 0 };
            cases.spawn(case.loses_nothing());
        }
    }
    while let Some(answered) = cases.join_next().await {
        assert!(answered.unwrap() > 0, "nobody was answered");
    }
}
