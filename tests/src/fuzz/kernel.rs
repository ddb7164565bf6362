//! A kernel that asks for anything: packets of any bytes, and operations that make sense but for
//! their inodes, handles and operands.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas::manifest::{Declared, DeclaredKind, Manifest};
use cas::{RelPath, Store};
use fuse_daemon::fuse::Answerer;
use fuse_daemon::job::Job;
use fuse_daemon::view::{Caller, InputPolicy, Time};

use super::Bytes;

/// Bytes of the header of a request.
const REQUEST: usize = 40;
/// Bytes of the header of a reply.
const REPLY: usize = 16;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const BATCH_FORGET: u32 = 42;

/// A directory in memory, if there is one.
pub(super) fn place() -> tempfile::TempDir {
    let prefix = "wakebox-fuzz-";
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix);
        builder
    };
    let in_memory = builder().tempdir_in("/dev/shm");
    in_memory
        .or_else(|_| builder().tempdir())
        .expect("a directory")
}

/// A job with some inputs, served to us.
struct Served {
    answerer: Answerer,
    job: Arc<Job>,
    number: u64,
    /// Inodes that replies have told of, and handles.
    told: Vec<u64>,
}

/// What all jobs of this process have in common.
fn store() -> Arc<Store> {
    static STORE: std::sync::OnceLock<(tempfile::TempDir, Arc<Store>)> = std::sync::OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let place = place();
        let store = Arc::new(Store::open(place.path()).expect("a store"));
        let staging = store.new_staging("fuzz").expect("room");
        store.put_bytes(b"content", &staging).expect("room");
        (place, store)
    });
    store.clone()
}

fn manifest() -> Manifest {
    let digest = cas::Digest::of(b"content");
    let entry = |path: &str, kind| Declared {
        path: RelPath::parse(path.as_bytes()).expect("a path"),
        mode: 0o755,
        mtime: 5,
        kind,
    };
    let entries = vec![
        entry("dir", DeclaredKind::Directory),
        entry("dir/file", DeclaredKind::File(digest)),
        entry("file", DeclaredKind::File(digest)),
        entry("link", DeclaredKind::Symlink(digest)),
        entry("own", DeclaredKind::WritableFile(digest)),
    ];
    Manifest {
        input_root: None,
        entries,
    }
}

impl Served {
    fn new(policy: InputPolicy) -> Self {
        let store = store();
        let inputs = manifest().resolve(&store).expect("all is there");
        let staging = store.new_staging("job").expect("room");
        let time = Time {
            seconds: 7,
            nanoseconds: 0,
        };
        let owner = Caller { uid: 0, gid: 0 };
        let job = Job::new(store, staging, &inputs, policy, owner, time).expect("a job");
        let job = Arc::new(job);
        let answerer = Answerer::new(job.clone()).expect("/dev/null");
        Self {
            answerer,
            job,
            number: 1,
            told: vec![1, 2, 3, 4, 5, 6],
        }
    }

    /// The reply to a packet: the error, and what follows the header.
    fn send(&mut self, packet: &[u8]) -> Option<(i32, &[u8])> {
        let reply = self.answerer.answer(packet)?;
        let (header, body) = reply.split_first_chunk::<REPLY>().expect("a header");
        let word = |at: usize| header[at..at + 4].try_into().map(u32::from_ne_bytes);
        let (length, error) = (word(0).expect("a word"), word(4).expect("a word") as i32);
        assert_eq!(length as usize, reply.len(), "a reply says how long it is");
        assert!((-4095..=0).contains(&error), "{error}");
        assert!(error == 0 || body.is_empty(), "an error and nothing else");
        Some((error, body))
    }

    /// Asks for one operation.
    fn ask(&mut self, opcode: u32, node: u64, pid: u32, body: &[u8]) -> Option<(i32, &[u8])> {
        self.number += 1;
        self.send(&request(opcode, self.number, node, pid, body))
    }

    /// Looks whether all is well.
    fn end(self) {
        let report = self.job.report(false, BTreeMap::new()).expect("a view");
        assert_eq!(report.failure, None);
        self.job.check_invariants().expect("a sound view");
    }
}

fn request(opcode: u32, unique: u64, node: u64, pid: u32, body: &[u8]) -> Vec<u8> {
    let length = (REQUEST + body.len()) as u32;
    let mut packet = Vec::with_capacity(length as usize);
    packet.extend_from_slice(&length.to_ne_bytes());
    packet.extend_from_slice(&opcode.to_ne_bytes());
    packet.extend_from_slice(&unique.to_ne_bytes());
    packet.extend_from_slice(&node.to_ne_bytes());
    for word in [0, 0, pid, 0] {
        packet.extend_from_slice(&u32::to_ne_bytes(word));
    }
    packet.extend_from_slice(body);
    packet
}

/// Packets of any bytes, of which the header's length is right more often than not.
pub(super) fn packets(bytes: &[u8]) {
    let mut served = Served::new(InputPolicy::CopyOnWrite);
    let mut bytes = Bytes(bytes);
    for _ in 0..16 {
        if bytes.0.is_empty() {
            break;
        }
        let repair = bytes.byte() % 8 != 0;
        let mut packet = bytes.some().to_vec();
        if repair && packet.len() >= REQUEST {
            let length = packet.len() as u32;
            packet[..4].copy_from_slice(&length.to_ne_bytes());
            packet[5..8].fill(0);
        }
        served.send(&packet);
    }
    served.end();
}

/// How the body of an operation is made.
enum Part {
    /// A number of 32 bits.
    Word,
    /// A small one.
    Small,
    /// An inode.
    Node,
    /// An offset or a length, of 64 bits but not too far.
    Place,
    /// Zeros.
    Zeros(usize),
    /// A name and its NUL.
    Name,
    /// Its length, four words of nothing, and some data: a write's end.
    Data,
}

/// Operations, by their numbers and what follows the header.
const OPERATIONS: &[(u32, &[Part])] = {
    use Part::{Data, Name, Node, Place, Small, Word, Zeros};
    &[
        (LOOKUP, &[Name]),
        (FORGET, &[Small, Zeros(4)]),
        (3, &[Word, Zeros(4), Node]),
        (
            4,
            &[
                Small,
                Zeros(4),
                Node,
                Place,
                Zeros(8),
                Place,
                Place,
                Place,
                Word,
                Word,
                Word,
                Word,
                Zeros(4),
                Word,
                Word,
                Zeros(4),
            ],
        ),
        (5, &[]),
        (6, &[Name, Name]),
        (8, &[Word, Word, Small, Zeros(4), Name]),
        (9, &[Word, Small, Name]),
        (10, &[Name]),
        (11, &[Name]),
        (12, &[Node, Name, Name]),
        (13, &[Node, Name]),
        (14, &[Word, Zeros(4)]),
        (15, &[Node, Place, Word, Word, Zeros(8), Word, Zeros(4)]),
        (16, &[Node, Place, Data]),
        (17, &[]),
        (18, &[Node, Word, Word, Zeros(8)]),
        (20, &[Node, Small, Zeros(4)]),
        (21, &[Small, Small, Small, Zeros(4), Name, Name]),
        (22, &[Word, Zeros(4), Name]),
        (23, &[Word, Zeros(4)]),
        (24, &[Name]),
        (25, &[Node, Zeros(16)]),
        (27, &[Word, Zeros(4)]),
        (28, &[Node, Place, Word, Word, Zeros(8), Word, Zeros(4)]),
        (29, &[Node, Word, Word, Zeros(8)]),
        (30, &[Node, Small, Zeros(4)]),
        (34, &[Word, Zeros(4)]),
        (35, &[Word, Word, Small, Zeros(4), Name]),
        (36, &[Place]),
        (38, &[]),
        (39, &[Node, Word, Word, Zeros(8), Small, Small, Name]),
        (BATCH_FORGET, &[Small, Zeros(4), Node, Place, Node, Place]),
        (43, &[Node, Place, Place, Small, Zeros(4)]),
        (44, &[Node, Place, Word, Word, Zeros(8), Word, Zeros(4)]),
        (45, &[Node, Small, Zeros(4), Name, Name]),
        (46, &[Node, Place, Small, Zeros(4)]),
        (47, &[Node, Place, Node, Node, Place, Place, Zeros(8)]),
        (50, &[Zeros(8)]),
        (51, &[Word, Word, Small, Zeros(4), Name]),
        (52, &[Word, Zeros(4), Node, Word, Word]),
    ]
};

/// Those that ask nothing of the inode.
const OF_NO_INODE: [u32; 9] = [17, 18, 25, 29, 30, 36, 38, 39, 50];

/// Inodes that nobody was ever told of begin here.
const INVENTED: u64 = 1 << 40;

fn push(part: &Part, bytes: &mut Bytes<'_>, told: &[u64], body: &mut Vec<u8>) {
    const NAMES: [&[u8]; 8] = [b"a", b"b", b"dir", b"file", b"own", b"..", b".", b""];
    match part {
        Part::Word => body.extend_from_slice(&(bytes.number() as u32).to_ne_bytes()),
        Part::Small => body.extend_from_slice(&u32::from(bytes.byte()).to_ne_bytes()),
        Part::Node => body.extend_from_slice(&node(bytes, told).to_ne_bytes()),
        // What is far away costs memory in some places, and time in others.
        Part::Place => body.extend_from_slice(&(bytes.number() % (1 << 22)).to_ne_bytes()),
        Part::Zeros(count) => body.resize(body.len() + count, 0),
        Part::Name => {
            match bytes.byte() {
                choice @ 0..32 => body.extend_from_slice(NAMES[usize::from(choice % 8)]),
                _ => body.extend(bytes.some().iter().filter(|byte| **byte != 0)),
            }
            body.push(0);
        }
        Part::Data => {
            let data = bytes.some();
            body.extend_from_slice(&(data.len() as u32).to_ne_bytes());
            body.resize(body.len() + 20, 0);
            body.extend_from_slice(data);
        }
    }
}

fn node(bytes: &mut Bytes<'_>, told: &[u64]) -> u64 {
    match bytes.byte() {
        choice @ 0..224 => told[usize::from(choice) % told.len()],
        224..240 => bytes.byte().into(),
        _ => bytes.number() | INVENTED,
    }
}

/// Operations one after the other, each on what replies have told of, or on what nobody has.
pub(super) fn operations(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let policy = match bytes.byte() % 2 {
        0 => InputPolicy::ReadOnly,
        _ => InputPolicy::CopyOnWrite,
    };
    let mut served = Served::new(policy);
    for _ in 0..64 {
        if bytes.0.is_empty() {
            break;
        }
        let (opcode, parts) = OPERATIONS[usize::from(bytes.byte()) % OPERATIONS.len()];
        let node = node(&mut bytes, &served.told);
        let pid = 1 + u32::from(bytes.byte() % 4);
        let mut body = Vec::new();
        for part in parts {
            push(part, &mut bytes, &served.told, &mut body);
        }
        let Some((error, out)) = served.ask(opcode, node, pid, &body) else {
            continue;
        };
        let told = out
            .first_chunk::<8>()
            .map(|first| u64::from_ne_bytes(*first));
        let told = told.filter(|_| out.len() >= 16);
        if node >= INVENTED && !OF_NO_INODE.contains(&opcode) {
            assert_ne!(
                error, 0,
                "operation {opcode} on an inode that nobody was told of"
            );
        }
        served.told.extend(told);
    }
    served.end();
}
