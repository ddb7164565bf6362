//! `wakebox mount`: a view that lasts, for whoever wants a file system of it.
//!
//! This process finds the inputs, makes the mount and attaches it; another, which it starts,
//! serves it until the last unmount. The one outlives the other, and has by then left this mount
//! table and everything else of its caller's. `docs/mount.md` is the contract.

mod again;
mod inputs;
mod kernel;
mod options;
mod server;
mod state;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas::Store;
use rustix::io::Errno;

use crate::cli::{Environment, MountArguments};
use crate::commands::Serving;
use crate::error::{Error, Result, say};
use crate::exit_code;
use crate::sandbox::SignalHold;

use options::Options;
use server::Server;
use state::{Claim, State};

/// Where the state lies in an `upperdir`.
const STATE_OF_UPPER: &str = ".wakebox";

/// Mounts, remounts, or serves a mount, and returns an exit code as mount(8) knows them.
pub fn run(arguments: &MountArguments, environment: &Environment) -> u8 {
    let done = match arguments.serve {
        Some(number) => serve(arguments, number),
        None => answer(arguments, environment),
    };
    match done {
        Ok(true) => 0,
        Ok(false) => exit_code::MOUNT_FAILED,
        Err(error) => {
            say(&error);
            match error {
                Error::Usage(_) => exit_code::MOUNT_USAGE,
                Error::Mount(_) => exit_code::MOUNT_FAILED,
                _ => exit_code::MOUNT_SYSTEM,
            }
        }
    }
}

fn serve(arguments: &MountArguments, number: (u32, u32)) -> Result<bool> {
    let options = Options::parse(&arguments.options)?;
    let store = options
        .store
        .ok_or_else(|| usage("no store to serve from"))?;
    crate::commands::serve_mount(&Serving {
        store,
        number,
        foreground: arguments.foreground,
        upkeep: options.upkeep,
    })?;
    Ok(true)
}

/// Does what is asked. `false` if a mount in the foreground did not end well.
fn answer(arguments: &MountArguments, environment: &Environment) -> Result<bool> {
    let options = Options::parse(&arguments.options)?;
    for word in options.unknown.iter().filter(|_| !arguments.sloppy) {
        say(format_args!(
            "mount option '{word}' is not known, and ignored"
        ));
    }
    let directory = arguments.directory.canonicalize();
    let directory = directory.map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        kernel::cannot("mount on", &arguments.directory, errno)
    })?;
    if options.remount {
        return match arguments.fake {
            true => Ok(true),
            false => kernel::remount(&directory, &options).map(|()| true),
        };
    }
    let places = Places::of(&options)?;
    if arguments.fake {
        return Ok(true);
    }
    mount(arguments, environment, &options, &places, &directory)
}

fn mount(
    arguments: &MountArguments,
    environment: &Environment,
    options: &Options,
    places: &Places,
    directory: &Path,
) -> Result<bool> {
    // First what fails for want of privilege, before anything is made or hashed.
    let detached = kernel::make(&arguments.source, options)?;
    let mount_point = kernel::mount_point(directory)?;
    let mounted = |number| match arguments.foreground {
        true => None, // that call is to last as long as its process, and there will be none
        false => again::find(&arguments.source, number),
    };
    let state = match State::open(&places.state, mounted)? {
        Claim::Ours(state) => state,
        Claim::Mounted(copy) => {
            return again::mount(copy, mount_point, directory, options).map(|()| true);
        }
    };
    state.serve_by(detached.number)?;
    let own_store = || state.path().join("store");
    let store = Store::open_own(&places.store.clone().unwrap_or_else(own_store))?;
    // Until the process that serves says what it uses.
    let uses = store.hold()?;
    take_inputs(&state, &store, &places.inputs)?;
    pin(&state, &store)?;
    let hold = arguments.foreground.then(SignalHold::new);
    let serving = Serving {
        store: canonical(store.root())?,
        number: detached.number,
        foreground: arguments.foreground,
        upkeep: options.upkeep,
    };
    let server = Server::start(arguments, environment, &state, &serving)?;
    drop(state); // it has the lock now
    server.serve(detached.device)?;
    drop(uses);
    kernel::attach(detached.mount, mount_point, directory)?;
    kernel::announce(directory);
    match &hold {
        Some(hold) => server.wait(hold),
        None => Ok(true),
    }
}

/// Inputs are taken once, at the first mount of a state, and kept with it: what was changed then
/// stands on what was there.
fn take_inputs(state: &State, store: &Store, sources: &[PathBuf]) -> Result<()> {
    match state.sources()? {
        None => {
            let (manifest, owners) = inputs::take(store, sources, &[state.path(), store.root()])?;
            state.keep_inputs(sources, &manifest, &owners)
        }
        Some(kept) => {
            if !sources.is_empty() && kept != sources {
                say(format_args!(
                    "the inputs of state {} stay what they were at its first mount; name another \
                     state for others",
                    state.path().display()
                ));
            }
            Ok(())
        }
    }
}

/// Keeps the inputs of a state from collectors while nobody mounts it. A state that is removed
/// leaves a link that leads nowhere, which keeps nothing.
fn pin(state: &State, store: &Store) -> Result<()> {
    let manifest = match state.path().join("store") == store.root() {
        true => Path::new("../..").join(state::MANIFEST), // it may be moved
        false => state.path().join(state::MANIFEST),
    };
    let name = cas::Digest::of(manifest.as_os_str().as_bytes()).to_string();
    Ok(store.pin(&format!("mount-{}", &name[..16]), &manifest)?)
}

/// Which directories a mount is made of.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    state: PathBuf,
    store: Option<PathBuf>,
    inputs: Vec<PathBuf>,
}

impl Places {
    fn of(options: &Options) -> Result<Self> {
        let mut inputs = Vec::new();
        for input in options.upper.iter().chain(&options.inputs) {
            inputs.push(canonical(input)?);
        }
        if let Some(work) = &options.work {
            canonical(work)?;
        }
        let state = match (&options.state, &options.upper) {
            (Some(state), None) => state.clone(),
            (None, Some(_)) => inputs[0].join(STATE_OF_UPPER),
            (None, None) => {
                return Err(usage(
                    "no place for changes: give -o state=DIR, or lowerdir=, upperdir= and workdir=",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(usage(
                    "state= and upperdir= both say where changes lie; give one",
                ));
            }
        };
        Ok(Self {
            state,
            store: options.store.clone(),
            inputs,
        })
    }
}

fn canonical(directory: &Path) -> Result<PathBuf> {
    let failed = |error| Error::io("use the directory", directory, error);
    let path = directory.canonicalize().map_err(failed)?;
    match path.is_dir() {
        true => Ok(path),
        false => Err(failed(std::io::ErrorKind::NotADirectory.into())),
    }
}

fn usage(line: &str) -> Error {
    Error::Usage(line.into())
}
