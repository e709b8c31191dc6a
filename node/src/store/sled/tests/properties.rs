//! Any batches, restarts and kills.
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Commit(Batch),
    Reopen,
    ReopenWithoutSnapshot,
    /// Without closing it: what is on the disk between two commits is all there is.
    Kill,
}

/// As many cases as PROPTEST_CASES says, else few: each opens stores.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(24, |cases| cases.parse().unwrap())
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let key = || (0_u8..40).prop_map(|n| vec![b'k', n / 4, n]);
    let value = prop_oneof![4 => 0..64_usize, 1 => 4000..=4096_usize];
    let put = (key(), value, any::<u8>()).prop_map(|(key, len, fill)| (key, vec![fill; len]));
    (prop::collection::vec(put, 0..30), prop::collection::vec(key(), 0..10))
        .prop_map(|(puts, deletes)| Batch { puts, deletes })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_holds_what_a_map_holds_after_any_batches_and_restarts(steps in prop::collection::vec(
        prop_oneof![
            8 => any_batch().prop_map(Step::Commit),
            1 => Just(Step::Reopen),
            1 => Just(Step::ReopenWithoutSnapshot),
            1 => Just(Step::Kill),
        ],
        1..60,
    )) {
        let mut folder = Folder::new();
        let mut store = open_clean(folder.path());
        let mut model = MemoryStore::new();
        for step in steps {
            match step {
                Step::Commit(batch) => {
                    store.commit(&batch).unwrap();
                    model.commit(&batch).unwrap();
                }
                Step::Reopen => {
                    drop(store);
                    prop_assert_eq!(&read_log(folder.path()), model.records());
                    store = open_clean(folder.path());
                }
                Step::Kill => {
                    let left = Folder::new();
                    copy(folder.path(), left.path());
                    drop(store);
                    folder = left;
                    let (opened, report) = open(folder.path());
                    prop_assert!(!report.may_have_lost_writes(), "{:?}", report);
                    store = opened;
                }
                Step::ReopenWithoutSnapshot => {
                    drop(store);
                    remove_snapshots(folder.path());
                    let (opened, report) = open(folder.path());
                    prop_assert!(!report.may_have_lost_writes(), "{:?}", report);
                    store = opened;
                }
            }
            prop_assert_eq!(store.len(), model.records().len() as u64);
        }
        drop(store);
        prop_assert_eq!(&records_of(&mut open_clean(folder.path())), model.records());
    }
}
