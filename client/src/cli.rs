//! The command line and the environment: read here, and nowhere else.

mod cas;
mod jobs;
mod learn;
mod mount;
mod opening;
mod run;
mod store;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::daemon::Daemons;
use crate::error::Result;
use crate::original::{self, Asked, Id, Mode};
use crate::runtime::RuntimeDirectory;

pub use self::cas::{CasArguments, CasCommand};
pub use jobs::{
    JobArguments, JobCommand, JobsArguments, KeepArgument, ShellArguments, kept_by_default,
    parse_age,
};
pub use learn::{CheckArguments, KeyArguments, LearnArguments};
pub use mount::MountArguments;
pub use opening::OpeningArguments;
pub use run::{RecordLevel, RunArguments};
pub use store::{DoctorArguments, FsckArguments, GcArguments, RecoverArguments, StoreArgument};

/// Version and build, as `--version` prints them.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (build ",
    env!("WAKEBOX_BUILD_ID"),
    ")"
);

/// How long an idle daemon lives, in seconds, unless told otherwise.
const IDLE_SECONDS: u64 = 60;

/// Run a build job so that it sees exactly the inputs it declared, and capture all it writes.
///
/// A build tool calls `wakebox -p spec.json -o result.json`; at a shell, `wakebox run` does the
/// same for the files of the current directory.
#[derive(Debug, Parser)]
#[command(name = "wakebox", version = VERSION, override_usage = USAGE)]
#[command(after_help = EXIT_CODES, long_about = None)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const USAGE: &str = "wakebox -p FILE [-o FILE] [OPTIONS]
       wakebox [OPTIONS] [--] COMMAND [ARGUMENT]...
       wakebox SUBCOMMAND ...";

const EXIT_CODES: &str = "Exit codes: the job's own; 124 time limit; 125 the sandbox, the daemon or \
the store failed; 126 cannot run the command; 127 no such command; 128+n killed by signal n; wrong \
usage: 1, in a subcommand 2. With -I, 0 whenever the job ran. Of mount: 0 mounted, 1 wrong usage, \
2 system error, 32 the mount failed.";

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command on files of the current directory and publish what it makes
    Run(Box<RunArguments>),
    /// Say what a failed job has probably missed, and what it did not use
    Explain(ExplainArguments),
    /// Find out what a command uses and makes, and print the spec of that
    Learn(LearnArguments),
    /// Print the digest of all that a job depends on: equal digests, equal jobs
    Key(KeyArguments),
    /// Run a job twice under different conditions, and say in what its outputs differ
    Check(CheckArguments),
    /// Look at the content-addressed store, and put things into it
    Cas(CasArguments),
    /// Make the next stored tree of one that a job started from and of the job's result
    Apply(ApplyArguments),
    /// Remove blobs that are not needed, and what dead jobs have left
    Gc(GcArguments),
    /// Hash the store anew, and move what is corrupt out of the way
    Fsck(FsckArguments),
    /// Rescue outputs of a job whose result was never written
    Recover(RecoverArguments),
    /// Find out whether jobs can run here, and how well
    Doctor(DoctorArguments),
    /// Show the daemons of this user and their jobs
    Status(StatusArguments),
    /// List jobs that run, and failed ones that are kept
    Jobs(JobsArguments),
    /// Look into a job
    Job(JobArguments),
    /// Mount a read-write view that lasts: inputs from directories, changes in a state directory
    Mount(MountArguments),
    /// Serve jobs; started by itself when needed
    Daemon(DaemonArguments),
    /// Print completions for a shell
    #[command(hide = true)]
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Manual,
}

/// `wakebox explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The result of a job that kept a record
    #[arg(value_name = "RESULT")]
    pub result: PathBuf,
    /// Also list inputs that were declared and not used, outputs that were made and not wanted, and
    /// outputs that were wanted and not made
    #[arg(long)]
    pub unused: bool,
    /// What the job printed: files that it names are likelier
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// The directory that the job's view stood for
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    pub workspace: PathBuf,
}

/// `wakebox apply`.
#[derive(Debug, Args)]
pub struct ApplyArguments {
    /// The tree, as `cas import` printed it; the size may be left out
    #[arg(value_name = "HASH[/SIZE]")]
    pub base: String,
    /// The result document of the job
    #[arg(value_name = "RESULT")]
    pub result: PathBuf,
    /// Only what the job changed and made here, and nothing elsewhere
    #[arg(long, value_name = "PATH")]
    pub only: Option<OsString>,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgument,
}

/// `wakebox status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `wakebox daemon`.
#[derive(Debug, Args)]
pub struct DaemonArguments {
    /// Stay in the foreground and log to standard error
    #[arg(long, required_unless_present_any = ["socket", "stop"])]
    pub foreground: bool,
    /// Ask the daemon of the store to end when its jobs have
    #[arg(long, conflicts_with_all = ["foreground", "socket"])]
    pub stop: bool,
    /// Seconds to live without a connection
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub idle: Option<Duration>,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgument,
    /// Listen here and serve the store whose directory is standard input
    #[arg(long, hide = true, conflicts_with = "foreground")]
    pub socket: Option<PathBuf>,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 => {
            Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
        }
        _ => Err("expected a number of seconds greater than 0".into()),
    }
}

/// A shell that completions can be had for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// What a call asks for.
#[derive(Debug)]
pub enum Call {
    /// A job by its spec.
    Batch(original::Batch),
    /// A command, as the original runs one.
    Interactive(original::Interactive),
    /// A subcommand.
    Command(Command),
    /// Help.
    Help,
    /// The version.
    Version,
    /// Nothing.
    Nothing,
}

/// A call that makes no sense, or asks for a subcommand's help.
#[derive(Debug)]
pub enum Misuse {
    /// Of the original's command line: one line for the user.
    Original(String),
    /// Of a subcommand, or its help.
    Subcommand(clap::Error),
    /// Of a mount, or its help.
    Mount(clap::Error),
}

impl Call {
    /// Reads the command line, of which the first word is the program's name. A subcommand in the
    /// first place is ours; everything else is a call of the original.
    pub fn read(arguments: &[OsString]) -> std::result::Result<Self, Misuse> {
        if mount::is_helper(arguments) {
            let read = mount::read_helper(arguments).map_err(Misuse::Mount);
            return read.map(|arguments| Self::Command(Command::Mount(arguments)));
        }
        let words = arguments.get(1..).unwrap_or_default();
        if words.first().is_some_and(|first| is_subcommand(first)) {
            let matches = command().try_get_matches_from(arguments);
            let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
            return match cli {
                Ok(cli) => Ok(Self::Command(cli.command)),
                Err(error) if words[0] == "mount" => Err(Misuse::Mount(error)),
                Err(error) => Err(Misuse::Subcommand(error)),
            };
        }
        match original::parse(words) {
            Ok(Asked::Batch(batch)) => Ok(Self::Batch(batch)),
            Ok(Asked::Interactive(interactive)) => Ok(Self::Interactive(interactive)),
            Ok(Asked::Help) => Ok(Self::Help),
            Ok(Asked::Version) => Ok(Self::Version),
            Ok(Asked::Nothing) => Ok(Self::Nothing),
            Err(line) => Err(Misuse::Original(line)),
        }
    }

    /// Whether this is a call as the original knows it.
    pub fn is_originals(&self) -> bool {
        !matches!(self, Self::Command(_))
    }
}

/// Everything that can be asked, for help, completions and the manual page. The original's options
/// are read by [`original::parse`]; here they are only told of.
pub fn command() -> clap::Command {
    let options = original::OPTIONS.iter().map(|option| {
        let action = match (option.value, option.repeatable) {
            (None, _) => clap::ArgAction::SetTrue,
            (Some(_), false) => clap::ArgAction::Set,
            (Some(_), true) => clap::ArgAction::Append,
        };
        let heading = match option.mode {
            Mode::Batch => "With a spec",
            Mode::Interactive => "With a command",
            Mode::Both => "With either",
        };
        let argument = clap::Arg::new(option.name())
            .short(option.short)
            .long(option.name())
            .visible_aliases(option.long[1..].iter().copied())
            .action(action)
            .help(option.help)
            .help_heading(heading);
        match option.value {
            Some(name) => argument.value_name(name),
            None => argument,
        }
    });
    let shown = original::OPTIONS
        .iter()
        .zip(options)
        .filter(|(option, _)| !matches!(option.id, Id::Help | Id::Version));
    Cli::command().args(shown.map(|(_, argument)| argument))
}

/// Whether a first argument names a subcommand. No option does, and to ask clap takes as long as to
/// read the whole spec of a small job.
fn is_subcommand(argument: &std::ffi::OsStr) -> bool {
    if argument.as_bytes().starts_with(b"-") {
        return false;
    }
    let command = Cli::command();
    let mut subcommands = command.get_subcommands();
    argument == "help" || subcommands.any(|subcommand| argument == subcommand.get_name())
}

/// What of the environment matters, read once.
#[derive(Debug, Default)]
pub struct Environment {
    /// All variables, for `--env NAME` and for those that every job of `run` gets.
    pub variables: BTreeMap<OsString, OsString>,
    /// `XDG_RUNTIME_DIR`, if it is absolute.
    pub runtime_directory: Option<PathBuf>,
    /// `WAKEBOX_LOG`: what to log, as for `tracing`'s `EnvFilter`.
    pub log: Option<OsString>,
    /// The command line, without the program's name: a job that is kept remembers how it was asked for.
    pub words: Vec<OsString>,
    /// `WAKEBOX_IDLE`: how long daemons live without a connection.
    pub idle: Duration,
}

impl Environment {
    /// Reads the process's environment.
    pub fn read() -> Self {
        let variables: BTreeMap<_, _> = std::env::vars_os().collect();
        let path = |name: &str| variables.get(std::ffi::OsStr::new(name)).map(PathBuf::from);
        let text = |name: &str| variables.get(std::ffi::OsStr::new(name)).cloned();
        let idle = text("WAKEBOX_IDLE").and_then(|text| seconds(&text.to_string_lossy()).ok());
        Self {
            runtime_directory: path("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()),
            log: text("WAKEBOX_LOG").filter(|text| !text.is_empty()),
            idle: idle.unwrap_or(Duration::from_secs(IDLE_SECONDS)),
            words: std::env::args_os().skip(1).collect(),
            variables,
        }
    }

    /// The store that is meant when none is named: `$XDG_CACHE_HOME/wakebox`, else
    /// `~/.cache/wakebox`.
    pub fn default_store(&self) -> Result<PathBuf> {
        let absolute = |name: &str| {
            let value = self
                .variables
                .get(std::ffi::OsStr::new(name))
                .map(PathBuf::from);
            value.filter(|path| path.is_absolute())
        };
        let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        cache.map(|cache| cache.join("wakebox")).ok_or_else(|| {
            crate::error::Error::Usage(
                "no home for the store: set HOME, or give --store DIR".into(),
            )
        })
    }
}

impl Daemons {
    /// Daemons as this environment wants them.
    pub fn from_environment(environment: &Environment) -> Result<Self> {
        let runtime = RuntimeDirectory::find(environment)?;
        Ok(Self {
            runtime,
            idle: environment.idle,
            log: environment.log.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> std::result::Result<Call, Misuse> {
        let words = [&["wakebox"], words].concat();
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        Call::read(&words)
    }

    #[test]
    fn everything_that_can_be_asked_is_well_defined() {
        command().debug_assert();
    }

    #[test]
    fn a_subcommand_in_the_first_place_is_ours_and_nothing_else_is() {
        let ours: &[&[&str]] = &[
            &["run", "make"],
            &["run", "-o", "x", "make"],
            &["cas", "ls"],
            &["status"],
            &["jobs", "--json"],
            &["job", "ls", "0123", "--outputs"],
            &["job", "shell", "--job", "0123"],
            &["run", "--keep-failed", "make"],
            &["run", "--keep-failed=12h", "make"],
            &["explain", "result.json", "--unused"],
            &["daemon", "--stop"],
            &["manual"],
            &["mount", "-o", "state=s", "source", "directory", "-osuid"],
            &["completions", "zsh"],
        ];
        for words in ours {
            assert!(matches!(read(words), Ok(Call::Command(_))), "{words:?}");
        }
        for words in [&["help"][..], &["help", "run"], &["run", "-h"], &["run"]] {
            let misuse = read(words);
            assert!(matches!(misuse, Err(Misuse::Subcommand(_))), "{words:?}");
        }
        let commands: &[&[&str]] = &[
            &["make"],
            &["-x", "make"],
            &["--", "run"],
            &["-x", "run", "make"],
            &["-x", "--", "status"],
            &["./run"],
            &["Run"],
        ];
        for words in commands {
            assert!(matches!(read(words), Ok(Call::Interactive(_))), "{words:?}");
        }
        assert!(matches!(read(&["-p", "s"]), Ok(Call::Batch(_))));
        assert!(matches!(read(&["-h", "run"]), Ok(Call::Help)));
        assert!(matches!(read(&["-V"]), Ok(Call::Version)));
        assert!(matches!(read(&[]), Ok(Call::Nothing)));
        let misuse = read(&["--store", "x", "run"]);
        assert!(matches!(misuse, Err(Misuse::Original(_))));
    }
}
