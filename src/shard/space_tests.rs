//! When the disk counts as full, and what is refused then.

use bytes::Bytes;

use super::*;
use crate::ids::{Index, SessionId};
use crate::kv::{Previous, Txn};

const MIB: u64 = 1 << 20;

fn look(free: u64, lanes: Level) -> Look {
    Look { free: Some(free * MIB), watermark: 80 * MIB, lanes }
}

/// What each of these looks, 200 ms apart, leads to.
fn levels(looks: &[Look]) -> Vec<Level> {
    let mut gauge = Gauge::new();
    let times = (0u64..).map(|at| Instant(at * 200_000));
    let judge = |(now, look): (Instant, &Look)| {
        assert!(gauge.begin_look(now), "a look is due at {now:?}");
        let before = gauge.room().level;
        let changed = gauge.note(*look, now);
        assert_eq!(changed.is_some(), before != gauge.room().level, "a change is said once");
        gauge.room().level
    };
    times.zip(looks).map(judge).collect()
}

#[test]
fn below_the_watermark_it_is_reserved_and_a_second_of_enough_ends_it() {
    use Level::{Enough, Reserved};
    let mut looks = vec![look(80, Enough), look(79, Enough), look(85, Enough), look(89, Enough)];
    assert_eq!(levels(&looks), [Enough, Reserved, Reserved, Reserved], "85 is within the eighth");
    looks.extend([look(90, Enough); 6]);
    let found = levels(&looks);
    assert_eq!(found[4..9], [Reserved; 5], "{found:?}");
    assert_eq!(found[9], Enough, "a second after it came to 90");
    // A look that finds less in between begins the second anew.
    looks.truncate(8);
    looks.push(look(89, Enough));
    looks.extend([look(90, Enough); 5]);
    assert_eq!(levels(&looks)[9..], [Reserved; 5]);
}

#[test]
fn what_the_lanes_say_counts_at_once() {
    use Level::{Enough, Exhausted, Reserved};
    let looks = [look(900, Enough), look(900, Reserved), look(900, Exhausted), look(900, Reserved)];
    assert_eq!(levels(&looks), [Enough, Reserved, Exhausted, Reserved]);
}

#[test]
fn a_file_system_that_says_nothing_refuses_nothing_and_ends_nothing() {
    let silent = |lanes| Look { free: None, watermark: 80 * MIB, lanes };
    assert_eq!(levels(&[silent(Level::Enough)]), [Level::Enough]);
    let looks = [look(10, Level::Enough), silent(Level::Enough), silent(Level::Enough)];
    assert_eq!(levels(&looks), [Level::Reserved; 3], "what was known is what counts");
}

#[test]
fn one_look_at_a_time() {
    let mut gauge = Gauge::new();
    assert!(gauge.begin_look(Instant(0)));
    assert!(!gauge.begin_look(Instant(900_000)), "the first has not come back");
    gauge.note(look(900, Level::Enough), Instant(900_000));
    assert!(gauge.begin_look(Instant(900_000)));
}

#[test]
fn the_watermark_counts_every_core() {
    let reserve = Reserve { table: 5 * MIB, changes: 7 * MIB, segments: 20 * MIB, lanes: 2 };
    assert_eq!(reserve.bytes(), (5 + 7 + 40 + 2) * MIB);
    let mut gauge = Gauge::new();
    assert!(gauge.set_own(10) && !gauge.set_own(10), "the others hear of changes");
    assert_eq!(gauge.watermark(1, 3), 13);
    assert_eq!(gauge.watermark(3, 3), 33, "the others, not heard yet, count as this one");
    gauge.set_other(CoreId(2), 4);
    gauge.set_other(CoreId(2), 5);
    assert_eq!(gauge.watermark(3, 3), 28);
    assert_eq!(gauge.watermark(3, u64::MAX), u64::MAX);
}

#[test]
fn what_makes_the_data_grow_is_told_from_what_does_not() {
    let key = || Bytes::from_static(b"k");
    let (value, return_previous) = (key(), Previous::Omit);
    let put = Operation::Put { key: key(), value: value.clone(), return_previous };
    let append = Operation::Append { key: key(), value: value.clone() };
    let delete = Operation::Delete { key: key(), return_previous };
    let get = Operation::Get { key: key() };
    let txn = |then: &[Operation], otherwise: &[Operation]| {
        Write::Txn(Txn { then: then.to_vec(), otherwise: otherwise.to_vec(), ..Txn::default() })
    };
    let writes = [
        (Write::Put { key: key(), value: value.clone(), if_mod_revision: None, return_previous }, true),
        (Write::Append { key: key(), value, if_mod_revision: None }, true),
        (Write::Delete { key: key(), if_mod_revision: None, return_previous }, false),
        (txn(&[get.clone(), put], &[]), true),
        (txn(std::slice::from_ref(&delete), &[append]), true),
        (txn(&[delete.clone(), get], &[delete]), false),
    ];
    for (write, is_growth) in writes {
        assert_eq!(grows(&Command::Write { id: None, write: write.clone() }), is_growth, "{write:?}");
    }
    let session = SessionId(1);
    for command in [
        Command::OpenSession { ttl_ms: 0 },
        Command::CloseSession { session },
        Command::Expire { session, last_active_index: Index(1) },
    ] {
        assert!(!grows(&command), "{command:?}");
    }
}
