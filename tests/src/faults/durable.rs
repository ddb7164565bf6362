//! What `--durable` has flushed when the result appears, and when the call has ended.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::disk::{Disk, Unflushed};
use crate::Place;

/// Calls on a file system that knows what a power failure would take, in a mount namespace of its
/// own.
#[derive(Debug)]
pub struct Durable<'p> {
    place: &'p Place,
    mount: PathBuf,
    disk: Disk,
}

impl<'p> Durable<'p> {
    /// Mounts one.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn new(place: &'p Place) -> std::io::Result<Self> {
        let (below, mount) = (place.root().join("below"), place.root().join("disk"));
        std::fs::create_dir(&below)?;
        std::fs::create_dir(&mount)?;
        let disk = Disk::mount(&below, &mount)?;
        Ok(Self { place, mount, disk })
    }

    /// A batch job with everything on that file system. Returns what of it a power failure would
    /// take: at the moment when the result appears, and at the end.
    ///
    /// # Panics
    /// The job fails.
    pub fn batch(&self, change: &Value) -> Vec<String> {
        let workspace = self.mount.join("workspace");
        let _ = std::fs::create_dir(&workspace);
        let script = "echo same > same; head -c 100000 /dev/urandom > new; mkdir d; ln new d/link";
        let mut spec = self.place.spec(script);
        spec["cas-dir"] = json!("deep/store");
        for (key, value) in change.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        std::fs::write(workspace.join("spec.json"), spec.to_string()).expect("a spec");
        self.disk.watch("result.json");
        let mut command = self.place.command(["-p", "spec.json", "-o", "result.json"]);
        let output = command.current_dir(&workspace).output().expect("starts");
        assert!(output.status.success(), "{output:?}");
        let named = self.named(&workspace);
        let before = self.disk.at_watched().expect("the result appeared");
        let after = self.disk.unflushed();
        let mut lost = self.lost(&before, &named, "before the result");
        let result = workspace.join("result.json");
        if before.has_bytes(&result) {
            lost.push("before its name: the result".into());
        }
        let all = named.into_iter().chain([result]);
        lost.extend(self.lost(&after, &all.collect::<Vec<_>>(), "at the end"));
        lost
    }

    /// `run --durable`: the outputs that it has published, too.
    ///
    /// # Panics
    /// The job fails.
    pub fn run(&self, arguments: &[&str]) -> Vec<String> {
        let workspace = self.mount.join("at-shell");
        let _ = std::fs::create_dir(&workspace);
        let store = self.mount.join("run/store");
        let mut command = self.place.command(["run", "--quiet", "--store"]);
        let command = command.arg(store).args(arguments).current_dir(&workspace);
        let script = "mkdir -p new/deep; date +%N > new/deep/out";
        let output = command
            .args(["--", "sh", "-c", script])
            .output()
            .expect("starts");
        assert!(output.status.success(), "{output:?}");
        let published = workspace.join("new/deep/out");
        self.lost(&self.disk.unflushed(), &[published], "at the end")
    }

    fn lost(&self, unflushed: &Unflushed, named: &[PathBuf], when: &str) -> Vec<String> {
        let lost = named.iter().flat_map(|path| {
            let bytes = unflushed.has_bytes(path).then_some(("bytes", &**path));
            let name = unflushed.name(path, &self.mount).map(|path| ("name", path));
            let lost = bytes.into_iter().chain(name);
            lost.map(|(what, path)| format!("{when}: the {what} of {}", path.display()))
        });
        lost.collect()
    }

    /// All files that a result names.
    fn named(&self, workspace: &Path) -> Vec<PathBuf> {
        let text = std::fs::read(workspace.join("result.json")).expect("a result");
        let result: Value = serde_json::from_slice(&text).expect("JSON");
        let hashed = result["hashed_files"].as_object().into_iter().flatten();
        let adopted = hashed.filter(|(_, entry)| entry["adopted"] != false);
        let hashes = adopted.filter_map(|(_, entry)| entry["hash"].as_str());
        let blobs = hashes.map(|hash| {
            let blobs = workspace.join("deep/store/blobs");
            blobs.join(&hash[..2]).join(&hash[2..])
        });
        let staged = result["staging_files"].as_object().into_iter().flatten();
        let staged = staged.filter_map(|(_, entry)| entry["staging_path"].as_str());
        blobs
            .chain(staged.map(|path| workspace.join(path)))
            .collect()
    }
}

impl Drop for Durable<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.mount, rustix::mount::UnmountFlags::DETACH);
    }
}
