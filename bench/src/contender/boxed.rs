//! A program with the batch contract: `PATH -p SPEC -o RESULT`, inputs named by hash.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use cas::{Digest, Store};
use serde::Serialize;
use serde_json::Value;

use super::{Contender, ENVIRONMENT, Outputs, Stage, hash_below, remove, silent, succeed};
use crate::Result;
use crate::disk::{Disk, output};
use crate::tree::{Input, Tree};
use crate::workload::{Job, Task};

#[derive(Debug)]
pub(crate) struct Boxed {
    name: String,
    program: PathBuf,
    /// Where its sockets are: its daemons are its own.
    runtime: PathBuf,
    /// The current directory of jobs, empty but for the store.
    workspace: PathBuf,
    /// Where specs and results lie.
    papers: PathBuf,
    filled: Mutex<Filled>,
}

/// What has been put into the store.
#[derive(Debug, Default)]
struct Filled {
    trees: HashSet<PathBuf>,
    blobs: HashSet<Digest>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Spec<'a> {
    command: &'a [String],
    environment: Vec<String>,
    visible: Vec<Visible<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_root: Option<&'a str>,
    cas_dir: &'a Path,
    staging: &'static str,
    mount_ops: [MountOp; 1],
}

#[derive(Serialize)]
struct Visible<'a> {
    path: &'a str,
    r#type: &'static str,
    hash: String,
    mode: u32,
    mtime: i64,
}

#[derive(Serialize)]
struct MountOp {
    r#type: &'static str,
    destination: &'static str,
}

impl Boxed {
    pub(crate) fn new(name: String, program: PathBuf, disk: &Disk) -> Result<Self> {
        let place = format!("box-{name}");
        Ok(Self {
            runtime: disk.make(&format!("{place}/run"))?,
            workspace: disk.make(&format!("{place}/workspace"))?,
            papers: disk.make(&format!("{place}/papers"))?,
            name,
            program,
            filled: Mutex::default(),
        })
    }

    fn store(&self) -> PathBuf {
        self.workspace.join(".build/cas")
    }

    /// Puts a tree's files into the store, as further names: one page cache for all contenders.
    fn fill(&self, tree: &Tree) -> Result<()> {
        let mut filled = self.filled.lock().map_err(|_| "poisoned")?;
        if !filled.trees.insert(tree.root.clone()) {
            return Ok(());
        }
        fs::create_dir_all(self.store())?;
        let store = Store::open(&self.store())?;
        for input in &tree.files {
            let path = store.path(input.digest);
            fs::create_dir_all(path.parent().ok_or("a parent")?)?;
            match fs::hard_link(tree.root.join(&input.path), &path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
                _ => filled.blobs.insert(input.digest),
            };
        }
        Ok(())
    }

    /// The batch call.
    fn invoke(&self, spec: &Path, result: &Path, stdout: &Path) -> Result<()> {
        let mut command = self.own(&["-p"]);
        command.arg(spec).arg("-o").arg(result);
        silent(&mut command, stdout)?;
        succeed(command, stdout)
    }

    fn write_spec(&self, path: &Path, command: &[String], inputs: Inputs<'_>) -> Result<()> {
        let spec = Spec {
            command,
            environment: ENVIRONMENT
                .map(|(key, value)| format!("{key}={value}"))
                .to_vec(),
            visible: inputs
                .files
                .iter()
                .enumerate()
                .map(|(i, file)| visible(file, i, inputs.salt))
                .collect(),
            input_root: inputs.root,
            cas_dir: &self.store(),
            staging: "discard",
            mount_ops: [MountOp {
                r#type: "workspace",
                destination: ".",
            }],
        };
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, &spec)?;
        Ok(file.flush()?)
    }

    /// Runs a job by a spec that says all but where the store is.
    pub(crate) fn run_spec(&self, tree: &Tree, mut spec: Value, printed: &Path) -> Result<Ran> {
        self.fill(tree)?;
        self.warm()?;
        spec["cas-dir"] = self.store().to_str().ok_or("a path in UTF-8")?.into();
        let paper = |name: &str| self.papers.join(name);
        fs::write(paper("own-spec.json"), spec.to_string())?;
        let _ = fs::remove_file(paper("own-result.json"));
        let started = Instant::now();
        self.invoke(&paper("own-spec.json"), &paper("own-result.json"), printed)?;
        let took = started.elapsed().as_nanos() as f64;
        let result: Value = serde_json::from_slice(&fs::read(paper("own-result.json"))?)?;
        let mut outputs = BTreeMap::new();
        for (path, digest) in hashed(&result)? {
            let size = fs::metadata(Store::open(&self.store())?.path(digest))?.len();
            outputs.insert(path, (digest, size));
        }
        let digests = outputs
            .iter()
            .map(|(path, (digest, _))| (path.clone(), *digest));
        self.forget(&digests.collect())?;
        Ok(Ran { took, outputs })
    }

    /// Outputs leave the store again: each round is to find them new.
    fn forget(&self, outputs: &Outputs) -> Result<()> {
        let filled = self.filled.lock().map_err(|_| "poisoned")?;
        let store = Store::open(&self.store())?;
        for digest in outputs
            .values()
            .filter(|digest| !filled.blobs.contains(digest))
        {
            let _ = fs::remove_file(store.path(*digest));
        }
        Ok(())
    }

    /// The program with these words; most are subcommands of wakebox's own.
    fn own(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .current_dir(&self.workspace);
        command
    }

    /// The digest under which the store knows a whole tree.
    fn import(&self, tree: &Tree) -> Result<String> {
        let mut command = self.own(&["cas", "--store"]);
        command.arg(self.store()).arg("import").arg(&tree.root);
        let said = output(&mut command).map_err(|error| format!("trees by digest: {error}"))?;
        Ok(said
            .split_whitespace()
            .next()
            .ok_or("no digest")?
            .to_owned())
    }

    /// The process that serves the jobs, if it is one of wakebox's daemons.
    pub(crate) fn daemon(&self) -> Result<u32> {
        let said = output(&mut self.own(&["status", "--json"]))?;
        let all: Value = serde_json::from_str(&said)?;
        let pid = all[0]["daemon"]["pid"]
            .as_u64()
            .ok_or("status names no daemon")?;
        Ok(u32::try_from(pid)?)
    }

    /// Runs a job that does nothing: it starts the daemon if there is none.
    fn warm(&self) -> Result<()> {
        let spec = self.papers.join("warm.json");
        let nothing = Inputs {
            files: &[],
            root: None,
            salt: 0,
        };
        self.write_spec(&spec, &["true".to_owned()], nothing)?;
        let said = self.papers.join("warm-said");
        self.invoke(&spec, &self.papers.join("warm-result.json"), &said)
    }
}

/// A job that has run.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Nanoseconds, from the call to its end.
    pub(crate) took: f64,
    /// What it made, with sizes in bytes.
    pub(crate) outputs: BTreeMap<String, (Digest, u64)>,
}

/// The files that a result names by hash.
fn hashed(result: &Value) -> Result<Outputs> {
    let mut all = Outputs::new();
    for (path, file) in result["hashed_files"].as_object().into_iter().flatten() {
        if let Some(hash) = file["hash"].as_str().filter(|_| file["type"] == "file") {
            all.insert(path.clone(), hash.parse()?);
        }
    }
    Ok(all)
}

/// What a spec declares.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    files: &'a [&'a Input],
    root: Option<&'a str>,
    /// Added to the first file's time, in nanoseconds.
    salt: i64,
}

/// The first file's time is salted: so the manifest is one that no daemon has seen.
fn visible(input: &Input, i: usize, salt: i64) -> Visible<'_> {
    Visible {
        path: &input.path,
        r#type: "file",
        hash: input.digest.to_string(),
        mode: input.mode,
        mtime: input.mtime + if i == 0 { salt } else { 0 },
    }
}

impl Contender for Boxed {
    fn name(&self) -> &str {
        &self.name
    }

    fn begin<'a>(&'a self, task: &'a Task, round: usize) -> Result<Box<dyn Stage + 'a>> {
        self.fill(&task.tree)?;
        let root = task
            .by_digest
            .then(|| self.import(&task.tree))
            .transpose()?;
        let salt = if task.fresh { round as i64 + 1 } else { 0 };
        let ready = Ready { owner: self };
        for (number, job) in task.jobs.iter().enumerate() {
            let spec = ready.spec(number);
            let same_as_before = round > 0 && salt == 0;
            if same_as_before && spec.exists() {
                continue;
            }
            let _ = fs::remove_file(&spec);
            // Jobs of one kind share a spec.
            if number > 0 && job == &task.jobs[number - 1] {
                fs::hard_link(ready.spec(number - 1), &spec)?;
                continue;
            }
            let files = match root {
                Some(_) => Vec::new(),
                None => task.tree.chosen(job.inputs.as_ref()),
            };
            let inputs = Inputs {
                files: &files,
                root: root.as_deref(),
                salt,
            };
            self.write_spec(&spec, &job.command, inputs)?;
        }
        self.warm()?;
        if !task.fresh {
            // What is measured again has to have been seen once.
            ready.run(0, &task.jobs[0], Path::new("/dev/null"))?;
            ready.outputs(0, &task.jobs[0])?;
        }
        Ok(Box::new(ready))
    }

    /// Ends the daemon, if it is one of wakebox's, and empties the store.
    fn stop(&self) {
        let mut command = self.own(&["daemon", "--stop", "--store"]);
        let _ = command
            .arg(self.store())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = remove(&self.workspace.join(".build"));
        if let Ok(mut filled) = self.filled.lock() {
            *filled = Filled::default();
        }
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Ready<'a> {
    owner: &'a Boxed,
}

impl Ready<'_> {
    fn spec(&self, number: usize) -> PathBuf {
        self.owner.papers.join(format!("spec-{number}.json"))
    }

    fn result_path(&self, number: usize) -> PathBuf {
        self.owner.papers.join(format!("result-{number}.json"))
    }

    fn result(&self, number: usize) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(
            self.result_path(number),
        )?)?)
    }

    /// Staged files of a program that does not hash them; their directory is removed.
    fn staged(&self, result: &Value) -> Result<Outputs> {
        let mut all = Outputs::new();
        for (path, file) in result["staging_files"].as_object().into_iter().flatten() {
            if let Some(staging) = file["staging_path"].as_str() {
                hash_below(&self.owner.workspace.join(staging), path, &mut all)?;
            }
        }
        if let Some(root) = result["staging_root"].as_str() {
            remove(&self.owner.workspace.join(root))?;
        }
        Ok(all)
    }
}

impl Stage for Ready<'_> {
    fn run(&self, number: usize, _job: &Job, stdout: &Path) -> Result<()> {
        let (spec, result) = (self.spec(number), self.result_path(number));
        self.owner.invoke(&spec, &result, stdout)
    }

    fn outputs(&self, number: usize, job: &Job) -> Result<Outputs> {
        let result = self.result(number)?;
        let mut all = self.staged(&result)?;
        all.extend(hashed(&result)?);
        self.owner.forget(&all)?;
        let asked = |path: &String| {
            job.outputs
                .iter()
                .any(|output| Path::new(path).starts_with(output))
        };
        all.retain(|path, _| asked(path));
        Ok(all)
    }

    fn round_trips(&self, number: usize) -> Option<Value> {
        self.result(number).ok()?.get("fuse-ops").cloned()
    }
}
