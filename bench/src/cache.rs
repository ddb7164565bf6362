//! A compiler's cache among the inputs that a job may change: how long a build takes after one
//! source was changed, and how many bytes of the cache that changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use cas::Digest;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;

use crate::Result;
use crate::cli::Options;
use crate::contender::{Boxed, ENVIRONMENT, Outputs, boxes, hash_below, lacks, remove};
use crate::disk::{Disk, output};
use crate::measure::OURS;
use crate::row::{Cell, NATIVE, Row, Unit};
use crate::tree::{self, Tree};
use crate::workload::{CACHED_LIBRARY, cached_library, zstd};

/// Its name among the suites.
pub(crate) const SUITE: &str = "cache";

/// Builds, and says how often the cache was of use. Its notes of inodes are no part of it.
const BUILD: &str = "set -e; export CCACHE_DIR=$PWD/ccache CCACHE_NOINODECACHE=1 CCACHE_STATSLOG=$PWD/log; \
    make --silent -j$(nproc) >&2; grep -E '^(direct_cache_hit|preprocessed_cache_hit|cache_miss)$' log | \
    sort | uniq -c";

/// What a build has shown.
#[derive(Debug)]
struct Build {
    /// Nanoseconds.
    took: f64,
    /// Bytes of those files of the cache that are new or have changed.
    delta: f64,
    made: Made,
}

/// What every contender's build has to agree on.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    library: Option<Digest>,
    /// Hits and misses, as ccache prints them.
    said: String,
}

/// A tree with a filled cache, in which one source was changed since.
struct Base {
    tree: Tree,
    /// What the cache holds.
    cache: Outputs,
    place: PathBuf,
}

/// A contender, and what its builds have shown.
struct Shown {
    who: &'static str,
    builds: Vec<Build>,
    failure: Option<String>,
}

/// Runs the build under each contender that has such inputs, in turn.
pub(crate) fn measure(options: &Options, disk: &Disk) -> Result<Vec<Row>> {
    if let Some(missing) = lacks("ccache", "ccache") {
        println!("no compiler's cache: ccache is {missing}");
        return Ok(Vec::new());
    }
    let library = match zstd(options) {
        Ok(library) => library,
        Err(error) => {
            println!("no real C library to build: {error}");
            return Ok(Vec::new());
        }
    };
    let base = Base::new(&library, disk)?;
    let (name, program) = boxes(options)?.swap_remove(0);
    let boxed = Boxed::new(name, program, disk)?;
    let root = rustix::process::geteuid().is_root();
    let wanted = |who: &&str| match *who {
        NATIVE => true,
        "overlayfs" if !root => false,
        who => options.only.is_empty() || options.only.iter().any(|only| only == who),
    };
    let mut all: Vec<_> = [NATIVE, "overlayfs", OURS]
        .into_iter()
        .filter(wanted)
        .map(Shown::new)
        .collect();
    for _ in 0..options.rounds {
        for shown in all.iter_mut().filter(|shown| shown.failure.is_none()) {
            shown.add(match shown.who {
                NATIVE => base.natively(),
                OURS => base.in_view(&boxed),
                _ => base.on_overlay(),
            });
        }
    }
    Ok(rows(&all))
}

fn rows(all: &[Shown]) -> Vec<Row> {
    let row = |name: &str, unit, figure: fn(&Build) -> f64| Row {
        suite: SUITE.to_owned(),
        name: name.to_owned(),
        unit,
        cells: all
            .iter()
            .map(|shown| shown.cell(figure, &all[0]))
            .collect(),
    };
    vec![
        row("build with ccache after one change", Unit::Ns, |build| {
            build.took
        }),
        row(
            "ccache, bytes that the build changed",
            Unit::Bytes,
            |build| build.delta,
        ),
    ]
}

impl Shown {
    fn new(who: &'static str) -> Self {
        Self {
            who,
            builds: Vec::new(),
            failure: None,
        }
    }

    fn add(&mut self, build: Result<Build>) {
        match build {
            Ok(build) => self.builds.push(build),
            Err(error) => self.failure = Some(error.to_string()),
        }
    }

    fn cell(&self, figure: fn(&Build) -> f64, native: &Self) -> Cell {
        let expected = native.builds.first().map(|build| &build.made);
        let differs = self
            .builds
            .iter()
            .any(|build| Some(&build.made) != expected);
        let differs = differs.then(|| "made or found something else than native".to_owned());
        Cell {
            contender: self.who.to_owned(),
            samples: self.builds.iter().map(figure).collect(),
            remark: self.failure.clone().or(differs),
            round_trips: None,
        }
    }
}

impl Base {
    fn new(library: &Path, disk: &Disk) -> Result<Self> {
        let place = disk.make("cache")?;
        let root = place.join("base");
        cached_library(library, &root)?;
        // Gives all files times in the past: ccache distrusts a header as young as its use.
        Tree::of(&root)?;
        build(&root)?;
        let mut clean = Command::new("make");
        output(clean.args(["--silent", "clean"]).current_dir(&root))?;
        fs::remove_file(root.join("log"))?;
        let changed = root.join("common/error_private.c");
        let text = fs::read_to_string(&changed)?;
        fs::write(&changed, text + "\nint changed;\n")?;
        Ok(Self {
            tree: Tree::of(&root)?,
            cache: cache_of(&root)?,
            place,
        })
    }

    fn natively(&self) -> Result<Build> {
        let copy = self.place.join("copy");
        remove(&copy)?;
        tree::copy(&self.tree, &self.tree.chosen(None), &copy)?;
        let (took, said) = build(&copy)?;
        found(took, said, &copy, &self.cache)
    }

    fn on_overlay(&self) -> Result<Build> {
        let at = |part: &str| self.place.join("overlay").join(part);
        remove(&self.place.join("overlay"))?;
        for part in ["view", "upper", "work"] {
            fs::create_dir_all(at(part))?;
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={},volatile",
            self.tree.root.display(),
            at("upper").display(),
            at("work").display()
        );
        let layers = std::ffi::CString::new(layers)?;
        let flags = MountFlags::empty();
        mount("overlay", at("view"), "overlay", flags, layers.as_c_str())?;
        let built = build(&at("view"));
        unmount(at("view"), UnmountFlags::empty())?;
        let (took, said) = built?;
        // All that the upper layer holds is its delta, whether it differs or not.
        found(took, said, &at("upper"), &Outputs::new())
    }

    fn in_view(&self, program: &Boxed) -> Result<Build> {
        let visible = self.tree.files.iter().map(|file| {
            json!({
                "path": file.path, "type": "file", "hash": file.digest.to_string(),
                "mode": file.mode, "mtime": file.mtime,
            })
        });
        let spec = json!({
            "command": ["/bin/sh", "-c", BUILD],
            "environment": ENVIRONMENT.map(|(key, value)| format!("{key}={value}")),
            "visible": visible.collect::<Vec<_>>(),
            "copy-on-write": ["ccache"],
            "staging": "discard",
            "mount-ops": [{ "type": "workspace", "destination": "." }],
        });
        let printed = self.place.join("printed");
        let ran = program.run_spec(&self.tree, spec, &printed)?;
        // What has only got other times is in the result, too, by the hash that it had.
        let new = |path: &String, digest| {
            path.starts_with("ccache/") && self.cache.get(path) != Some(digest)
        };
        let outputs = ran.outputs.iter();
        let delta = outputs.filter(|(path, (digest, _))| new(path, digest));
        Ok(Build {
            took: ran.took,
            delta: delta.map(|(_, (_, size))| *size as f64).sum(),
            made: Made {
                library: ran.outputs.get(CACHED_LIBRARY).map(|(digest, _)| *digest),
                said: hits(&fs::read_to_string(printed)?),
            },
        })
    }
}

/// Builds in a directory: how long that took, and what it says of the cache.
fn build(directory: &Path) -> Result<(f64, String)> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", BUILD]).current_dir(directory);
    command.env_clear().envs(ENVIRONMENT);
    let started = Instant::now();
    let said = output(&mut command)?;
    Ok((started.elapsed().as_nanos() as f64, hits(&said)))
}

/// The lines about the cache, of all that a build printed.
fn hits(said: &str) -> String {
    let of_cache = |line: &&str| line.contains("cache_");
    said.lines().filter(of_cache).collect::<Vec<_>>().join(" ")
}

/// What a build in a directory has made, and what its cache has that was not there before.
fn found(took: f64, said: String, directory: &Path, before: &Outputs) -> Result<Build> {
    let mut delta = 0;
    for (path, digest) in cache_of(directory)? {
        if before.get(&path) != Some(&digest) {
            delta += fs::metadata(directory.join(path))?.len();
        }
    }
    let library = fs::File::open(directory.join(CACHED_LIBRARY))?;
    Ok(Build {
        took,
        delta: delta as f64,
        made: Made {
            library: Some(Digest::of_file(&library)?.0),
            said,
        },
    })
}

/// The files of a directory's cache.
fn cache_of(directory: &Path) -> Result<Outputs> {
    let mut all = Outputs::new();
    hash_below(&directory.join("ccache"), "ccache", &mut all)?;
    Ok(all)
}
