//! Mount operations: what a caller may ask to be mounted, as typed and as steps of a plan.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use cas::text;
use serde::Deserialize;

use crate::sandbox::plan::Step;

/// One operation. They are carried out in order.
///
/// Paths may be relative to the client's directory. An operation whose destination is exactly
/// `/` begins a new root: it and all later destinations lie in it, sources never do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountOp {
    /// The view of the workspace, the only thing that is tracked. At any number of places.
    Workspace {
        /// A directory.
        destination: PathBuf,
    },
    /// A file or directory of the host, with everything mounted below it.
    Bind {
        /// What.
        source: PathBuf,
        /// Where; has to exist, as a file for a file.
        destination: PathBuf,
        /// Also for everything mounted below.
        read_only: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// A directory.
        destination: PathBuf,
    },
    /// A directory, with those above it; fine if it exists.
    CreateDir {
        /// Its path.
        destination: PathBuf,
    },
    /// An empty file; one that exists stays as it is.
    CreateFile {
        /// Its path, in a directory that exists.
        destination: PathBuf,
    },
    /// A squashfs image.
    Squashfs {
        /// The image.
        source: PathBuf,
        /// A directory; `None` leaves it to the image.
        destination: Option<PathBuf>,
    },
}

/// One operation, as typed.
#[derive(Debug, Deserialize)]
pub struct TypedOp {
    r#type: String,
    source: Option<String>,
    destination: Option<String>,
    #[serde(default)]
    read_only: bool,
}

/// The operation by which a job has its view where the workspace is, as it is typed.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct View {
    r#type: &'static str,
    destination: &'static str,
}

impl View {
    /// In the current directory.
    pub fn here() -> Self {
        Self {
            r#type: "workspace",
            destination: ".",
        }
    }
}

/// Understands operations. The message of a refusal names the key.
///
/// # Errors
/// An unknown type; a key that is missing, or that the type has none of.
pub fn read(ops: &[TypedOp]) -> Result<Vec<MountOp>, String> {
    let ops = ops.iter().enumerate();
    ops.map(|(i, op)| {
        op.mean()
            .map_err(|problem| format!("mount-ops[{i}].{problem}"))
    })
    .collect()
}

impl TypedOp {
    fn mean(&self) -> Result<MountOp, String> {
        let source = path(self.source.as_ref());
        let place = path(self.destination.as_ref());
        let missing = |key| format!("{key}: is missing");
        let taken = matches!(self.r#type.as_str(), "bind" | "squashfs");
        let known = matches!(
            self.r#type.as_str(),
            "workspace" | "tmpfs" | "create-dir" | "create-file"
        );
        if known && source.is_some() {
            return Err(format!("source: a {} has none", self.r#type));
        }
        if (known || taken) && self.read_only && self.r#type != "bind" {
            return Err(format!("read_only: a {} has none", self.r#type));
        }
        let destination = || place.clone().ok_or_else(|| missing("destination"));
        Ok(match self.r#type.as_str() {
            "workspace" => MountOp::Workspace {
                destination: destination()?,
            },
            "tmpfs" => MountOp::Tmpfs {
                destination: destination()?,
            },
            "create-dir" => MountOp::CreateDir {
                destination: destination()?,
            },
            "create-file" => MountOp::CreateFile {
                destination: destination()?,
            },
            "bind" => MountOp::Bind {
                source: source.ok_or_else(|| missing("source"))?,
                destination: destination()?,
                read_only: self.read_only,
            },
            "squashfs" => MountOp::Squashfs {
                source: source.ok_or_else(|| missing("source"))?,
                destination: place,
            },
            unknown => return Err(format!("type: unknown mount type: '{unknown}'")),
        })
    }
}

/// An empty path asks for nothing.
fn path(text: Option<&String>) -> Option<PathBuf> {
    let text = text.filter(|text| !text.is_empty())?;
    Some(OsString::from_vec(text::decode(text).into_owned()).into())
}

/// Operations as steps of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Where the job starts: in the first view; else where the client's directory is mounted;
    /// else in the new root; else in the client's directory.
    pub run_directory: PathBuf,
    /// Whether the job gets a root of its own.
    pub new_root: bool,
}

/// Turns operations into steps of a plan. `cwd` is the client's directory.
///
/// # Errors
/// A file as the root; an image without a destination, which only the image knows
/// ([`crate::images::expand`] asks it).
pub fn compile(ops: &[MountOp], cwd: &Path) -> Result<Compiled, String> {
    let mut compiled = Compiled {
        run_directory: run_directory(ops, cwd),
        ..Compiled::default()
    };
    for (i, op) in ops.iter().enumerate() {
        compiled
            .add(op, cwd)
            .map_err(|problem| format!("mount-ops[{i}].destination: {problem}"))?;
    }
    Ok(compiled)
}

/// Makes a path absolute; keeps `..`, which symbolic links may give another meaning.
fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    cwd.join(path).components().collect()
}

fn run_directory(ops: &[MountOp], cwd: &Path) -> PathBuf {
    let view = ops.iter().find_map(|op| match op {
        MountOp::Workspace { destination } => Some(destination),
        _ => None,
    });
    let here = || {
        ops.iter().find_map(|op| match op {
            MountOp::Bind {
                source,
                destination,
                ..
            } if absolute(cwd, source) == cwd => Some(destination),
            _ => None,
        })
    };
    let is_root = |op: &&MountOp| {
        op.destination()
            .is_some_and(|place| place == Path::new("/"))
    };
    let root = || ops.iter().find(is_root).and_then(MountOp::destination);
    view.or_else(here)
        .or_else(root)
        .map_or_else(|| cwd.to_owned(), |place| absolute(cwd, place))
}

impl MountOp {
    /// Where, if known.
    fn destination(&self) -> Option<&PathBuf> {
        match self {
            Self::Workspace { destination }
            | Self::Bind { destination, .. }
            | Self::Tmpfs { destination }
            | Self::CreateDir { destination }
            | Self::CreateFile { destination } => Some(destination),
            Self::Squashfs { destination, .. } => destination.as_ref(),
        }
    }
}

impl Compiled {
    /// Where views of the workspace are mounted.
    pub fn views(&self) -> impl Iterator<Item = &Path> {
        let places = self.steps.iter().flat_map(|step| match step {
            Step::MountView { destinations, .. } => destinations.as_slice(),
            Step::AttachView { destination } => std::slice::from_ref(destination),
            _ => &[],
        });
        places.map(PathBuf::as_path)
    }

    fn add(&mut self, op: &MountOp, cwd: &Path) -> Result<(), &'static str> {
        let place = op.destination().ok_or("is missing")?;
        let destination = absolute(cwd, place);
        let is_root = destination == Path::new("/");
        let step = match op {
            MountOp::Workspace { .. } if self.views().next().is_some() => {
                Step::AttachView { destination }
            }
            MountOp::Workspace { .. } => Step::MountView {
                destinations: vec![destination],
                default_permissions: false,
                allow_other: false,
            },
            MountOp::Bind {
                source, read_only, ..
            } => Step::Bind {
                source: absolute(cwd, source),
                destination,
                read_only: *read_only,
            },
            // A root that nobody has mounted anything on is an empty one.
            MountOp::CreateDir { .. } if is_root && !self.new_root => Step::Tmpfs { destination },
            MountOp::CreateFile { .. } if is_root => return Err("is a directory"),
            MountOp::Tmpfs { .. } => Step::Tmpfs { destination },
            MountOp::CreateDir { .. } => Step::CreateDir { destination },
            MountOp::CreateFile { .. } => Step::CreateFile { destination },
            MountOp::Squashfs { source, .. } => Step::Squashfs {
                source: absolute(cwd, source),
                destination,
            },
        };
        self.new_root |= is_root;
        self.steps.push(step);
        Ok(())
    }
}

#[cfg(test)]
#[path = "mount_ops_tests.rs"]
mod tests;
