//! Mount options: what the words after `-o` mean.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountAttrFlags, MountFlags};

use crate::error::{Error, Result};

/// Words for a flag of the mount, and whether they set or clear it.
const FLAGS: [(&str, MountFlags, bool); 20] = [
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("nosymfollow", MountFlags::NOSYMFOLLOW, true),
    ("symfollow", MountFlags::NOSYMFOLLOW, false),
    ("noatime", MountFlags::NOATIME, true),
    ("atime", MountFlags::NOATIME, false),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("diratime", MountFlags::NODIRATIME, false),
    ("relatime", MountFlags::RELATIME, true),
    ("norelatime", MountFlags::RELATIME, false),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("nostrictatime", MountFlags::STRICTATIME, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
];

/// Of these a mount has one.
const ATIME: MountFlags = MountFlags::NOATIME
    .union(MountFlags::RELATIME)
    .union(MountFlags::STRICTATIME);

/// Words that are for mount(8) itself, and those that say what is the case anyway.
const GENERIC: [&str; 16] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "silent",
    "loud",
    "default_permissions",
];

/// What the kernel shows of a FUSE mount, and mount(8) says again at a `remount`.
const SHOWN: [&str; 6] = [
    "user_id=",
    "group_id=",
    "rootmode=",
    "fd=",
    "max_read=",
    "blksize=",
];

/// What the options of a mount ask for.
#[derive(Debug)]
pub(super) struct Options {
    /// `state=`: where changes lie.
    pub(super) state: Option<PathBuf>,
    /// `store=`: where the content of inputs lies, if not in the state.
    pub(super) store: Option<PathBuf>,
    /// `lowerdir=`, `inputs=`: inputs, the first over the others.
    pub(super) inputs: Vec<PathBuf>,
    /// `upperdir=`: holds the state, and inputs over all others.
    pub(super) upper: Option<PathBuf>,
    /// `workdir=`: must be there, and is not used.
    pub(super) work: Option<PathBuf>,
    /// `upkeep=MILLISECONDS:BYTES`: how often the view's log is looked after, and up to which
    /// length it is left alone. For tests: a log is seldom long enough to be replaced.
    pub(super) upkeep: Option<(u64, u64)>,
    /// `remount`: change the flags of a mount.
    pub(super) remount: bool,
    /// `nosubtype`: the type is plain `fuse`.
    pub(super) plain_type: bool,
    /// `allow_other`: processes of other users may use the mount.
    pub(super) allow_other: bool,
    /// Words that mean nothing here, to be warned of.
    pub(super) unknown: Vec<String>,
    set: MountFlags,
    clear: MountFlags,
}

impl Options {
    /// Reads the words of all `-o`. What is not known is kept for a warning, because mount tables
    /// carry words for other programs.
    ///
    /// # Errors
    /// A word that is known and makes no sense.
    pub(super) fn parse(arguments: &[OsString]) -> Result<Self> {
        let mut options = Self {
            state: None,
            store: None,
            inputs: Vec::new(),
            upper: None,
            work: None,
            upkeep: None,
            remount: false,
            plain_type: false,
            allow_other: false,
            unknown: Vec::new(),
            set: MountFlags::empty(),
            clear: MountFlags::empty(),
        };
        for argument in arguments {
            for word in split(argument.as_bytes(), b',') {
                options.read(&word)?;
            }
        }
        Ok(options)
    }

    fn read(&mut self, word: &[u8]) -> Result<()> {
        let Some(equals) = word.iter().position(|&byte| byte == b'=') else {
            self.read_flag(&String::from_utf8_lossy(&unescape(word)));
            return Ok(());
        };
        let (key, value) = (&word[..equals], &word[equals + 1..]);
        let slot = match key {
            b"state" => &mut self.state,
            b"store" => &mut self.store,
            b"upperdir" => &mut self.upper,
            b"workdir" => &mut self.work,
            b"lowerdir" | b"inputs" => return self.read_inputs(key, value),
            b"upkeep" => {
                self.upkeep = Some(upkeep(value)?);
                return Ok(());
            }
            _ => {
                self.read_unknown(&String::from_utf8_lossy(word));
                return Ok(());
            }
        };
        *slot = Some(directory(key, value)?);
        Ok(())
    }

    fn read_inputs(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        // Only overlayfs' word is a list: a path may well have a colon.
        let parts = match key {
            b"lowerdir" => split(value, b':'),
            _ => vec![value.to_vec()],
        };
        for part in parts {
            self.inputs.push(directory(key, &part)?);
        }
        Ok(())
    }

    fn read_flag(&mut self, word: &str) {
        if let Some(&(_, flag, set)) = FLAGS.iter().find(|(name, ..)| *name == word) {
            return self.change(flag, set);
        }
        match word {
            "remount" => self.remount = true,
            "nosubtype" => self.plain_type = true,
            "allow_other" => self.allow_other = true,
            "" => {}
            _ => self.read_unknown(word),
        }
    }

    fn read_unknown(&mut self, word: &str) {
        let is_shown = self.remount || SHOWN.iter().any(|key| word.starts_with(key));
        if !GENERIC.contains(&word) && !is_shown {
            self.unknown.push(word.to_owned());
        }
    }

    /// The last word of a kind holds.
    fn change(&mut self, flag: MountFlags, set: bool) {
        let excluded = if set && ATIME.contains(flag) {
            ATIME
        } else {
            flag
        };
        self.set -= excluded;
        self.clear |= excluded;
        if set {
            self.set |= flag;
            self.clear -= flag;
        }
    }

    /// The flags of a mount that has these flags now.
    pub(super) fn apply(&self, now: MountFlags) -> MountFlags {
        (now - self.clear) | self.set
    }

    /// The flags of a new mount.
    pub(super) fn flags(&self) -> MountFlags {
        self.apply(MountFlags::empty())
    }
}

/// Splits at a separator that no backslash stands before, and leaves backslashes where they are.
fn split(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut escaped = false;
    for &byte in text {
        if byte == separator && !escaped {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(byte);
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut escaped = false;
    for &byte in text {
        escaped = byte == b'\\' && !escaped;
        if !escaped {
            bytes.push(byte);
        }
    }
    bytes
}

fn directory(key: &[u8], value: &[u8]) -> Result<PathBuf> {
    let path = unescape(value);
    if path.is_empty() {
        let key = OsStr::from_bytes(key).display();
        return Err(Error::Usage(format!(
            "the mount option {key}= names no directory"
        )));
    }
    Ok(OsString::from_vec(path).into())
}

fn upkeep(value: &[u8]) -> Result<(u64, u64)> {
    let numbers = std::str::from_utf8(value).ok();
    let numbers = numbers.and_then(|value| value.split_once(':'));
    let numbers =
        numbers.and_then(|(period, size)| Some((period.parse().ok()?, size.parse().ok()?)));
    numbers.ok_or_else(|| Error::Usage("upkeep= wants MILLISECONDS:BYTES".into()))
}

/// The flags of a mount as mount(2) takes them, from what statvfs(3) says.
pub(super) fn flags_of(shown: StatVfsMountFlags) -> MountFlags {
    let same = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::SYNCHRONOUS, MountFlags::SYNCHRONOUS),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        (ST_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ];
    let mut flags = MountFlags::empty();
    for (shown_as, flag) in same {
        flags.set(flag, shown.contains(shown_as));
    }
    flags.set(MountFlags::STRICTATIME, !flags.intersects(ATIME));
    flags
}

/// Of linux/statfs.h; rustix has no name for it.
const ST_NOSYMFOLLOW: StatVfsMountFlags = StatVfsMountFlags::from_bits_retain(0x2000);

/// The flags that belong to a new mount, as fsmount(2) takes them. Those of the file system are
/// not among them.
pub(super) fn attributes(flags: MountFlags) -> MountAttrFlags {
    let same = [
        (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (
            MountFlags::NOSYMFOLLOW,
            MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW,
        ),
        (
            MountFlags::NODIRATIME,
            MountAttrFlags::MOUNT_ATTR_NODIRATIME,
        ),
        (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
        (
            MountFlags::STRICTATIME,
            MountAttrFlags::MOUNT_ATTR_STRICTATIME,
        ),
    ];
    let mut attributes = MountAttrFlags::empty();
    for (flag, attribute) in same {
        attributes.set(attribute, flags.contains(flag));
    }
    attributes
}

/// When times of access move on a mount with these flags, in the words of mount(8).
pub(super) fn atime_policy(flags: MountFlags) -> String {
    let files = match flags & ATIME {
        MountFlags::NOATIME => "noatime",
        MountFlags::STRICTATIME => "strictatime",
        _ => "relatime",
    };
    match flags.contains(MountFlags::NODIRATIME) {
        true => format!("{files},nodiratime"),
        false => files.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(&[text.into()]).expect(text)
    }

    #[test]
    fn directories_are_found_and_a_backslash_takes_the_meaning_from_a_separator() {
        let options = parse(r"state=/s\,t,lowerdir=a:/b\:c:d\\e,upperdir=/u,workdir=w,inputs=x:y");
        assert_eq!(options.state, Some("/s,t".into()));
        let inputs: [PathBuf; 4] = ["a".into(), "/b:c".into(), r"d\e".into(), "x:y".into()];
        assert_eq!(options.inputs, inputs);
        assert_eq!(options.upper, Some("/u".into()));
        assert_eq!(options.work, Some("w".into()));
        assert!(options.unknown.is_empty());
        for empty in ["state=", "lowerdir=a:", "inputs=", "lowerdir="] {
            let error = Options::parse(&[empty.into()])
                .expect_err(empty)
                .to_string();
            assert!(error.ends_with("= names no directory"), "{error}");
        }
    }

    #[test]
    fn unknown_words_are_kept_for_a_warning_and_those_of_mount_are_not() {
        let options = parse("rw,lazytime,_netdev,x-a=b,comment=c,defaults,user_id=0,nosubtype,");
        assert_eq!(options.unknown, ["lazytime", "x-a=b", "comment=c"]);
        assert!(options.plain_type && !options.remount);
        // What the kernel shows of the mount comes back with a remount.
        let options = parse("rw,remount,seclabel");
        assert!(options.unknown.is_empty() && options.remount);
    }

    #[test]
    fn the_last_word_of_a_kind_holds_and_a_mount_has_one_policy_for_atime() {
        let flags = |text| parse(text).flags();
        assert_eq!(flags("ro,nodev,rw"), MountFlags::NODEV);
        assert_eq!(flags("noatime,strictatime"), MountFlags::STRICTATIME);
        assert_eq!(flags("strictatime,relatime"), MountFlags::RELATIME);
        let now = MountFlags::RELATIME | MountFlags::NODEV | MountFlags::RDONLY;
        let remounted = parse("rw,noatime").apply(now);
        assert_eq!(remounted, MountFlags::NOATIME | MountFlags::NODEV);
        assert_eq!(parse("").apply(now), now);
        assert_eq!(atime_policy(now), "relatime");
        let flags = MountFlags::STRICTATIME | MountFlags::NODIRATIME;
        assert_eq!(atime_policy(flags), "strictatime,nodiratime");
    }

    #[test]
    fn what_statvfs_says_is_what_mount_takes() {
        let shown = StatVfsMountFlags::RDONLY | StatVfsMountFlags::RELATIME | ST_NOSYMFOLLOW;
        let flags = MountFlags::RDONLY | MountFlags::RELATIME | MountFlags::NOSYMFOLLOW;
        assert_eq!(flags_of(shown), flags);
        assert_eq!(
            flags_of(StatVfsMountFlags::empty()),
            MountFlags::STRICTATIME
        );
    }
}
