//! Requests as the kernel lays them out, whole, cut short, and of random bytes.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::super::abi::{self, OPERATIONS, opcode};
use super::{Extended, Operation, Request};

/// A request of a header, `body` and `extensions`.
fn message(opcode: u32, body: &[&[u8]], extensions: &[u8]) -> Vec<u8> {
    let body = [&body.concat(), extensions].concat();
    let header = abi::InHeader {
        len: (size_of::<abi::InHeader>() + body.len()) as u32,
        opcode,
        unique: 77,
        nodeid: 5,
        uid: 1000,
        gid: 100,
        pid: 1,
        total_extlen: (extensions.len() / 8) as u16,
        padding: 0,
    };
    [header.as_bytes(), &body].concat()
}

fn set_attributes() -> abi::SetAttrIn {
    let mut set: abi::SetAttrIn = zerocopy::FromZeros::new_zeroed();
    set.valid = abi::fattr::MTIME | abi::fattr::FH;
    set.mtime = -3_i64 as u64;
    set.mtimensec = 500_000_000;
    set
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// One whole message of each operation that has a body.
fn messages() -> Vec<Vec<u8>> {
    let zeros = [0; 64];
    let write = words(&[0, 0, 9, 0, 3, 4, 0, 0, 0, 0]);
    // Nothing that is asked for, but whoever sends it is understood.
    let groups = words(&[16, 32, 1, 42]);
    let of = |opcode, body: &[&[u8]]| message(opcode, body, &[]);
    vec![
        of(opcode::LOOKUP, &[b"name\0"]),
        of(opcode::FORGET, &[&zeros[..8]]),
        of(opcode::BATCH_FORGET, &[&words(&[2, 0]), &zeros[..32]]),
        of(opcode::GETATTR, &[&zeros[..16]]),
        of(opcode::SETATTR, &[set_attributes().as_bytes()]),
        message(opcode::SYMLINK, &[b"name\0", b"to/where\0"], &groups),
        message(opcode::MKNOD, &[&zeros[..16], b"name\0"], &groups),
        message(opcode::MKDIR, &[&zeros[..8], b"name\0"], &groups),
        message(opcode::CREATE, &[&zeros[..16], b"name\0"], &groups),
        message(opcode::TMPFILE, &[&zeros[..16], b"#1\0"], &groups),
        of(opcode::UNLINK, &[b"name\0"]),
        of(opcode::RMDIR, &[b"name\0"]),
        of(opcode::RENAME, &[&zeros[..8], b"old\0", b"new\0"]),
        of(
            opcode::RENAME2,
            &[&words(&[8, 0, 1, 0]), b"old\0", b"new\0"],
        ),
        of(opcode::LINK, &[&zeros[..8], b"name\0"]),
        of(opcode::OPEN, &[&zeros[..8]]),
        of(opcode::READ, &[&zeros[..40]]),
        of(opcode::WRITE, &[&write, b"abc"]),
        of(opcode::RELEASE, &[&zeros[..24]]),
        of(opcode::FSYNC, &[&zeros[..16]]),
        of(opcode::READDIR, &[&zeros[..40]]),
        of(opcode::READDIRPLUS, &[&zeros[..40]]),
        of(opcode::ACCESS, &[&zeros[..8]]),
        of(opcode::FALLOCATE, &[&zeros[..32]]),
        of(opcode::LSEEK, &[&zeros[..24]]),
        of(opcode::INIT, &[&words(&[7, 45, 0, 1 << 30, 1 << 5])]),
        of(opcode::STATX, &[&zeros[..24]]),
        of(opcode::COPY_FILE_RANGE, &[&zeros[..56]]),
        of(opcode::COPY_FILE_RANGE_64, &[&zeros[..56]]),
        of(opcode::IOCTL, &[&words(&[0, 0, 0, 9, 0, 0, 4, 4]), b"1234"]),
        of(
            opcode::SETXATTR,
            &[&words(&[3, 1, 0, 0]), b"user.x\0", b"abc"],
        ),
        of(opcode::GETXATTR, &[&words(&[64, 0]), b"user.x\0"]),
        of(opcode::LISTXATTR, &[&words(&[64, 0])]),
        of(opcode::REMOVEXATTR, &[b"user.x\0"]),
    ]
}

#[test]
fn whole_messages_are_understood_and_no_part_of_one_is() {
    for whole in messages() {
        let request = Request::decode(&whole).expect("a whole message");
        assert!(
            !matches!(request.operation, Operation::Other),
            "{request:?}"
        );
        for length in 0..whole.len() {
            // As read, and with a header that does not say that something is missing.
            let mut part = whole[..length].to_vec();
            assert!(Request::decode(&part).is_err(), "{length} of {request:?}");
            if length >= size_of::<abi::InHeader>() && request.header.total_extlen == 0 {
                part[..4].copy_from_slice(&(length as u32).to_ne_bytes());
                assert!(Request::decode(&part).is_err(), "{length} of {request:?}");
            }
        }
    }
}

#[test]
fn a_malformed_request_can_be_answered() {
    let mut cut = message(opcode::LOOKUP, &[b"no end"], &[]);
    let malformed = Request::decode(&cut).expect_err("no NUL");
    assert_eq!((malformed.unique, malformed.opcode), (77, opcode::LOOKUP));
    cut.truncate(20);
    assert_eq!(Request::decode(&cut).expect_err("cut").unique, 0);
}

#[test]
fn operands_arrive_where_they_belong() {
    let bytes = message(opcode::SETATTR, &[set_attributes().as_bytes()], &[]);
    let request = Request::decode(&bytes).expect("whole");
    let header = request.header;
    assert_eq!((header.nodeid, header.uid, header.gid), (5, 1000, 100));
    let Operation::SetAttr(set) = request.operation else {
        panic!("{request:?}")
    };
    assert_eq!((set.mtime as i64, set.mtimensec), (-3, 500_000_000));

    let bytes = message(
        opcode::RENAME2,
        &[&words(&[8, 0, 2, 0]), b"a\0", b"b\0"],
        &[],
    );
    let Operation::Rename {
        name,
        new_parent,
        new_name,
        flags,
    } = Request::decode(&bytes).expect("whole").operation
    else {
        panic!("no rename")
    };
    assert_eq!(
        (name, new_parent, new_name, flags),
        (&b"a"[..], 8, &b"b"[..], 2)
    );

    let bytes = message(
        opcode::SETXATTR,
        &[&words(&[3, 1, 1, 0]), b"user.x\0", b"a\0c"],
        &[],
    );
    let Operation::Extended(Extended::Set {
        name,
        value,
        flags,
        drop_set_group,
    }) = Request::decode(&bytes).expect("whole").operation
    else {
        panic!("no attribute")
    };
    assert_eq!((name, value, flags), (&b"user.x"[..], &b"a\0c"[..], 1));
    assert!(drop_set_group);
}

#[test]
fn all_64_flags_of_a_negotiation_are_seen() {
    let bytes = message(
        opcode::INIT,
        &[&words(&[7, 45, 4096, 1 << 30 | 1, 1 << 5, 0, 0])],
        &[],
    );
    let Operation::Init { offer, flags } = Request::decode(&bytes).expect("whole").operation else {
        panic!("no negotiation")
    };
    assert_eq!((offer.minor, offer.max_readahead), (45, 4096));
    let expected = abi::init::INIT_EXT | abi::init::ASYNC_READ | abi::init::PASSTHROUGH;
    assert_eq!(flags, expected);
}

#[test]
fn forgotten_inodes_are_all_listed() {
    let ones: Vec<u8> = [7_u64, 1, 8, 3].map(u64::to_ne_bytes).concat();
    let bytes = message(opcode::BATCH_FORGET, &[&words(&[2, 0]), &ones], &[]);
    let Operation::BatchForget(forgotten) = Request::decode(&bytes).expect("whole").operation
    else {
        panic!("no batch")
    };
    let found: Vec<_> = forgotten.map(|one| (one.nodeid, one.nlookup)).collect();
    assert_eq!(found, [(7, 1), (8, 3)]);
}

#[test]
fn what_is_unknown_is_a_request_like_any_other() {
    let bytes = message(4000, &[b"what?"], &[]);
    let request = Request::decode(&bytes).expect("a request");
    assert!(matches!(request.operation, Operation::Other));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::decode(&bytes);
    }

    #[test]
    fn no_body_of_a_known_operation_makes_it_panic(
        place in 0..OPERATIONS.len(),
        body in proptest::collection::vec(any::<u8>(), 0..160),
        extended in 0..30_u16,
    ) {
        let mut bytes = message(OPERATIONS[place].0, &[&body], &[]);
        bytes[36..38].copy_from_slice(&extended.to_ne_bytes());
        if let Ok(Request { operation: Operation::BatchForget(forgotten), .. }) = Request::decode(&bytes) {
            prop_assert!(forgotten.count() <= 10);
        }
    }
}
