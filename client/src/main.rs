//! The `wakebox` program: one binary for callers, shells and the daemon.

use std::process::ExitCode;

use client::cli::{Call, Command, Environment, Misuse};
use client::error::say;
use client::runner::Listener;
use client::{
    batch, check, commands, doctor, exit_code, explain, fsck, gc, interactive, jobs, key, learn,
    mount, recover, workspace,
};

fn main() -> ExitCode {
    // Before anything is opened: what is open now was left open for us.
    let listener = Listener::find();
    // A caller's descriptors are nobody's business down the line: neither the job's nor, above
    // all, the daemon's, which would keep a caller's pipe open long after we are gone.
    client::sandbox::close_inherited_on_exec();
    let environment = Environment::read();
    start_logging(&environment);
    let arguments: Vec<_> = std::env::args_os().collect();
    let call = match Call::read(&arguments) {
        Ok(call) => call,
        Err(misuse) => return explain_misuse(&misuse, &listener),
    };
    match run(&call, &environment) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&error);
            if call.is_originals() {
                listener.tell(&error);
            }
            ExitCode::from(error.exit_code(call.is_originals()))
        }
    }
}

fn run(call: &Call, environment: &Environment) -> client::error::Result<u8> {
    match call {
        Call::Batch(arguments) => batch::run(arguments, environment),
        Call::Interactive(arguments) => interactive::run(arguments, environment),
        Call::Help => commands::help().map(|()| 0),
        Call::Nothing => commands::help().map(|()| exit_code::ORIGINAL_USAGE),
        Call::Version => commands::version(),
        Call::Command(Command::Run(arguments)) => workspace::run(arguments, environment),
        Call::Command(Command::Explain(arguments)) => explain::run(arguments),
        Call::Command(Command::Learn(arguments)) => learn::run(arguments, environment),
        Call::Command(Command::Key(arguments)) => key::run(arguments),
        Call::Command(Command::Check(arguments)) => check::run(arguments, environment),
        Call::Command(Command::Cas(arguments)) => commands::cas(arguments, environment),
        Call::Command(Command::Apply(arguments)) => commands::apply(arguments, environment),
        Call::Command(Command::Gc(arguments)) => gc::run(arguments, environment),
        Call::Command(Command::Fsck(arguments)) => fsck::run(arguments, environment),
        Call::Command(Command::Recover(arguments)) => recover::run(arguments, environment),
        Call::Command(Command::Doctor(arguments)) => doctor::run(arguments, environment),
        Call::Command(Command::Status(arguments)) => commands::status(arguments, environment),
        Call::Command(Command::Jobs(arguments)) => jobs::list(arguments, environment),
        Call::Command(Command::Job(arguments)) => jobs::run(arguments, environment),
        Call::Command(Command::Mount(arguments)) => Ok(mount::run(arguments, environment)),
        Call::Command(Command::Daemon(arguments)) => commands::daemon(arguments, environment),
        Call::Command(Command::Completions { shell }) => commands::completions(*shell),
        Call::Command(Command::Manual) => commands::manual(),
    }
}

/// Help is an answer; anything else is a mistake, whose code depends on the call.
fn explain_misuse(misuse: &Misuse, listener: &Listener) -> ExitCode {
    match misuse {
        Misuse::Original(line) => {
            say(line);
            listener.tell(line);
            ExitCode::from(exit_code::ORIGINAL_USAGE)
        }
        Misuse::Subcommand(error) => explain(error, exit_code::USAGE),
        Misuse::Mount(error) => explain(error, exit_code::MOUNT_USAGE),
    }
}

fn explain(error: &clap::Error, code: u8) -> ExitCode {
    let _ = error.print();
    match error.use_stderr() {
        true => ExitCode::from(code),
        false => ExitCode::SUCCESS,
    }
}

fn start_logging(environment: &Environment) {
    let filter = match &environment.log {
        Some(filter) => filter.to_string_lossy().into_owned(),
        None => "warn".into(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // They would go to standard error as well, and panic where that is on a full disk.
        .log_internal_errors(false)
        .init();
}
