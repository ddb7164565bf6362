//! `wakebox cas`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::StoreArgument;

/// `wakebox cas`.
#[derive(Debug, Args)]
pub struct CasArguments {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgument,
    /// What to do
    #[command(subcommand)]
    pub command: CasCommand,
}

/// What can be done with a store.
#[derive(Debug, Subcommand)]
pub enum CasCommand {
    /// Put files into the store and print their hashes (`-` is standard input)
    Put {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Write a blob to standard output
    Cat {
        /// The blob's hash
        hash: String,
    },
    /// Exit with 0 if the store has all of these blobs, else with 1 and name those it has not
    Has {
        /// The blobs' hashes
        #[arg(required = true)]
        hashes: Vec<String>,
    },
    /// List all blobs: hash and size in bytes
    Ls,
    /// Print the path of a blob
    Path {
        /// The blob's hash
        hash: String,
    },
    /// Store a directory with all it holds and print the name of its tree, HASH/SIZE, for the
    /// `input-root` of a spec
    Import {
        /// The directory
        directory: PathBuf,
    },
    /// List a stored tree: mode, size, modification time, hash and path
    Tree {
        /// The tree, as `import` printed it; the size may be left out
        #[arg(value_name = "HASH[/SIZE]")]
        root: String,
        /// Print one line of JSON for each entry
        #[arg(long)]
        json: bool,
    },
    /// Write a stored tree out, into a new or empty directory
    Export {
        /// The tree, as `import` printed it; the size may be left out
        #[arg(value_name = "HASH[/SIZE]")]
        root: String,
        /// Where to
        directory: PathBuf,
    },
    /// Hash blobs anew, all of them unless some are named; exit with 1 if one is corrupt
    Verify {
        /// The blobs' hashes
        hashes: Vec<String>,
    },
}
