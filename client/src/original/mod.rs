//! The original's command line, `wakebox [OPTIONS] [COMMAND...]`: options in, intent out.
//!
//! Its rules are gopt's. A long name may be written in any case and cut to a unique prefix; its
//! value is the next argument or follows `=`. Letters cluster, and a value may be glued to its
//! letter. Options end at `--` or at the first operand: what follows belongs to the command. An
//! option that is not repeatable may be given once.

mod options;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lexopt::Arg;

use crate::mount_ops::MountOp;
pub use options::{Definition, Id, Mode, OPTIONS};

/// What a call of the original asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A job by its spec.
    Batch(Batch),
    /// A command.
    Interactive(Interactive),
    /// `--help`
    Help,
    /// `--version`
    Version,
    /// Neither a spec nor a command.
    Nothing,
}

/// `wakebox -p SPEC`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The job's spec.
    pub params: PathBuf,
    /// Where the result goes.
    pub output_stats: Option<PathBuf>,
    /// Whether to run a shell in place of the command.
    pub force_shell: bool,
    /// Whether the job keeps the caller's standard input. Implied by `force_shell`.
    pub interactive: bool,
    /// Whether the job's own exit code is kept from the caller.
    pub isolate_retcode: bool,
    /// Whether the job is kept if it fails.
    pub keep_failed: bool,
    /// Whether the result, and all that it names, is to be on disk at the end.
    pub durable: bool,
    /// Binds to make after the spec's own mount operations.
    pub binds: Vec<Bind>,
}

/// `wakebox COMMAND`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interactive {
    /// An image for the root.
    pub rootfs: Option<PathBuf>,
    /// Images that know where they belong.
    pub toolchains: Vec<PathBuf>,
    /// Whether to show the current directory.
    pub bind_cwd: bool,
    /// Further binds.
    pub binds: Vec<Bind>,
    /// The command and its arguments; never empty.
    pub command: Vec<OsString>,
}

/// `--bind SRC:DST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// What.
    pub source: PathBuf,
    /// Where.
    pub destination: PathBuf,
}

impl Bind {
    fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let halves = bytes.iter().position(|&byte| byte == b':');
        match halves.map(|at| (&bytes[..at], &bytes[at + 1..])) {
            Some((source, destination)) if !source.is_empty() && !destination.is_empty() => {
                let path = |half| PathBuf::from(OsStr::from_bytes(half));
                Ok(Self {
                    source: path(source),
                    destination: path(destination),
                })
            }
            _ => Err(format!("Invalid bind: {}", text.to_string_lossy())),
        }
    }

    /// The same, as an operation.
    pub fn operation(&self) -> MountOp {
        MountOp::Bind {
            source: self.source.clone(),
            destination: self.destination.clone(),
            read_only: false,
        }
    }
}

impl Interactive {
    /// What the command's file system is made of, in the order in which it is mounted. A bind
    /// comes after the current directory, so that it can lie below.
    pub fn operations(&self, here: &Path) -> Vec<MountOp> {
        let root = self.rootfs.iter().map(|image| MountOp::Squashfs {
            source: image.clone(),
            destination: Some("/".into()),
        });
        let toolchains = self.toolchains.iter().map(|image| MountOp::Squashfs {
            source: image.clone(),
            destination: None,
        });
        let mut operations: Vec<_> = root.chain(toolchains).collect();
        if self.bind_cwd {
            let (source, destination) = (here.to_owned(), here.to_owned());
            operations.push(MountOp::CreateDir {
                destination: here.into(),
            });
            operations.push(MountOp::Bind {
                source,
                destination,
                read_only: false,
            });
        }
        operations.extend(self.binds.iter().map(Bind::operation));
        operations
    }
}

/// Reads the arguments after the program's name. An error is one line for the user.
pub fn parse(arguments: &[OsString]) -> Result<Asked, String> {
    let mut parser = lexopt::Parser::from_args(arguments);
    parser.set_short_equals(false);
    let mut given = Given::default();
    let mut command = Vec::new();
    while let Some(argument) = parser.next().map_err(explain)? {
        let option = match argument {
            Arg::Short(letter) => by_letter(letter)?,
            Arg::Long(name) => by_name(name)?,
            Arg::Value(first) => {
                command.push(first);
                command.extend(parser.raw_args().map_err(explain)?);
                break;
            }
        };
        let value = match option.value {
            Some(_) => Some(
                parser
                    .value()
                    .map_err(|_none| format!("option --{} needs a value", option.name()))?,
            ),
            None => None,
        };
        given.add(option, value)?;
    }
    given.mean(command)
}

fn explain(error: lexopt::Error) -> String {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => format!("option {option} takes no value"),
        other => other.to_string(),
    }
}

fn by_letter(letter: char) -> Result<&'static Definition, String> {
    let found = OPTIONS.iter().find(|option| option.short == letter);
    found.ok_or_else(|| format!("unknown option -{letter}"))
}

/// A name, or the beginning of one and no other option's.
fn by_name(name: &str) -> Result<&'static Definition, String> {
    let name = name.to_ascii_lowercase();
    let named = |matches: &dyn Fn(&str) -> bool| -> Vec<&'static Definition> {
        let options = OPTIONS.iter();
        options
            .filter(|option| option.long.iter().any(|long| matches(long)))
            .collect()
    };
    if let [exact] = named(&|long| long == name)[..] {
        return Ok(exact);
    }
    match named(&|long| long.starts_with(&name))[..] {
        [] => Err(format!("unknown option --{name}")),
        [only] => Ok(only),
        [first, second, ..] => Err(format!(
            "option --{name} is ambiguous: --{} or --{}",
            first.name(),
            second.name()
        )),
    }
}

/// The options that were given, with their values.
#[derive(Debug, Default)]
struct Given(BTreeMap<Id, (&'static str, Mode, Vec<OsString>)>);

impl Given {
    fn add(&mut self, option: &'static Definition, value: Option<OsString>) -> Result<(), String> {
        if self.has(option.id) && !option.repeatable {
            return Err(format!("option --{} is given twice", option.name()));
        }
        let entry = (option.name(), option.mode, Vec::new());
        let (_, _, values) = self.0.entry(option.id).or_insert(entry);
        values.extend(value);
        Ok(())
    }

    fn has(&self, id: Id) -> bool {
        self.0.contains_key(&id)
    }

    fn all(&mut self, id: Id) -> Vec<OsString> {
        self.0
            .remove(&id)
            .map_or(Vec::new(), |(_, _, values)| values)
    }

    fn path(&mut self, id: Id) -> Option<PathBuf> {
        self.all(id).pop().map(PathBuf::from)
    }

    fn binds(&mut self) -> Result<Vec<Bind>, String> {
        self.all(Id::Bind)
            .iter()
            .map(|text| Bind::parse(text))
            .collect()
    }

    /// An option that only the other mode has asks for something that would not happen.
    fn refuse(&self, mode: Mode, reason: &str) -> Result<(), String> {
        match self.0.values().find(|(_, its, _)| *its == mode) {
            Some((name, ..)) => Err(format!("option --{name} {reason}")),
            None => Ok(()),
        }
    }

    fn mean(mut self, command: Vec<OsString>) -> Result<Asked, String> {
        if self.has(Id::Help) {
            return Ok(Asked::Help);
        }
        if self.has(Id::Version) {
            return Ok(Asked::Version);
        }
        match (self.path(Id::Params), command.is_empty()) {
            (Some(_), false) => Err(
                "--params is for a spec, which has the command; give one of \
                                     the two"
                    .into(),
            ),
            (Some(params), true) => self.batch(params).map(Asked::Batch),
            (None, false) => self.interactive(command).map(Asked::Interactive),
            (None, true) if self.0.is_empty() => Ok(Asked::Nothing),
            (None, true) => {
                self.refuse(Mode::Batch, "needs --params")?;
                self.refuse(Mode::Interactive, "needs a command")?;
                Err("nothing to run: give a command, or a spec with --params".into())
            }
        }
    }

    fn batch(mut self, params: PathBuf) -> Result<Batch, String> {
        self.refuse(Mode::Interactive, "is for a command, not for a spec")?;
        let force_shell = self.has(Id::ForceShell);
        Ok(Batch {
            params,
            output_stats: self.path(Id::OutputStats),
            force_shell,
            interactive: force_shell || self.has(Id::Interactive),
            isolate_retcode: self.has(Id::IsolateRetcode),
            keep_failed: self.has(Id::KeepFailed),
            durable: self.has(Id::Durable),
            binds: self.binds()?,
        })
    }

    fn interactive(mut self, command: Vec<OsString>) -> Result<Interactive, String> {
        self.refuse(Mode::Batch, "needs --params, and a command has none")?;
        if command.first().is_some_and(|program| program.is_empty()) {
            return Err("the command has no name".into());
        }
        Ok(Interactive {
            rootfs: self.path(Id::Rootfs),
            toolchains: self
                .all(Id::Toolchain)
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            bind_cwd: self.has(Id::BindCwd),
            binds: self.binds()?,
            command,
        })
    }
}

#[cfg(test)]
mod tests;
