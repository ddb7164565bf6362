//! What squashfs images say about themselves: where they want to be, what they want mounted
//! beside them, and what is to be read into the environment before the command runs.
//!
//! An image can be looked into by whoever has it mounted, so a job of our own does: it mounts it
//! and copies these few files out.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::exec::{self, SandboxError, Status};
use crate::mount_ops::{MountOp, TypedOp, read};
use crate::sandbox::plan::{Draft, Ids, Namespaces, Stdin, Step};
use crate::shell;

/// Where an image keeps these files.
const METADATA: &str = ".wakebox";
/// Long enough for any image that can be served at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// Copies the files that are there; `$1` is the image's directory, `$2` ours.
const SCRIPT: &str = r#"cd "$1" 2>/dev/null || exit 0
for name in mountpoint mounts environment; do
  if [ -f "$name" ]; then cat "$name" >"$2/$name" || exit 1; fi
done"#;

/// Operations that need nothing further to be known.
#[derive(Debug, Default)]
pub struct Expanded {
    /// The operations, with those that the images ask for.
    pub ops: Vec<MountOp>,
    /// Shell fragments, as seen inside, in order.
    pub fragments: Vec<PathBuf>,
    /// The program that serves the images, if there are any.
    pub squashfuse: Option<PathBuf>,
}

/// Asks the images among the operations. `path` is the client's `PATH`.
///
/// # Errors
/// No squashfuse; an image that cannot be read or served; nonsense in its files.
pub fn expand(ops: Vec<MountOp>, cwd: &Path, path: Option<&OsStr>) -> Result<Expanded> {
    let mut expanded = Expanded::default();
    for op in ops {
        let MountOp::Squashfs {
            source,
            destination,
        } = op
        else {
            expanded.ops.push(op);
            continue;
        };
        if expanded.squashfuse.is_none() {
            expanded.squashfuse = Some(find_program(path)?);
        }
        let source = cwd.join(source);
        // Opened later, where `..` may lead somewhere else.
        let source = source
            .canonicalize()
            .map_err(|error| Error::io("read the squashfs image", source, error))?;
        let program = expanded.squashfuse.clone();
        let metadata = look_into(&source, program)?;
        expanded.add(source, destination, metadata)?;
    }
    Ok(expanded)
}

impl Expanded {
    fn add(&mut self, source: PathBuf, place: Option<PathBuf>, found: Metadata) -> Result<()> {
        let wrong = |what: &str| {
            let source = source.display();
            Error::Usage(format!("squashfs image {source}: {METADATA}/{what}"))
        };
        let place = match (place, found.mountpoint) {
            (Some(place), _) => place,
            (None, Some(place)) if place.is_absolute() => {
                // Its own wish is granted wherever that is.
                let destination = place.clone();
                self.ops.push(MountOp::CreateDir { destination });
                place
            }
            (None, Some(_)) => return Err(wrong("mountpoint: is no absolute path")),
            (None, None) => {
                return Err(wrong("mountpoint: is missing, and so is a destination"));
            }
        };
        if found.has_environment {
            self.fragments
                .push(place.join(METADATA).join("environment"));
        }
        let beside = found.mounts.map(|text| helpers(&text)).transpose();
        let beside = beside.map_err(|problem| wrong(&format!("mounts: {problem}")))?;
        self.ops.push(MountOp::Squashfs {
            source: source.clone(),
            destination: Some(place),
        });
        self.ops.extend(beside.unwrap_or_default());
        Ok(())
    }

    /// The command, in a shell that reads the fragments first.
    pub fn command(&self, command: Vec<OsString>) -> Vec<OsString> {
        if self.fragments.is_empty() {
            return command;
        }
        let mut script = OsString::new();
        for fragment in &self.fragments {
            script.push(". ");
            script.push(shell::quote([&fragment.into()]));
            script.push(" && ");
        }
        script.push("exec ");
        script.push(shell::quote(&command));
        vec!["/bin/sh".into(), "-c".into(), script]
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Helpers {
    mount_ops: Vec<TypedOp>,
}

fn helpers(text: &str) -> std::result::Result<Vec<MountOp>, String> {
    let helpers: Helpers = json5::from_str(text).map_err(|error| error.to_string())?;
    let ops = read(&helpers.mount_ops)?;
    let allowed = |op: &MountOp| {
        matches!(
            op,
            MountOp::Bind { .. } | MountOp::Tmpfs { .. } | MountOp::CreateDir { .. }
        )
    };
    match ops.iter().position(|op| !allowed(op)) {
        Some(i) => Err(format!(
            "mount-ops[{i}].type: an image may ask for bind, tmpfs and create-dir only"
        )),
        None => Ok(ops),
    }
}

fn find_program(path: Option<&OsStr>) -> Result<PathBuf> {
    let runs = |file: &PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(file)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = std::env::split_paths(path.unwrap_or_default())
        .map(|directory| directory.join("squashfuse"))
        .find(|file| file.is_absolute() && runs(file));
    found.ok_or_else(|| {
        let what = "squashfs images need the program squashfuse, which is not in PATH";
        SandboxError::Image(what.into()).into()
    })
}

/// The files, as found.
#[derive(Debug, Default)]
struct Metadata {
    mountpoint: Option<PathBuf>,
    mounts: Option<String>,
    has_environment: bool,
}

fn look_into(image: &Path, squashfuse: Option<PathBuf>) -> Result<Metadata> {
    fs::File::open(image).map_err(|error| Error::io("read the squashfs image", image, error))?;
    let room = tempfile::tempdir().map_err(|error| Error::io("create", "a directory", error))?;
    let (mounted, copied) = (room.path().join("image"), room.path().join("copied"));
    for directory in [&mounted, &copied] {
        fs::create_dir(directory).map_err(|error| Error::io("create", directory, error))?;
    }
    let plan = looker(image, squashfuse, &mounted, &copied).check();
    let plan = plan.map_err(|error| Error::Usage(error.to_string()))?;
    let ended = exec::start(&plan, None)?.wait(Some(PATIENCE), None)?;
    if ended.status != Status::Exited(0) {
        let image = image.display();
        return Err(
            SandboxError::Image(format!("cannot look into the squashfs image {image}")).into(),
        );
    }
    let file = |name: &str| fs::read(copied.join(name)).ok();
    let line = |text: Vec<u8>| text.split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec);
    Ok(Metadata {
        mountpoint: file("mountpoint")
            .and_then(line)
            .map(|line| OsString::from_vec(line).into()),
        mounts: file("mounts").map(|text| String::from_utf8_lossy(&text).into_owned()),
        has_environment: file("environment").is_some(),
    })
}

fn looker(image: &Path, squashfuse: Option<PathBuf>, mounted: &Path, copied: &Path) -> Draft {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    Draft {
        ids: Ids {
            inside_uid: uid.as_raw(),
            inside_gid: gid.as_raw(),
            outside_uid: uid.as_raw(),
            outside_gid: gid.as_raw(),
        },
        namespaces: Namespaces::default(),
        steps: vec![Step::Squashfs {
            source: image.into(),
            destination: mounted.into(),
        }],
        squashfuse,
        limits: Vec::new(),
        cwd: "/".into(),
        stdin: Stdin::Open("/dev/null".into()),
        argv: vec![
            "/bin/sh".into(),
            "-c".into(),
            SCRIPT.into(),
            "sh".into(),
            mounted.join(METADATA).into(),
            copied.into(),
        ],
        env: vec!["PATH=/usr/bin:/bin".into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_read_before_the_quoted_command() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let command = words(&["a b", "it's", "$x"]);
        assert_eq!(Expanded::default().command(command.clone()), command);
        let expanded = Expanded {
            fragments: vec!["/m/.wakebox/environment".into(), "/it's".into()],
            ..Expanded::default()
        };
        let script = r". /m/.wakebox/environment && . '/it'\''s' && exec 'a b' 'it'\''s' '$x'";
        assert_eq!(expanded.command(command), words(&["/bin/sh", "-c", script]));
    }

    #[test]
    fn an_image_may_not_ask_for_everything() {
        let ask = |kind: &str| {
            helpers(&format!(
                r#"{{"mount-ops":[{{"type":"{kind}","destination":"/x"}}]}}"#
            ))
        };
        assert!(ask("tmpfs").is_ok() && ask("create-dir").is_ok());
        assert!(
            ask("workspace")
                .unwrap_err()
                .starts_with("mount-ops[0].type: an image may")
        );
        assert_eq!(ask("bind").unwrap_err(), "mount-ops[0].source: is missing");
        assert!(helpers("{}").is_err());
    }
}
