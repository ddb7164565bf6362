//! What is in the file, and what is made of a file that is not as it was written.

use std::os::unix::fs::FileExt;

use cas::Name;
use proptest::prelude::*;

use super::super::frame::{FRAME, HEADER};
use super::*;
use crate::view::{Content, InodeFlags, Meta, SpecialKind};

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanoseconds)| Time {
        seconds,
        nanoseconds,
    })
}

fn content() -> impl Strategy<Value = Content<u64>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..20);
    let special = proptest::sample::select(vec![
        SpecialKind::Fifo,
        SpecialKind::Socket,
        SpecialKind::Character,
        SpecialKind::Block,
    ]);
    prop_oneof![
        Just(Content::Input),
        any::<u64>().prop_map(Content::Staged),
        bytes.prop_map(|target| Content::Symlink(target.into())),
        (special, any::<u32>()).prop_map(|(kind, rdev)| Content::Special(kind, rdev)),
        Just(Content::Directory),
    ]
}

fn any_fact() -> impl Strategy<Value = Fact<u64>> {
    let id = || any::<u64>().prop_map(InodeId);
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Box::<[u8]>::from);
    let name = proptest::collection::vec(any::<u8>(), 1..256)
        .prop_filter_map("no name", |bytes| Some(Name::new(&bytes).ok()?.to_owned()));
    let meta = (any::<(u16, u32, u32)>(), time(), time(), time());
    let meta = meta.prop_map(|((perm, uid, gid), atime, mtime, ctime)| Meta {
        perm,
        uid,
        gid,
        atime,
        mtime,
        ctime,
    });
    let inode = (id(), meta, time(), any::<u32>(), content());
    prop_oneof![
        inode.prop_map(|(id, meta, born, flags, content)| Fact::Inode {
            id,
            meta,
            born,
            flags: InodeFlags(flags),
            content
        }),
        id().prop_map(Fact::Gone),
        (id(), name, proptest::option::of(id())).prop_map(|(directory, name, id)| Fact::Name {
            directory,
            name,
            id
        }),
        (id(), bytes(), proptest::option::of(bytes()))
            .prop_map(|(id, name, value)| { Fact::Extended { id, name, value } }),
        any::<u64>().prop_map(Fact::Next),
    ]
}

fn changes(at_most: usize) -> impl Strategy<Value = Vec<Vec<Fact<u64>>>> {
    let change = proptest::collection::vec(any_fact(), 1..4);
    proptest::collection::vec(change, 1..at_most)
}

/// A log of some changes, as the bytes of its file, and where its frames end. Flushed after the
/// first `flushed` changes.
fn written(changes: &[Vec<Fact<u64>>], flushed: usize) -> (Vec<u8>, Vec<usize>) {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    let mut ends = vec![HEADER];
    for (i, change) in changes.iter().enumerate() {
        if i == flushed {
            log.sync().unwrap();
        }
        append(&log, change);
        log.write().unwrap();
        ends.push(locked(&log.tail).unwrap().end as usize);
    }
    (std::fs::read(root.path().join(FILE)).unwrap(), ends)
}

/// What a log of these bytes says when it is opened, and what is left of it.
fn reopened(bytes: &[u8]) -> std::result::Result<(Saved, Vec<u8>), Error> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(FILE);
    let file = File::create(&path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let opened = open(root.path());
    let left = std::fs::read(&path).unwrap();
    match opened {
        Ok((_, saved)) => Ok((saved, left)),
        Err(error) => {
            assert_eq!(left, bytes, "an error leaves the file alone");
            Err(error)
        }
    }
}

fn innermost(error: Error) -> Error {
    match error {
        Error::At { source, .. } => innermost(*source),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn facts_survive_encoding(facts in proptest::collection::vec(any_fact(), 0..20)) {
        let mut bytes = Vec::new();
        codec::encode(&facts, |number| *number, &mut bytes);
        prop_assert_eq!(codec::decode(&bytes), Some(facts));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(facts) = codec::decode(&bytes) {
            let mut again = Vec::new();
            codec::encode(&facts, |number| *number, &mut again);
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn a_log_is_read_back(changes in changes(8)) {
        let (bytes, _) = written(&changes, usize::MAX);
        let (saved, left) = reopened(&bytes).unwrap();
        prop_assert_eq!(saved.facts, changes.concat());
        prop_assert_eq!((saved.header, saved.cut), (header(), 0));
        prop_assert_eq!(left, bytes);
    }

    /// Wrong facts never come of a wrong byte; where the byte was on disk for certain, an error.
    #[test]
    fn a_flipped_bit_is_an_error_or_a_shorter_log(
        changes in changes(6),
        flushed in 0..6usize,
        at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let (mut bytes, ends) = written(&changes, flushed);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let whole = ends.iter().filter(|end| **end <= at).count();
        match reopened(&bytes) {
            Err(error) => {
                let durable = flushed < changes.len() && at < ends[flushed];
                prop_assert!(at < HEADER || durable, "{error} for byte {at}");
            }
            Ok((saved, left)) => {
                prop_assert!(whole > 0, "byte {at} of the header was not missed");
                prop_assert_eq!(saved.facts, changes[..whole - 1].concat());
                prop_assert_eq!(left.len(), ends[whole - 1]);
                prop_assert!(flushed >= changes.len() || at >= ends[flushed]);
            }
        }
    }
}

#[test]
fn a_log_cut_anywhere_says_what_its_whole_frames_say() {
    let changes: Vec<Vec<_>> = (0..5).map(|n| vec![fact(n), fact(n + 10)]).collect();
    let (bytes, ends) = written(&changes, 3);
    for length in 0..=bytes.len() {
        let outcome = reopened(&bytes[..length]);
        if length < HEADER {
            let error = innermost(outcome.unwrap_err());
            assert!(matches!(error, Error::Corrupt { offset: 0 }), "{error}");
            continue;
        }
        let (saved, left) = outcome.unwrap();
        let whole = ends.iter().filter(|end| **end <= length).count() - 1;
        assert_eq!(saved.facts, changes[..whole].concat(), "{length}");
        assert_eq!(saved.cut as usize, length - ends[whole]);
        assert_eq!(left, bytes[..ends[whole]]);
    }
}

#[test]
fn a_log_that_was_cut_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    append(&log, &[fact(1)]);
    append(&log, &[fact(2)]);
    log.write().unwrap();
    drop(log);
    let path = root.path().join(FILE);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(path.metadata().unwrap().len() - 1).unwrap();
    let (log, saved) = open(root.path()).unwrap();
    assert_eq!(saved.facts, [fact(1)]);
    append(&log, &[fact(3)]);
    log.write().unwrap();
    drop(log);
    assert_eq!(facts_of(root.path()), [fact(1), fact(3)]);
}

/// Pages that were never flushed reach the disk in any order.
#[test]
fn a_hole_in_what_was_not_flushed_is_a_torn_end() {
    let changes: Vec<Vec<_>> = (0..6).map(|n| vec![fact(n)]).collect();
    let (mut bytes, ends) = written(&changes, 3);
    bytes[ends[4]..ends[5]].fill(0);
    let (saved, left) = reopened(&bytes).unwrap();
    assert_eq!(saved.facts, changes[..4].concat());
    assert_eq!(left.len(), ends[4]);
}

#[test]
fn a_hole_in_what_was_flushed_is_corruption() {
    let changes: Vec<Vec<_>> = (0..6).map(|n| vec![fact(n)]).collect();
    let (mut bytes, ends) = written(&changes, 3);
    bytes[ends[1]..ends[2]].fill(0);
    let error = reopened(&bytes).unwrap_err();
    let expected = format!("corrupt at byte {}", ends[1]);
    assert!(error.to_string().contains(&expected), "{error}");
}

#[test]
fn after_an_orderly_end_any_damage_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    append(&log, &[fact(1)]);
    append(&log, &[fact(2)]);
    log.close().unwrap();
    drop(log);
    let path = root.path().join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    // An orderly end after nothing was done adds nothing.
    open(root.path()).unwrap().0.close().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let last = bytes.len() - FRAME - 1;
    bytes[last] ^= 1;
    let error = innermost(reopened(&bytes).unwrap_err());
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

/// Whoever can store bytes in a view must not be able to forge frames.
#[test]
fn frames_of_another_log_or_another_place_are_none() {
    let (one, ends) = written(&[vec![fact(1)], vec![fact(2)]], usize::MAX);
    let (two, _) = written(&[vec![fact(1)], vec![fact(2)]], usize::MAX);
    let mixed = [&one[..ends[1]], &two[ends[1]..]].concat();
    assert_eq!(reopened(&mixed).unwrap().0.facts, [fact(1)]);
    let moved = [&one[..], &one[ends[1]..]].concat();
    assert_eq!(reopened(&moved).unwrap().0.facts, [fact(1), fact(2)]);
}

#[test]
fn a_log_of_other_inputs_or_another_format_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()).unwrap());
    let other = Header {
        inputs: Digest::of(b"other"),
        ..header()
    };
    let directory = File::open(root.path()).unwrap();
    let message = Log::open(directory.as_fd(), other).unwrap_err().to_string();
    for part in [
        header().inputs.to_string(),
        other.inputs.to_string(),
        root.path().join(FILE).display().to_string(),
    ] {
        assert!(message.contains(&part), "{part} in {message}");
    }
    let (mut bytes, _) = written(&[vec![fact(1)]], 0);
    bytes[8] = 9;
    let error = innermost(reopened(&bytes).unwrap_err());
    assert!(matches!(error, Error::Version { found: 9 }), "{error}");
    bytes[0] = b'x';
    let error = innermost(reopened(&bytes).unwrap_err());
    assert!(matches!(error, Error::NotALog), "{error}");
}

#[test]
fn owner_and_birth_are_those_of_the_first_mount() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()).unwrap());
    let later = Header {
        owner: Caller { uid: 0, gid: 0 },
        born: Time::default(),
        ..header()
    };
    let directory = File::open(root.path()).unwrap();
    let (_, saved) = Log::open(directory.as_fd(), later).unwrap();
    assert_eq!(saved.header, header());
}
