//! Replicas that hear the same writes hold the same state, whatever the order; and the invariants
//! of `replica.rs` hold after every step.

use std::collections::BTreeMap;

use mesh_proto::{
    Dot, Key,
    hlc::MAX_AHEAD_MS,
    limits::Limits,
    merge::Entry,
    record::Item,
    replica::{Applied, Replica},
    tree::Tree,
};
use proptest::prelude::*;

use crate::harness::*;

const NOW: u64 = 1_000;
const LATER: u64 = 1_000_000;

/// A write as the strategy draws it; its dot comes from its place in the history.
#[derive(Debug, Clone)]
struct Draft {
    node: u64,
    object: usize,
    field: usize,
    ms: u64,
    value: Option<i64>,
}

fn drafts(most: usize) -> impl Strategy<Value = Vec<Draft>> {
    let ms = prop_oneof![4 => 1u64..12, 1 => (NOW + MAX_AHEAD_MS + 1)..(NOW + MAX_AHEAD_MS + 6)];
    let draft = (1u64..4, 0usize..2, 0usize..3, ms, prop::option::of(0i64..3));
    let draft = draft.prop_map(|(node, object, field, ms, value)| Draft { node, object, field, ms, value });
    prop::collection::vec(draft, 1..most)
}

fn history(drafts: &[Draft]) -> Vec<Item> {
    let mut heads: BTreeMap<u64, u64> = BTreeMap::new();
    let mut written = Vec::new();
    for draft in drafts {
        let head = heads.entry(draft.node).or_default();
        *head += 1;
        let field = ["", "x", "y"][draft.field];
        let name = ["note/a", "zone/b"][draft.object];
        let value = if field.is_empty() { None } else { draft.value.and_then(bytes) };
        written.push(item(key(name, field), draft.ms, dot(draft.node, 1, *head), value));
    }
    written
}

fn registers(replica: &Replica) -> Vec<(Key, Entry)> {
    let all = replica.objects().iter();
    all.flat_map(|(id, object)| {
        object
            .entries()
            .map(|(field, entry)| (Key { object: id.clone(), field: field.clone() }, entry.clone()))
    })
    .collect()
}

fn is_superseded(replica: &Replica, item: &Item) -> bool {
    let by_register = replica.entry(&item.key).is_some_and(|own| own.beats(&item.entry));
    let tombstone = replica.object(&item.key.object).and_then(|object| object.tombstone());
    by_register || (!item.key.field.is_object() && tombstone.is_some_and(|t| t.stamp >= item.entry.stamp))
}

/// I1 to I3, and that tree and count are those of the registers.
fn check(replica: &Replica, heard: &BTreeMap<Dot, Item>) -> Result<(), TestCaseError> {
    let live: Vec<Dot> = replica.live_dots().map(|(_, dot)| dot).collect();
    prop_assert!(live.iter().all(|dot| replica.applied().contains(*dot)), "I1");
    for (dot, item) in heard {
        prop_assert!(replica.applied().contains(*dot));
        prop_assert!(live.contains(dot) || is_superseded(replica, item), "I2: {dot:?} is gone");
    }
    let (mut tree, held) = (Tree::default(), registers(replica));
    for (key, entry) in &held {
        tree.add(key, entry);
        let tombstone = replica.object(&key.object).and_then(|object| object.tombstone());
        let below = !key.field.is_object() && tombstone.is_some_and(|t| entry.stamp <= t.stamp);
        prop_assert!(!below, "I3: {key:?} is held below its tombstone");
    }
    prop_assert_eq!(tree.root(), replica.tree().root());
    prop_assert_eq!(held.len(), replica.len());
    Ok(())
}

fn same(a: &Replica, b: &Replica) -> Result<(), TestCaseError> {
    prop_assert_eq!(registers(a), registers(b));
    prop_assert_eq!(a.tree().root(), b.tree().root());
    prop_assert_eq!(a.applied(), b.applied());
    prop_assert_eq!(a.applied().hash(), b.applied().hash());
    prop_assert_eq!(a.quarantined(), b.quarantined());
    Ok(())
}

/// Applies the writes in the order of these keys, some of them twice, checking every step.
fn replay(items: &[Item], order: &[u32]) -> Result<Replica, TestCaseError> {
    let mut places: Vec<usize> = (0..items.len()).collect();
    places.sort_by_key(|at| (order[at % order.len()].rotate_left(u32::try_from(*at).unwrap()), *at));
    let (mut replica, mut heard) = (Replica::default(), BTreeMap::new());
    for at in places {
        let item = &items[at];
        replica.apply(NOW, item.clone());
        heard.insert(item.entry.dot, item.clone());
        check(&replica, &heard)?;
        if order[at % order.len()].is_multiple_of(3) {
            let again = replica.apply(NOW, item.clone());
            prop_assert_eq!(again, Applied::Duplicate);
        }
        if order[at % order.len()].is_multiple_of(7) {
            replica.release(LATER);
            check(&replica, &heard)?;
        }
    }
    replica.release(LATER);
    check(&replica, &heard)?;
    Ok(replica)
}

fn orders() -> impl Strategy<Value = (Vec<u32>, Vec<u32>)> {
    (prop::collection::vec(any::<u32>(), 1..40), prop::collection::vec(any::<u32>(), 1..40))
}

proptest! {
    #[test]
    fn any_order_repetition_and_release_give_the_same_state(
        drafts in drafts(40), (first, second) in orders()
    ) {
        let items = history(&drafts);
        let (a, b) = (replay(&items, &first)?, replay(&items, &second)?);
        same(&a, &b)?;
        prop_assert_eq!(a.quarantined(), 0);
    }

    #[test]
    fn a_split_history_is_whole_again_after_each_takes_in_what_the_other_holds(
        drafts in drafts(40), sides in prop::collection::vec(any::<bool>(), 40)
    ) {
        let items = history(&drafts);
        let (mut a, mut b) = (Replica::default(), Replica::default());
        for (item, to_a) in items.iter().zip(&sides) {
            if *to_a { a.apply(NOW, item.clone()) } else { b.apply(NOW, item.clone()) };
        }
        let live = |replica: &Replica| -> Vec<Item> {
            replica.live_dots().filter_map(|(_, dot)| replica.item(dot)).collect()
        };
        let (from_a, from_b) = (live(&a), live(&b));
        let (vector_a, vector_b) = (a.applied().clone(), b.applied().clone());
        from_b.into_iter().for_each(|item| { a.apply(NOW, item); });
        from_a.into_iter().for_each(|item| { b.apply(NOW, item); });
        a.cover_all(&vector_b);
        b.cover_all(&vector_a);
        a.release(LATER);
        b.release(LATER);
        same(&a, &b)?;
        let whole = replay(&items, &[1])?;
        same(&a, &whole)?;
    }

    /// What a void write had replaced may be gone where it took effect first; comparing the trees brings
    /// it back. Afterwards all are equal and nothing that is void is held.
    #[test]
    fn a_closed_generation_is_judged_alike_once_trees_were_compared(
        drafts in drafts(30), closed_at in 1u64..12, place in 0usize..30, (first, second) in orders()
    ) {
        let mut items = history(&drafts);
        // Node 1 closes its first generation; the stamp of the closing itself lies after all others.
        let name = format!("node/{}", mesh_proto::ShortId(1));
        let bits = i64::try_from(mesh_proto::Hlc::from_ms(closed_at).to_bits()).unwrap();
        let closing = item(key(&name, "closed.1"), 20, dot(1, 2, 1), bytes(bits));
        items.insert(place.min(items.len()), closing);
        let run = |order: &[u32]| -> Replica {
            let mut places: Vec<usize> = (0..items.len()).collect();
            places.sort_by_key(|at| (order[at % order.len()].rotate_left(u32::try_from(*at).unwrap()), *at));
            let mut replica = Replica::default();
            places.into_iter().for_each(|at| { replica.apply(NOW, items[at].clone()); });
            replica.release(LATER);
            replica
        };
        let (mut a, mut b) = (run(&first), run(&second));
        prop_assert_eq!(a.applied(), b.applied());
        for _ in 0..2 {
            let all = (0..=u8::MAX).collect();
            a.leaf_items(&all, None, usize::MAX).into_iter().for_each(|item| { b.repair(LATER, item); });
            b.leaf_items(&all, None, usize::MAX).into_iter().for_each(|item| { a.repair(LATER, item); });
        }
        same(&a, &b)?;
        let limit = mesh_proto::Hlc::from_ms(closed_at);
        let void = |(_, entry): &(Key, Entry)| entry.dot.origin == origin(1, 1) && entry.stamp > limit;
        prop_assert!(!registers(&a).iter().any(void));
    }

    /// What a store holds after any number of flushed batches is a state of the replica: nothing is
    /// claimed that is neither held nor superseded by what is held.
    #[test]
    fn a_flushed_batch_claims_only_what_the_store_holds(
        drafts in drafts(40), flushes in prop::collection::vec(any::<bool>(), 40)
    ) {
        let items = history(&drafts);
        let (mut replica, mut heard) = (Replica::default(), BTreeMap::new());
        let mut store = Store::default();
        for (item, flush) in items.iter().zip(&flushes) {
            replica.apply(NOW, item.clone());
            heard.insert(item.entry.dot, item.clone());
            if *flush {
                store.write(&replica.take_batch(&[], origin(1, 1)).0);
                let mut loaded = Replica::default();
                for (key, value) in &store.0 {
                    loaded.load(mesh_proto::record::Record::decode(key, value).unwrap());
                }
                check(&loaded, &heard)?;
                same(&loaded, &replica)?;
            }
        }
    }
}

#[test]
fn a_write_dropped_for_want_of_room_is_not_accounted_for() {
    let mut replica = Replica::default();
    let far =
        |node, seq| item(key(&format!("note/n{seq}"), "x"), 1_000_000 + seq, dot(node, 1, seq), bytes(1));
    let most = u64::try_from(Limits::default().held_back).unwrap();
    for seq in 1..=most {
        assert_eq!(replica.apply(NOW, far(1, seq)), Applied::Quarantined);
    }
    let mut late = far(1, most + 1);
    late.covers = vec![dot(1, 1, most + 2)];
    assert_eq!(replica.apply(NOW, late.clone()), Applied::Dropped);
    assert_eq!(replica.repair(NOW, late.clone()), Applied::Dropped);
    assert!(!Applied::Dropped.is_news(), "it would be passed on as if it were held here");
    assert_eq!(replica.applied().head(origin(1, 1)), most);
    assert_eq!(
        replica.apply(NOW, far(2, 1)),
        Applied::Quarantined,
        "one wrong clock takes the room of others"
    );
    replica.release(1_000_001);
    assert_eq!(replica.apply(NOW, late), Applied::Quarantined);
}

#[test]
fn a_value_in_the_slot_of_a_tombstone_is_none() {
    let mut replica = Replica::default();
    replica.apply(NOW, item(key("note/a", "x"), 5, dot(1, 1, 1), bytes(1)));
    let slot = item(key("note/a", ""), 6, dot(1, 1, 2), bytes(1));
    assert_eq!(replica.apply(NOW, slot.clone()), Applied::Malformed);
    assert!(replica.entry(&key("note/a", "x")).is_some() && replica.tombstones().count() == 0);
    let (name, value) = mesh_proto::record::register(&slot.key, &slot.entry);
    assert!(mesh_proto::record::Record::decode(&name, &value).is_err());
}

/// What is void is a function of the registers, so a replica judges alike before and after a start.
#[test]
fn a_deleted_closing_closes_nothing() {
    let closing =
        |seq, value| item(key("node/0000000000000002", "closed.1"), 10 + seq, dot(2, 2, seq), value);
    let object = |seq| item(key("node/0000000000000002", ""), 10 + seq, dot(1, 1, seq), None);
    for deletion in [closing(3, None), object(4)] {
        let (mut replica, mut store) = (Replica::default(), Store::default());
        for write in [closing(1, bytes(0)), closing(2, bytes(0)), deletion] {
            assert_eq!(replica.apply(NOW, write), Applied::Won);
        }
        store.write(&replica.take_batch(&[], origin(9, 1)).0);
        let mut restarted = Replica::default();
        for (name, value) in &store.0 {
            restarted.load(mesh_proto::record::Record::decode(name, value).unwrap());
        }
        restarted.finish_loading();
        let late = item(key("note/late", "x"), 5, dot(2, 1, 9), bytes(1));
        assert_eq!(replica.apply(NOW, late.clone()), restarted.apply(NOW, late));
    }
}

#[test]
fn no_record_of_a_generation_below_a_floor_is_left() {
    let far = 1 << 20;
    for by_peer in [false, true] {
        let (mut replica, mut store) = (Replica::default(), Store::default());
        for generation in [1, 5, far, 2 * far] {
            replica
                .apply(NOW, item(key("note/a", "x"), u64::from(generation), dot(1, generation, 1), bytes(1)));
        }
        store.write(&replica.take_batch(&[], origin(9, 1)).0);
        let mut peer = mesh_proto::vector::Vector::default();
        peer.raise_floor(mesh_proto::ShortId(1), 2 * far);
        if by_peer {
            replica.cover_all(&peer);
        } else {
            replica.raise_floor(mesh_proto::ShortId(1), 2 * far);
        }
        store.write(&replica.take_batch(&[], origin(9, 1)).0);
        assert_eq!(store.0.keys().filter(|name| name.first() == Some(&b'v')).count(), 1);
    }
}
