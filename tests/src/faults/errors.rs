//! A store whose file system fails at one operation after the other, or is full at one level after
//! the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cas::{Digest, Store};
use serde_json::{Value, json};

use super::disk::{Disk, Fault};
use crate::{Outcome, Place};

/// Longer than any job here takes, with a daemon that has to be found stuck.
const LIMIT: Duration = Duration::from_secs(30);

/// What jobs make of a store that fails. To be used in a mount namespace of its own.
#[derive(Debug)]
pub struct Errors<'p> {
    place: &'p Place,
    /// Where the file system is mounted that fails.
    mount: PathBuf,
    disk: Option<Disk>,
    number: u64,
    tally: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

/// A store on it, from outside.
const STORE: &str = "store";

impl<'p> Errors<'p> {
    /// Prepares a place.
    pub fn new(place: &'p Place) -> Self {
        let mount = place.root().join("disk");
        std::fs::create_dir(&mount).expect("a mount point");
        Self {
            place,
            mount,
            disk: None,
            number: 0,
            tally: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    /// Lets every operation fail that a job needs of its store, one in each job, or it and all after
    /// it; of these only every `stride`-th. Returns figures.
    ///
    /// # Errors
    /// What must not be: an end that is not told, a store that is not sound, a job after it that
    /// fails.
    pub fn at_every_operation(mut self, stride: u64) -> Result<String, String> {
        let below = self.place.root().join("below");
        std::fs::create_dir(&below).expect("a directory");
        let disk = Disk::mount(&below, &self.mount).map_err(|error| error.to_string())?;
        self.disk = Some(disk.clone());
        self.prepare();
        for staging in ["keep", "discard"] {
            for (errno, only_room) in [(libc::EIO, false), (libc::ENOSPC, true)] {
                for count in [1, u64::MAX] {
                    let fault = |from| Fault {
                        errno,
                        from,
                        count,
                        only_room,
                    };
                    disk.set_fault(Some(fault(u64::MAX)));
                    let operations = self.job(staging, "unharmed");
                    for from in (self.number % stride..operations).step_by(stride as usize) {
                        disk.set_fault(Some(fault(from)));
                        let what = format!("errno {errno} x {}", count.min(2));
                        self.job(staging, &what);
                        self.job(staging, "after it");
                    }
                }
            }
        }
        let figures = self.conclude();
        let _ = rustix::mount::unmount(&self.mount, rustix::mount::UnmountFlags::DETACH);
        figures
    }

    /// Runs jobs on a file system with less and less room. Returns figures.
    ///
    /// # Errors
    /// As above.
    pub fn at_every_level(mut self, levels: u64) -> Result<String, String> {
        let none = rustix::mount::MountFlags::empty();
        let size = 3 << 20;
        let options = std::ffi::CString::new(format!("size={size}")).expect("no NUL");
        let mounted = rustix::mount::mount("full", &self.mount, "tmpfs", none, Some(&*options));
        mounted.map_err(|error| error.to_string())?;
        self.prepare();
        let ballast = self.mount.join("ballast");
        for level in 0..levels {
            for staging in ["keep", "discard"] {
                let _ = std::fs::remove_file(&ballast);
                self.job(staging, "unharmed");
                self.place
                    .call(["gc", "--store", &self.store(), "--max-size", "0"]);
                let free =
                    rustix::fs::statvfs(&self.mount).map_or(0, |is| is.f_bavail * is.f_frsize);
                let filled = free.saturating_sub(level * (1 << 20) / levels);
                std::fs::write(&ballast, vec![1; filled as usize]).expect("what is free");
                self.job(staging, "full");
            }
        }
        let _ = std::fs::remove_file(&ballast);
        let figures = self.conclude();
        let _ = rustix::mount::unmount(&self.mount, rustix::mount::UnmountFlags::DETACH);
        figures
    }

    fn store(&self) -> String {
        self.mount.join(STORE).to_string_lossy().into_owned()
    }

    fn prepare(&self) {
        Store::open_own(self.mount.join(STORE).as_path()).expect("a store");
    }

    /// A job that reads an input and makes outputs of several kinds, and that ends with 9 if it is
    /// refused something. Then the file system is well again. Returns the operations it has seen.
    fn job(&mut self, staging: &str, what: &str) -> u64 {
        self.number += 1;
        let number = self.number;
        self.place.write("in", format!("input of {}", number / 3));
        let script = format!(
            "exec 2> /dev/null; {{ cat in && echo {number} > a && mkdir d && ln a d/b && mv a d/c && \
             head -c 300000 /dev/zero > big && echo {number} >> big && chmod 600 big && ls -l d; }} || exit 9"
        );
        let mut spec = self.place.spec(&script);
        spec["cas-dir"] = json!(self.store());
        spec["visible"] = json!(["in"]);
        spec["staging"] = json!(staging);
        let (spec_file, result) = (
            self.place.root().join("spec.json"),
            self.place.root().join("result.json"),
        );
        let _ = std::fs::remove_file(&result);
        std::fs::write(&spec_file, spec.to_string()).expect("a spec");
        let mut command = self.place.command(["-p"]);
        command.arg(&spec_file).arg("-o").arg(&result);
        let begun = Instant::now();
        let output = command.stdin(Stdio::null()).output().expect("starts");
        let operations = self.disk.as_ref().map_or(0, Disk::operations);
        self.disk.iter().for_each(|disk| disk.set_fault(None));
        let document = std::fs::read(&result).ok();
        let document = document.map(|text| serde_json::from_slice::<Value>(&text));
        let took = begun.elapsed();
        let end = self.judge(&Outcome(output), document, took > LIMIT, what);
        *self.tally.entry(format!("{what}: {end}")).or_default() += 1;
        operations
    }

    fn judge(
        &mut self,
        outcome: &Outcome,
        document: Option<serde_json::Result<Value>>,
        late: bool,
        what: &str,
    ) -> &'static str {
        let told = outcome.stderr();
        let is_line = told.starts_with("wakebox: ") && told.lines().count() == 1;
        let harmless = what == "unharmed" || what == "after it";
        let end = match (outcome.code(), &document) {
            (0, Some(Ok(document))) if document["sandbox-error"].is_null() => "succeeded",
            (9, Some(Ok(document))) if !harmless && document["sandbox-error"].is_null() => {
                "the job was told"
            }
            (125, Some(Ok(document)))
                if !harmless && is_line && document["sandbox-error"].is_object() =>
            {
                "the caller was told"
            }
            _ => "WRONG",
        };
        let mut wrong = Vec::new();
        if end == "WRONG" || late {
            wrong.push(format!("{} {:?}", outcome.code(), document));
        }
        if let Some(Ok(document)) = &document {
            wrong.extend(self.check(document, end));
        }
        let number = self.number;
        let wrong = wrong
            .iter()
            .map(|wrong| format!("job {number}, {what}: {wrong}; {told}"));
        self.wrong.extend(wrong.take(3));
        end
    }

    /// Looks at what a result names, when the file system is well again, and takes it.
    fn check(&self, document: &Value, end: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let empty = serde_json::Map::new();
        let hashed = document["hashed_files"].as_object().unwrap_or(&empty);
        let names: Vec<_> = hashed.keys().map(String::as_str).collect();
        if end == "succeeded" && names != ["big", "d", "d/b", "d/c"] {
            wrong.push(format!("outputs {names:?}"));
        }
        if let Some(root) = document["staging_root"].as_str() {
            let _ = std::fs::remove_dir_all(self.place.workspace().join(root));
        }
        // Through the directory below, which does not fail.
        let below = self.place.root().join("below");
        let root = if below.exists() { &below } else { &self.mount };
        let store = Store::open(&root.join(STORE)).expect("the store");
        for (path, entry) in hashed.iter().filter(|(_, entry)| entry["type"] == "file") {
            let hash = entry["hash"].as_str().unwrap_or_default();
            let digest: Result<Digest, _> = hash.parse();
            match digest.map(|digest| store.verify(digest)) {
                Ok(Ok(size)) if entry["size"] == size => {}
                other => wrong.push(format!("{path}: {other:?}")),
            }
        }
        wrong
    }

    fn conclude(&self) -> Result<String, String> {
        let mut wrong = self.wrong.clone();
        let store = self.store();
        let fsck = self
            .place
            .call(["fsck", "--foreign", "--quiet", "--store", &store]);
        if fsck.code() != 0 {
            wrong.push(format!("fsck: {}{}", fsck.stdout(), fsck.stderr()));
        }
        std::thread::sleep(Duration::from_millis(1100));
        let arguments = ["gc", "--foreign", "--older-than", "1s", "--store", &store];
        let gc = self.place.call(arguments);
        let staging = self.mount.join(STORE).join("staging");
        let left: Vec<_> = std::fs::read_dir(staging)
            .expect("listed")
            .flatten()
            .collect();
        if gc.code() != 0 || !left.is_empty() {
            wrong.push(format!("gc: {}{left:?}", gc.stderr()));
        }
        match wrong.is_empty() {
            true => Ok(format!("{:#?}", self.tally)),
            false => Err(format!("{wrong:#?}\n{:#?}", self.tally)),
        }
    }
}
