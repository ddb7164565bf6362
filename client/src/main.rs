//! The `wakebox` program: one binary for callers, shells and the daemon.

use std::process::ExitCode;

use client::cli::{Call, Cli, Command, Environment};
use client::{batch, commands, exit_code, workspace};

fn main() -> ExitCode {
    // A caller's descriptors are nobody's business down the line: neither the job's nor, above
    // all, the daemon's, which would keep a caller's pipe open long after we are gone.
    client::sandbox::close_inherited_on_exec();
    let environment = Environment::read();
    start_logging(&environment);
    let arguments: Vec<_> = std::env::args_os().collect();
    let batch = !arguments
        .get(1)
        .is_some_and(|first| client::cli::is_subcommand(first));
    let call = match Cli::read(arguments.into_iter()) {
        Ok(call) => call,
        Err(error) => return explain_usage(&error, batch),
    };
    match run(&call, &environment) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("wakebox: {error}");
            ExitCode::from(error.exit_code(batch))
        }
    }
}

fn run(call: &Call, environment: &Environment) -> client::error::Result<u8> {
    match call {
        Call::Batch(arguments) => batch::run(arguments, environment),
        Call::Command(Command::Run(arguments)) => workspace::run(arguments, environment),
        Call::Command(Command::Cas(arguments)) => commands::cas(arguments, environment),
        Call::Command(Command::Status(arguments)) => commands::status(arguments, environment),
        Call::Command(Command::Daemon(arguments)) => commands::daemon(arguments, environment),
    }
}

/// Help and version are answers; anything else is a mistake, whose code depends on the call.
fn explain_usage(error: &clap::Error, batch: bool) -> ExitCode {
    let _ = error.print();
    match (error.use_stderr(), batch) {
        (false, _) => ExitCode::SUCCESS,
        (true, true) => ExitCode::from(exit_code::BATCH_USAGE),
        (true, false) => ExitCode::from(exit_code::USAGE),
    }
}

fn start_logging(environment: &Environment) {
    let filter = match &environment.log {
        Some(filter) => filter.to_string_lossy().into_owned(),
        // fuser warns of each operation that is left to the kernel.
        None => "warn,fuser=error".into(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
