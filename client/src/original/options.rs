//! The options of the original: one table for parser, help, completions and manual page.

/// Which option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    /// `--params`
    Params,
    /// `--output-stats`
    OutputStats,
    /// `--force-shell`
    ForceShell,
    /// `--interactive`
    Interactive,
    /// `--isolate-retcode`
    IsolateRetcode,
    /// `--keep-failed`
    KeepFailed,
    /// `--durable`
    Durable,
    /// `--bind`
    Bind,
    /// `--rootfs`
    Rootfs,
    /// `--toolchain`
    Toolchain,
    /// `--bind-cwd`
    BindCwd,
    /// `--help`
    Help,
    /// `--version`
    Version,
}

/// With what an option makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With `--params`.
    Batch,
    /// With a command.
    Interactive,
    /// With either.
    Both,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Which.
    pub id: Id,
    /// Its letter.
    pub short: char,
    /// Its names; the first is the one to show.
    pub long: &'static [&'static str],
    /// What its value is called, if it has one.
    pub value: Option<&'static str>,
    /// Whether it may be given more than once.
    pub repeatable: bool,
    /// With what it makes sense.
    pub mode: Mode,
    /// What it does.
    pub help: &'static str,
}

impl Definition {
    /// The name to show.
    pub fn name(&self) -> &'static str {
        self.long[0]
    }
}

const fn flag(
    id: Id,
    short: char,
    long: &'static [&'static str],
    mode: Mode,
    help: &'static str,
) -> Definition {
    let (value, repeatable) = (None, false);
    Definition {
        id,
        short,
        long,
        value,
        repeatable,
        mode,
        help,
    }
}

impl Definition {
    const fn with(self, value: &'static str) -> Self {
        Self {
            value: Some(value),
            ..self
        }
    }

    const fn repeatable(self) -> Self {
        Self {
            repeatable: true,
            ..self
        }
    }
}

/// All options of the original.
pub const OPTIONS: [Definition; 13] = [
    flag(
        Id::Params,
        'p',
        &["params"],
        Mode::Batch,
        "The job's spec (JSON5)",
    )
    .with("FILE"),
    flag(
        Id::OutputStats,
        'o',
        &["output-stats"],
        Mode::Batch,
        "Where to write the result (JSON)",
    )
    .with("FILE"),
    flag(
        Id::ForceShell,
        's',
        &["force-shell"],
        Mode::Batch,
        "Run a shell in place of the command; in it, 'eval $WAKEBOX_CMD' runs the command. \
         Implies --interactive",
    ),
    flag(
        Id::Interactive,
        'i',
        &["interactive", "allow-interactive"],
        Mode::Batch,
        "Keep standard input, whatever the spec says of it",
    ),
    flag(
        Id::IsolateRetcode,
        'I',
        &["isolate-retcode"],
        Mode::Batch,
        "Exit with 0 whenever the job ran, whatever it returned",
    ),
    flag(
        Id::KeepFailed,
        'k',
        &["keep-failed"],
        Mode::Batch,
        "Keep what the job had and made if it fails, for `wakebox job shell`",
    ),
    flag(
        Id::Durable,
        'd',
        &["durable"],
        Mode::Batch,
        "End only when the result, and all that it names, is on disk",
    ),
    flag(
        Id::Bind,
        'b',
        &["bind"],
        Mode::Both,
        "Show the directory or file SRC at DST, after what the spec mounts; may be repeated",
    )
    .with("SRC:DST")
    .repeatable(),
    flag(
        Id::Rootfs,
        'r',
        &["rootfs"],
        Mode::Interactive,
        "A squashfs image to use as the root",
    )
    .with("FILE"),
    flag(
        Id::Toolchain,
        't',
        &["toolchain"],
        Mode::Interactive,
        "A squashfs image to mount where it says; may be repeated",
    )
    .with("FILE")
    .repeatable(),
    flag(
        Id::BindCwd,
        'x',
        &["bind-cwd"],
        Mode::Interactive,
        "Show the current directory at its own place",
    ),
    flag(Id::Help, 'h', &["help"], Mode::Both, "Print help"),
    flag(Id::Version, 'V', &["version"], Mode::Both, "Print version"),
];
