//! A panic in the answer to one job's request, with a pair of sockets for a device.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use cas::Store;
use cas::manifest::Resolved;
use cas::tree::Tree;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use zerocopy::FromZeros;

use super::super::abi::opcode;
use super::super::dispatch::PANIC;
use super::*;
use crate::view::{Caller, InputPolicy, Time};

/// A job without inputs, and its kernel.
struct Served {
    kernel: OwnedFd,
    job: Arc<Job>,
    session: Session,
}

fn serve_one(store: &Arc<Store>) -> Served {
    let staging = store.new_staging("job").unwrap();
    let inputs = Resolved {
        tree: Tree::build(Vec::new()).unwrap(),
        writable: Vec::new(),
    };
    let time = Time {
        seconds: 0,
        nanoseconds: 0,
    };
    let (policy, owner) = (InputPolicy::ReadOnly, Caller { uid: 0, gid: 0 });
    let job = Job::new(store.clone(), staging, &inputs, policy, owner, time).unwrap();
    let job = Arc::new(job);
    let flags = SocketFlags::CLOEXEC;
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let (kernel, device) = pair.unwrap();
    let offer = abi::InitIn {
        major: abi::MAJOR,
        minor: abi::MINOR,
        max_readahead: 0,
        flags: 0,
    };
    send(&kernel, opcode::INIT, offer.as_bytes());
    let session = serve(job.clone(), device, None, false).unwrap();
    receive(&kernel);
    Served {
        kernel,
        job,
        session,
    }
}

fn send(kernel: &OwnedFd, opcode: u32, body: &[u8]) {
    let mut header = abi::InHeader::new_zeroed();
    header.len = (size_of::<abi::InHeader>() + body.len()) as u32;
    (header.opcode, header.nodeid, header.unique, header.pid) = (opcode, 1, 7, 2);
    let packet = [header.as_bytes(), body].concat();
    rustix::net::send(kernel, &packet, SendFlags::NOSIGNAL).unwrap();
}

/// The error of a reply.
fn receive(kernel: &OwnedFd) -> i32 {
    let mut reply = [0; 4096];
    rustix::net::recv(kernel, &mut reply, RecvFlags::empty()).unwrap();
    let [.., a, b, c, d] = *reply.first_chunk::<8>().unwrap();
    i32::from_ne_bytes([a, b, c, d])
}

impl Served {
    fn lookup(&self, name: &[u8]) -> i32 {
        send(&self.kernel, opcode::LOOKUP, &[name, b"\0"].concat());
        receive(&self.kernel)
    }

    fn failure(&self) -> Option<String> {
        let requests = BTreeMap::new();
        self.job.report(false, requests).unwrap().failure
    }

    fn end(self) {
        drop(self.kernel);
        assert!(self.session.wait(Duration::from_secs(10)));
    }
}

#[test]
fn a_panic_costs_its_own_job_the_result_and_nobody_else_anything() {
    let place = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(place.path()).unwrap());
    let (bad, good) = (serve_one(&store), serve_one(&store));
    assert_eq!((bad.lookup(b"a"), good.lookup(b"a")), (0, 0));
    // More of them than there are threads, each of which goes on.
    for _ in 0..20 {
        assert_eq!(bad.lookup(PANIC), -libc::EIO);
    }
    assert_eq!((bad.lookup(b"b"), good.lookup(b"b")), (0, 0));
    let failure = bad.failure().unwrap();
    assert!(failure.contains("panicked"), "{failure}");
    assert_eq!(good.failure(), None);
    let another = serve_one(&store);
    assert_eq!(another.lookup(b"a"), 0);
    for served in [bad, good, another] {
        served.end();
    }
}
