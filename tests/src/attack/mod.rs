//! What a hostile job would try, as a program: `attack NAME ROOT PID...`.
//!
//! Each attack is a list of ways to do one thing that no job may do. A line is printed for each:
//! `refused WAY: REASON` or `ESCAPED WAY: WHAT`. The world is looked at from outside afterwards, by
//! the test: a way that is refused here may still have done something.

mod files;
mod kernel;
mod mounts;
mod processes;
mod raw;
mod reach;

pub use kernel::nested_knobs;

use std::fmt::Display;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What the workspace holds that was not declared, and nobody inside may read.
pub const SECRET: &str = "nobody inside may read this";
/// What is declared.
pub const DECLARED: &str = "declared content\n";
/// The exit code of an attack that has tried all it knows. Not 0, so that nothing is published.
pub const TRIED: i32 = 9;

/// What an attacker knows of the world outside.
#[derive(Debug)]
pub struct Ground {
    /// The directory that everything of the test is in.
    pub root: PathBuf,
    /// Whether the job sees the host, whose files are then no secret.
    pub sees_host: bool,
    /// Processes outside: the client of another job, a process of the same user, the daemon.
    pub outside: Vec<i32>,
}

impl Ground {
    /// A directory to work in that is no view.
    fn scratch(&self) -> PathBuf {
        if self.sees_host {
            self.root.join("flags")
        } else {
            "/tmp".into()
        }
    }

    fn store(&self) -> PathBuf {
        self.root.join("home/.cache/wakebox")
    }

    fn sockets(&self) -> PathBuf {
        self.root.join("run/wakebox")
    }

    fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    /// Files that the job must not read.
    fn secrets(&self) -> Vec<PathBuf> {
        let mut secrets = vec![self.workspace().join("secret")];
        if !self.sees_host {
            secrets.push(self.root.join("home/outside"));
        }
        secrets
    }

    /// Directories that the job must not list.
    fn hidden(&self) -> Vec<PathBuf> {
        vec![
            self.store(),
            self.store().join("blobs"),
            self.store().join("staging"),
            self.sockets(),
        ]
    }
}

/// Tries all ways that it knows, and prints a line for each.
pub type Attack = fn(&Ground);

/// All attacks, by name.
pub const ATTACKS: [(&str, Attack); 23] = [
    ("inputs", files::inputs),
    ("store", files::store),
    ("undeclared", files::undeclared),
    ("names", files::names),
    ("races", files::races),
    ("privileges", files::privileges),
    ("devices", files::devices),
    ("proc", processes::proc),
    ("trace", processes::trace),
    ("signals", processes::signals),
    ("descriptors", processes::descriptors),
    ("passing", processes::passing),
    ("unmount", mounts::unmount),
    ("unmount-nested", mounts::unmount_nested),
    ("uncover-nested", mounts::uncover_nested),
    ("roots", mounts::roots),
    ("namespaces", mounts::namespaces),
    ("handles", mounts::handles),
    ("handles-nested", mounts::handles_nested),
    ("sockets", reach::sockets),
    ("memory", reach::memory),
    ("terminal", reach::terminal),
    ("kernel", kernel::kernel),
];

/// Runs an attack; false if there is none of that name.
pub fn run(name: &str, ground: &Ground) -> bool {
    let found = ATTACKS.iter().find(|(known, _)| *known == name);
    found.is_some_and(|(_, attack)| {
        attack(ground);
        true
    })
}

/// A call that must fail.
fn refused<T>(way: impl Display, done: io::Result<T>) {
    match done {
        Ok(_) => escaped(way, "it was done"),
        Err(error) => println!("refused {way}: {error}"),
    }
}

/// Something that must be so.
fn holds(way: impl Display, is_so: bool) {
    if is_so {
        println!("refused {way}: it holds");
    } else {
        escaped(way, "it does not hold");
    }
}

fn escaped(way: impl Display, what: impl Display) {
    println!("ESCAPED {way}: {what}");
}

/// A directory that must be absent, closed or empty.
fn is_hidden(way: impl Display, directory: &Path) {
    match std::fs::read_dir(directory) {
        Err(error) => println!("refused {way}: {error}"),
        Ok(entries) => {
            let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
            holds(format!("{way} lists {names:?}"), names.is_empty());
        }
    }
}

/// A file that must not give away the secret.
fn is_secret(way: impl Display, path: &Path) {
    let mut content = String::new();
    let read = std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut content));
    match read {
        Ok(_) if content.contains(SECRET) => escaped(way, "it was read"),
        Ok(_) => println!("refused {way}: it is another file"),
        Err(error) => println!("refused {way}: {error}"),
    }
}
