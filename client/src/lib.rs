//! The client: turns "run this job" into register, sandbox, execute, collect and publish.
//!
//! Read it in this order. [`cli`] is what can be asked, and [`original`] that part of it which the
//! program that we replace has, too. [`batch`] and [`workspace`] are the two
//! ways to ask for a job: by a document, for build tools, and by a command line, for people. Both
//! make a [`run::Job`], and [`run::run`] is the story of one, top to bottom: it takes a
//! [`daemon::Lease`], makes a [`sandbox`], executes in it ([`exec`]) and fetches the report. Then
//! [`output`] hashes what the job made and takes it into the store, [`result`] writes it down (with the
//! [`delta`] that makes the next stored tree), and
//! [`mod@publish`] puts it into the workspace. [`ingest`] is the way in: files of a workspace become
//! blobs and a manifest.
//!
//! [`record`] is what the result tells of all that the job touched, [`host`] knows what that is beside
//! its view, and [`explain`] makes out of it
//! why the job failed.
//!
//! [`learn`] makes a spec of a command, [`key`] a name of all that a spec stands for, and [`check`] finds
//! out whether its job makes the same every time. They run jobs as [`trial`] says.
//!
//! [`mod@mount`] mounts a view that lasts, without a job, for whoever wants a file system of it.
//!
//! [`gc`], [`fsck`] and [`recover`] look after a store, [`doctor`] after the machine.
//!
//! [`jobs`] looks into jobs that run, and [`kept`] puts failed ones away.
//!
//! [`exit_code`] is an interface, and [`error`] says which failure has which code.

pub mod aliases;
pub mod batch;
pub mod check;
pub mod cli;
pub mod commands;
pub mod daemon;
pub mod declaration;
pub mod delta;
pub mod doctor;
pub mod durable;
pub mod error;
pub mod exec;
pub mod exit_code;
pub mod explain;
pub mod fsck;
pub mod gc;
pub mod hermetic;
pub mod hidden;
pub mod host;
pub mod images;
pub mod ingest;
pub mod interactive;
pub mod jobs;
pub mod kept;
pub mod key;
pub mod learn;
pub mod mount;
pub mod mount_ops;
pub mod original;
pub mod output;
pub mod pending;
pub mod publish;
pub mod record;
pub mod recover;
pub mod result;
mod roots;
pub mod run;
pub mod runner;
pub mod runtime;
pub mod sandbox;
pub mod shell;
pub mod spec;
mod stored_tree;
pub mod trial;
pub mod workspace;

/// A hash of the sources that this binary was built from.
pub const BUILD_ID: &str = env!("WAKEBOX_BUILD_ID");
