//! `wakebox mount`, and the same as mount(8) calls it by the name of the program.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};

/// Names by which mount(8) calls us. The last is for `remount` of a mount with `nosubtype`, whose
/// type is plain `fuse`.
const HELPERS: [&str; 3] = ["mount.fuse.wakebox", "mount.wakebox", "mount.fuse"];

/// `wakebox mount`.
#[derive(Debug, Args)]
#[command(after_help = "Options of wakebox: state=DIR, store=DIR, inputs=DIR, \
lowerdir=A[:B...], upperdir=U, workdir=W, nosubtype, remount; and those of mount(8) for all file \
systems. Changes lie in the state directory: state=DIR, or U/.wakebox. Exit codes: 0 mounted; 1 \
wrong usage; 2 system error; 32 the mount failed.")]
pub struct MountArguments {
    /// What /proc/mounts shows as the source: any word
    pub source: OsString,
    /// Where to mount
    pub directory: PathBuf,
    /// Mount options, separated by commas; a backslash takes the meaning from a comma or colon
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// Stay until it is unmounted, and log to standard error
    #[arg(short, long)]
    pub foreground: bool,
    /// Say nothing of mount options that are not known
    #[arg(short, long)]
    pub sloppy: bool,
    /// Serve the mount of this device number; standard input is the state directory, standard
    /// output the conversation with whoever mounts
    #[arg(long, hide = true, value_name = "MAJOR:MINOR", value_parser = device_number)]
    pub serve: Option<(u32, u32)>,
    /// Only check what is asked (mount -f).
    #[arg(skip)]
    pub fake: bool,
}

fn device_number(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':');
    let parsed = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parsed.ok_or_else(|| "expected MAJOR:MINOR".into())
}

/// Mounts a view of wakebox; called by mount(8).
#[derive(Debug, Parser)]
#[command(name = "mount.fuse.wakebox", version = super::VERSION)]
struct Helper {
    source: OsString,
    directory: PathBuf,
    /// Mount options
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<OsString>,
    /// Say nothing of mount options that are not known
    #[arg(short = 's')]
    sloppy: bool,
    /// Only check what is asked
    #[arg(short = 'f')]
    fake: bool,
    /// Accepted: there is no mtab to write
    #[arg(short = 'n')]
    _no_mtab: bool,
    /// Accepted: there is nothing more to say
    #[arg(short = 'v')]
    _verbose: bool,
    /// Accepted: the type that mount(8) was called with
    #[arg(short = 't', value_name = "TYPE")]
    _type: Option<OsString>,
}

/// Whether the program is called as mount(8) calls its helpers.
pub(super) fn is_helper(arguments: &[OsString]) -> bool {
    let program = arguments
        .first()
        .and_then(|first| Path::new(first).file_name());
    program.is_some_and(|program| HELPERS.iter().any(|name| program == *name))
}

/// Reads a helper's command line, of which the first word is the program's name.
pub(super) fn read_helper(arguments: &[OsString]) -> Result<MountArguments, clap::Error> {
    let helper = Helper::try_parse_from(arguments)?;
    Ok(MountArguments {
        source: helper.source,
        directory: helper.directory,
        options: helper.options,
        foreground: false,
        sloppy: helper.sloppy,
        serve: None,
        fake: helper.fake,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_helper_is_known_by_its_name_and_reads_what_mount_says() {
        for program in ["/sbin/mount.fuse.wakebox", "mount.wakebox", "/x/mount.fuse"] {
            assert!(is_helper(&words(&[program])), "{program}");
        }
        for program in ["wakebox", "/sbin/mount", "mount.fuse3", ""] {
            assert!(!is_helper(&words(&[program])), "{program}");
        }
        let call = words(&[
            "m",
            "src",
            "/mnt",
            "-sfnv",
            "-o",
            "rw,state=/s",
            "-t",
            "fuse.wakebox",
        ]);
        let read = read_helper(&call).expect("a call");
        assert_eq!((read.source, read.directory), ("src".into(), "/mnt".into()));
        assert_eq!(read.options, ["rw,state=/s"]);
        assert!(read.sloppy && read.fake && !read.foreground);
        assert!(read_helper(&words(&["m", "src"])).is_err());
        assert!(read_helper(&words(&["m", "src", "/mnt", "-N", "5"])).is_err());
    }
}
