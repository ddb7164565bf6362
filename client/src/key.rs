//! The key of a job: one digest of all that it depends on.
//!
//! What is digested is text, one component in a line: its name, the length of its value in bytes, a
//! colon, the value. Lengths make it unambiguous whatever values hold. docs/batch.md has the list.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cas::manifest::{Declared, DeclaredKind};
use cas::protocol::CopyOnWrite;
use cas::{Digest, RelPath, Store};

use crate::batch;
use crate::cli::KeyArguments;
use crate::commands::print;
use crate::error::{Error, Result};
use crate::learn::{self, Surroundings};
use crate::mount_ops::MountOp;
use crate::spec::learned::Learned;
use crate::spec::{Input, Spec};

/// `wakebox key`.
pub fn run(arguments: &KeyArguments) -> Result<u8> {
    let (spec, learned) = learn::read_learned(&arguments.spec)?;
    let around = learn::surroundings(&arguments.spec, &spec, &learned)?;
    let key = Key::new(&spec, &inputs(&spec)?, &learned, &around);
    if arguments.text {
        let written = std::io::stdout().write_all(&key.0);
        written.map_err(|error| Error::io("write to", "standard output", error))?;
    } else {
        print(format_args!("{}", key.digest()))?;
    }
    Ok(0)
}

/// The declared inputs by content. The store is needed only for those that are named.
fn inputs(spec: &Spec) -> Result<Vec<Declared>> {
    let known = spec.visible.iter().map(|input| match input {
        Input::Declared(declared) => Some(declared.clone()),
        Input::Named(_) => None,
    });
    if let Some(known) = known.collect() {
        return Ok(known);
    }
    let here = std::env::current_dir();
    let here = here.map_err(|e| Error::io("find", "the current directory", e))?;
    let store = Store::open(&spec.store)?;
    let _hold = store.hold()?;
    batch::declared(spec.visible.clone(), &here, &store)
}

/// The text that a key is the digest of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// The text of a spec whose inputs are known by content, in surroundings.
    pub fn new(spec: &Spec, inputs: &[Declared], learned: &Learned, around: &Surroundings) -> Self {
        let mut key = Self(b"wakebox key 1\n".to_vec());
        for word in &spec.command {
            key.add("command", word.as_bytes());
        }
        key.add_environment(spec);
        key.add_place(spec);
        key.add_sandbox(spec);
        key.add_inputs(spec, inputs);
        key.add_surroundings(learned, around);
        key
    }

    /// The key.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.0.extend(format!("{name} {}:", value.len()).bytes());
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    fn add_some(&mut self, name: &str, value: Option<impl AsRef<OsStr>>) {
        if let Some(value) = value {
            self.add(name, value.as_ref().as_bytes());
        }
    }

    /// Sorted by name. Of variables with the same name only the order among themselves matters.
    fn add_environment(&mut self, spec: &Spec) {
        let name = |variable: &&std::ffi::OsString| {
            let bytes = variable.as_bytes();
            let end = bytes.iter().position(|byte| *byte == b'=');
            bytes[..end.unwrap_or(bytes.len())].to_vec()
        };
        let mut variables: Vec<_> = spec.environment.iter().collect();
        variables.sort_by_key(name);
        for variable in variables {
            self.add("environment", variable.as_bytes());
        }
    }

    fn add_place(&mut self, spec: &Spec) {
        self.add("directory", spec.directory.as_os_str().as_bytes());
        self.add_some("stdin", spec.stdin.as_ref());
        for op in &spec.mount_ops {
            self.add("mount", mount(op));
        }
    }

    fn add_sandbox(&mut self, spec: &Spec) {
        self.add_some("user-id", spec.user.0.map(|id| id.to_string()));
        self.add_some("group-id", spec.user.1.map(|id| id.to_string()));
        self.add_some("hostname", spec.namespaces.host_name.as_ref());
        self.add_some("domainname", spec.namespaces.domain_name.as_ref());
        self.add_some("isolate-network", spec.namespaces.network.then_some(""));
        self.add_some("isolate-pids", spec.isolate_pids.then_some(""));
        let mut limits: Vec<_> = spec.limits.iter().collect();
        limits.sort_by_key(|limit| limit.what.name());
        for limit in limits {
            let amount = |of: Option<u64>| of.map_or("unlimited".into(), |of| of.to_string());
            let (soft, hard) = (amount(limit.soft), amount(limit.hard));
            self.add("limit", format!("{} {soft} {hard}", limit.what.name()));
        }
    }

    /// Times are left out: what they are is mostly a matter of when somebody checked the files out.
    fn add_inputs(&mut self, spec: &Spec, inputs: &[Declared]) {
        self.add_some(
            "input-root",
            spec.input_root.map(|root| root.digest.to_string()),
        );
        match &spec.copy_on_write {
            CopyOnWrite::Nothing => {}
            CopyOnWrite::Everything => self.add("copy-on-write", "."),
            CopyOnWrite::Below(paths) => {
                for path in paths {
                    self.add("copy-on-write", path.as_bytes());
                }
            }
        }
        let mut entries: Vec<_> = inputs.iter().collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        for entry in entries {
            let (kind, digest) = match &entry.kind {
                DeclaredKind::File(digest) => ("f", digest.to_string()),
                DeclaredKind::WritableFile(digest) => ("w", digest.to_string()),
                DeclaredKind::Symlink(digest) => ("l", digest.to_string()),
                DeclaredKind::Directory => ("d", "-".into()),
            };
            let mut value = format!("{kind} {:04o} {digest} ", entry.mode).into_bytes();
            value.extend_from_slice(entry.path.as_bytes());
            self.add("input", value);
        }
    }

    /// As the spec has them, and as they are.
    fn add_surroundings(&mut self, learned: &Learned, around: &Surroundings) {
        let mut probes: Vec<&RelPath> = learned.probes.iter().collect();
        probes.sort();
        probes.dedup();
        for path in probes {
            let now: &[u8] = if around.has(path) {
                b"there "
            } else {
                b"absent "
            };
            self.add("probe", [now, path.as_bytes()].concat());
        }
        for (directory, then) in &learned.listed {
            let now = around.listing(directory.as_ref());
            let place = directory.as_ref().map_or(&b"."[..], RelPath::as_bytes);
            let digests = format!("{then} {now} ").into_bytes();
            self.add("listed", [&digests, place].concat());
        }
    }
}

fn mount(op: &MountOp) -> Vec<u8> {
    let (kind, source, destination) = match op {
        MountOp::Workspace { destination } => ("workspace", None, Some(destination)),
        MountOp::Bind {
            source,
            destination,
            read_only,
        } => {
            let kind = if *read_only { "bind-read-only" } else { "bind" };
            (kind, Some(source), Some(destination))
        }
        MountOp::Tmpfs { destination } => ("tmpfs", None, Some(destination)),
        MountOp::CreateDir { destination } => ("create-dir", None, Some(destination)),
        MountOp::CreateFile { destination } => ("create-file", None, Some(destination)),
        MountOp::Squashfs {
            source,
            destination,
        } => ("squashfs", Some(source), destination.as_ref()),
    };
    let path = |path: Option<&std::path::PathBuf>| {
        let bytes = path.map_or(&b""[..], |path: &std::path::PathBuf| {
            Path::as_os_str(path).as_bytes()
        });
        [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
    };
    [
        kind.as_bytes(),
        b" ",
        &path(source),
        b" ",
        &path(destination),
    ]
    .concat()
}
