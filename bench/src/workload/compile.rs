//! Real compilers: many tiny jobs, and one big one.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::{Job, Measure, Task};
use crate::Result;
use crate::cli::Options;
use crate::disk::output;
use crate::tree::Tree;

/// Headers that each source of a storm includes.
const HEADERS: usize = 200;
/// Directories that the headers lie in.
const FOLDERS: usize = 8;
/// Declarations in a header: about 3 KB, the median of real trees of source text.
const DECLARATIONS: usize = 30;

/// How the sources of a storm name their headers.
#[derive(Clone, Copy)]
enum Naming {
    /// `#include "part3/header11.h"` and one `-I`, as most projects do.
    Folder,
    /// `#include "header11.h"` and an `-I` for each directory: half of them are searched in vain,
    /// name by name. The headers are next to empty, so that this is most of the work.
    Searched,
}

impl Naming {
    fn label(self) -> &'static str {
        match self {
            Self::Folder => "compile storm",
            Self::Searched => "compile storm, headers searched in 8 directories",
        }
    }

    fn included(self, i: usize) -> String {
        match self {
            Self::Folder => format!("part{}/header{i}.h", i % FOLDERS),
            Self::Searched => format!("header{i}.h"),
        }
    }

    fn path(self, i: usize) -> String {
        format!("include/part{}/header{i}.h", i % FOLDERS)
    }

    fn flags(self) -> Vec<String> {
        match self {
            Self::Folder => vec!["-Iinclude".to_owned()],
            Self::Searched => (0..FOLDERS).map(|i| format!("-Iinclude/part{i}")).collect(),
        }
    }

    fn header(self, i: usize) -> String {
        let declarations = match self {
            Self::Folder => DECLARATIONS,
            Self::Searched => 1,
        };
        let declare = |n: usize| {
            format!(
                "/* The state of part {n}, and a look into it. */\n\
                 struct s{i}_{n} {{ int a[{}]; char *name; }};\n\
                 int look{i}_{n}(const struct s{i}_{n} *state, int index);\n",
                i % 7 + 1
            )
        };
        let text: String = (0..declarations).map(declare).collect();
        format!(
            "#ifndef H{i}\n#define H{i}\n{text}static inline int f{i}(struct s{i}_0 *s) \
             {{ return s->a[0] + {i}; }}\n#endif\n"
        )
    }
}

pub(super) fn tasks(options: &Options, place: &Path) -> Result<Vec<Task>> {
    let mut tasks = storm(options, &place.join("storm"), Naming::Folder)?;
    tasks.extend(storm(options, &place.join("search"), Naming::Searched)?);
    match library(options, &place.join("library")) {
        Ok(all) => tasks.extend(all),
        Err(error) => println!("no real C library to build: {error}"),
    }
    Ok(tasks)
}

/// One-file jobs, each with its source and its headers.
fn storm(options: &Options, root: &Path, naming: Naming) -> Result<Vec<Task>> {
    let count = options.scaled(200, 4);
    let headers = options.scaled(2 * HEADERS, 40);
    for i in 0..headers {
        let path = root.join(naming.path(i));
        fs::create_dir_all(path.parent().ok_or("a parent")?)?;
        fs::write(path, naming.header(i))?;
    }
    let mut jobs = Vec::new();
    for number in 0..count {
        let used: Vec<_> = (0..headers / 2).map(|i| (number + i) % headers).collect();
        let include = |i: &usize| format!("#include \"{}\"\n", naming.included(*i));
        let last = used.last().ok_or("headers")?;
        let text = used.iter().map(include).collect::<String>()
            + &format!("int g{number}(struct s{last}_0 *s) {{ return f{last}(s); }}\n");
        fs::write(root.join(format!("source{number}.c")), text)?;
        jobs.push(one_file(number, &used, naming));
    }
    let tree = Arc::new(Tree::of(root)?);
    let task = |at_once: usize| Task {
        jobs: jobs.clone(),
        at_once,
        fresh: true,
        measure: Measure::PerJob,
        ..Task::writing(
            &format!("{}, {at_once} at once, per job", naming.label()),
            &tree,
            jobs[0].clone(),
        )
    };
    Ok(vec![task(1), task(2), task(8)])
}

fn one_file(number: usize, used: &[usize], naming: Naming) -> Job {
    let (source, object) = (format!("source{number}.c"), format!("source{number}.o"));
    let flags = naming.flags();
    let mut words = vec!["gcc", "-c", "-O1"];
    words.extend(flags.iter().map(String::as_str));
    words.extend(["-o", &object, &source]);
    let job = Job::new(&words);
    let inputs = used.iter().map(|i| naming.path(*i)).chain([source.clone()]);
    Job {
        inputs: Some(inputs.collect()),
        outputs: vec![object.clone()],
        ..job
    }
}

/// `make` of zstd, with the compiler of the system and with a copy of it among the inputs.
fn library(options: &Options, place: &Path) -> Result<Vec<Task>> {
    let processors = std::thread::available_parallelism()?.to_string();
    let most = if options.quick { 2 } else { usize::MAX };
    let mut tasks = Vec::new();
    for (where_, with_tools) in [("outside", false), ("inside", true)] {
        let root = place.join(where_);
        let sources = copy_library(most, &zstd(options)?, &root)?;
        let compiler = if with_tools {
            copy_toolchain(&root)?
        } else {
            "gcc".to_owned()
        };
        fs::write(root.join("Makefile"), makefile(&sources, &compiler))?;
        let tree = Arc::new(Tree::of(&root)?);
        let job = Job::new(&["make", "--silent", "-j", &processors]);
        let job = Job {
            outputs: vec!["libzstd.a".to_owned()],
            ..job
        };
        let name = format!("make of zstd, toolchain {where_} the view");
        tasks.push(Task {
            fresh: true,
            measure: Measure::PerJob,
            ..Task::writing(&name, &tree, job)
        });
    }
    Ok(tasks)
}

/// What [`cached_library`] makes.
pub(crate) const CACHED_LIBRARY: &str = "libzstd.a";

/// The library in a directory, with a makefile that compiles by ccache and can clean up.
pub(crate) fn cached_library(library: &Path, root: &Path) -> Result<()> {
    let sources = copy_library(usize::MAX, library, root)?;
    let text = makefile(&sources, "ccache gcc") + "clean:\n\trm -f $(OBJECTS) libzstd.a\n";
    Ok(fs::write(root.join("Makefile"), text)?)
}

/// The parts of the library that are compiled; of the others, headers are needed.
const PARTS: [&str; 4] = ["common", "compress", "decompress", "dictBuilder"];

/// Copies the library's sources. The names of what is to be compiled.
fn copy_library(most: usize, library: &Path, root: &Path) -> Result<Vec<String>> {
    let mut sources = HashSet::new();
    for folder in PARTS.into_iter().chain(["legacy", "deprecated", "."]) {
        for entry in fs::read_dir(library.join(folder)).into_iter().flatten() {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .ok_or("a name")?;
            let is_source = path.extension().is_some_and(|ending| ending == "c");
            if is_source || path.extension().is_some_and(|ending| ending == "h") {
                fs::create_dir_all(root.join(folder))?;
                fs::copy(&path, root.join(folder).join(name))?;
            }
            if is_source && PARTS.contains(&folder) {
                sources.insert(format!("{folder}/{name}"));
            }
        }
    }
    let mut sources: Vec<_> = sources.into_iter().collect();
    sources.sort();
    sources.truncate(most);
    Ok(sources)
}

/// Where the C sources of zstd are: those of the zstd-sys crate, unless others are named. Cargo
/// fetches them if they are not there.
pub(crate) fn zstd(options: &Options) -> Result<PathBuf> {
    if let Some(named) = &options.zstd {
        return Ok(named.clone());
    }
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let words = [
        "metadata",
        "--format-version",
        "1",
        "--quiet",
        "--manifest-path",
        manifest,
    ];
    let said = output(Command::new("cargo").args(words))?;
    let all: serde_json::Value = serde_json::from_str(&said)?;
    let packages = all["packages"]
        .as_array()
        .ok_or("cargo metadata names no packages")?;
    let found = packages
        .iter()
        .find(|package| package["name"] == "zstd-sys");
    let path = found.and_then(|package| package["manifest_path"].as_str());
    Ok(Path::new(path.ok_or("zstd-sys is no dependency")?).with_file_name("zstd/lib"))
}

fn makefile(sources: &[String], compiler: &str) -> String {
    let objects: Vec<_> = sources
        .iter()
        .map(|source| source.replace(".c", ".o"))
        .collect();
    format!(
        "OBJECTS = {}\nlibzstd.a: $(OBJECTS)\n\trm -f $@ && ar rcD $@ $(OBJECTS)\n\
         %.o: %.c\n\t{compiler} -c -O0 -DZSTD_DISABLE_ASM=1 -I. -Icommon -o $@ $<\n",
        objects.join(" ")
    )
}

/// Copies compiler, assembler and headers to `root/toolchain`; how they are called there.
fn copy_toolchain(root: &Path) -> Result<String> {
    let ask = |word: &str| -> Result<PathBuf> {
        Ok(PathBuf::from(output(Command::new("gcc").arg(word))?.trim()).canonicalize()?)
    };
    let tools = root.join("toolchain");
    fs::create_dir_all(tools.join("bin"))?;
    let compiler = ask("-print-prog-name=cc1")?;
    fs::copy(&compiler, tools.join("bin/cc1"))?;
    let assembler = output(Command::new("sh").args(["-c", "command -v as"]))?;
    fs::copy(assembler.trim(), tools.join("bin/as"))?;
    fs::copy(
        Path::new("/usr/bin/gcc").canonicalize()?,
        tools.join("bin/gcc"),
    )?;
    let own = ask("-print-file-name=include")?;
    copy_headers(&own, &tools.join("gcc"), true)?;
    copy_headers(Path::new("/usr/include"), &tools.join("include"), false)?;
    let machine = output(Command::new("gcc").arg("-dumpmachine"))?;
    Ok(format!(
        "toolchain/bin/gcc -Btoolchain/bin/ -nostdinc -isystem toolchain/gcc \
         -isystem toolchain/include/{} -isystem toolchain/include",
        machine.trim()
    ))
}

/// Directories of headers that come with C library and kernel, not with some other library.
const SYSTEM: [&str; 6] = ["asm", "asm-generic", "bits", "gnu", "linux", "sys"];

/// The C headers of a directory and of its system directories, or of all below if `deep`.
fn copy_headers(from: &Path, to: &Path, deep: bool) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.unwrap_or_default();
        let system = SYSTEM.contains(&name);
        if path.is_dir() && (deep || system || name.ends_with("-linux-gnu")) {
            copy_headers(&path, &to.join(name), deep || system)?;
        } else if path.is_file() && path.extension().is_some_and(|ending| ending == "h") {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
