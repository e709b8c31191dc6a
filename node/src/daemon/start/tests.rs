//! What the start says of a store whose records make no sense.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use crate::store::tests::{Folder, records_of};
use mesh_proto::{Hlc, record};

/// A closed store with these records.
fn store(folder: &Folder, puts: Vec<(Vec<u8>, Vec<u8>)>) {
    let (mut store, _) = SledStore::open(folder.path(), SledOptions::default()).unwrap();
    store.commit(&Batch { puts, deletes: Vec::new() }).unwrap();
}

#[tokio::test]
async fn records_that_make_no_sense_are_told_and_count_as_lost_writes() {
    let folder = Folder::new();
    let good = record::ceiling(Hlc::from_ms(77));
    let senseless = [(b"rnote/a\0text".to_vec(), b"\x01rot".to_vec()), (b"?".to_vec(), b"\x01".to_vec())];
    store(&folder, [vec![good.clone()], senseless.to_vec()].concat());
    let (mut opened, report, _) = open_store(folder.path().to_owned()).await.unwrap();
    assert_eq!(report.outcome, Recovery::Salvaged { kept: 1, lost: 2 });
    assert!(report.steps.len() == 1 && report.steps[0].contains("2 records make no sense"), "{report:?}");
    assert_eq!(restored::mark(folder.path()).unwrap(), Some(None));
    assert!(repairs::list(folder.path())[0].ends_with(&report.steps[0]));
    assert_eq!(records_of(&mut opened).into_iter().collect::<Vec<_>>(), [good]);
    drop(opened);
    let (_, report, _) = open_store(folder.path().to_owned()).await.unwrap();
    assert_eq!((report.outcome, report.steps), (Recovery::Clean, vec![]), "told once");
}
