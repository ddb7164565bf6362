//! What a hostile job is put into, and what must be the same afterwards.

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use wakebox_tests::attack::{DECLARED, SECRET, TRIED};
use wakebox_tests::{Outcome, Place, say_skipped, wakebox};

/// How a job is kept from the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sandbox {
    /// `wakebox run`.
    Hermetic,
    /// `wakebox run --host`.
    Host,
    /// A batch job that sees itself as root.
    BatchAsRoot,
    /// A batch job that sees itself as an ordinary user.
    BatchAsUser,
    /// None at all.
    None,
}

impl Sandbox {
    pub(super) const ALL: [Self; 4] = [
        Self::Hermetic,
        Self::Host,
        Self::BatchAsRoot,
        Self::BatchAsUser,
    ];
}

/// Who runs all of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum User {
    /// Whoever runs the tests.
    Own,
    /// User 65534.
    Ordinary,
}

/// A workspace, a store, another job and other processes.
#[derive(Debug)]
pub(super) struct World {
    pub(super) place: Place,
    user: User,
    sandbox: Sandbox,
    listener: UnixListener,
}

/// What of a file is looked at: mode, time of change of content, content.
type Kept = (u32, i64, Vec<u8>);

/// Another job and a bystander around the attack. Two files are left open on purpose.
const SCRIPT: &str = r#"
set +e
cd "$ROOT/workspace"
$WAKEBOX run --quiet --host -i declared -e ROOT -- \
    sh -c 'echo staged >other; : >"$ROOT/flags/up"; exec sleep 300' &
client=$!
until test -e "$ROOT/flags/up"; do sleep 0.02; done
sleep 300 & bystander=$!
daemon=$($WAKEBOX status --json | grep -o '"pid": *[0-9]*' | grep -o '[0-9]*$')
shared=$(ipcmk -M 4096 -p 0666 2>/dev/null | grep -o '[0-9]*$')
exec 7<secret 8<"$ROOT/home"
ATTACK
code=$?
exec 7<&- 8<&-
kill -0 $client && kill -0 $bystander && kill -0 $daemon && echo everybody lives
test -z "$shared" || ipcrm -m "$shared"
kill $client $bystander
wait $client $bystander
exit $code
"#;

impl World {
    pub(super) fn new(user: User, sandbox: Sandbox) -> Self {
        let place = Place::new();
        place.write("declared", DECLARED);
        place.write("secret", SECRET);
        let name = place.root().as_os_str().as_encoded_bytes();
        let name = SocketAddr::from_abstract_name(name).expect("a name");
        let listener = UnixListener::bind_addr(&name).expect("a socket");
        listener.set_nonblocking(true).expect("set");
        std::fs::create_dir(place.root().join("flags")).expect("a directory");
        std::fs::write(place.root().join("home/outside"), SECRET).expect("a file");
        Self {
            place,
            user,
            sandbox,
            listener,
        }
    }

    /// Insists that an attack is refused and that nothing has changed.
    #[track_caller]
    pub(super) fn survives(&self, attack: &str) {
        let before = self.look();
        let Some(outcome) = self.run(&SCRIPT.replace("ATTACK", &self.call(attack))) else {
            say_skipped(file!(), line!(), "cannot become an ordinary user");
            return;
        };
        let after = self.look();
        restore(&before, &after);
        let told = outcome.stdout();
        let who = format!("{attack}, {:?}, {:?}", self.user, self.sandbox);
        let escaped: Vec<_> = told
            .lines()
            .filter(|line| line.starts_with("ESCAPED"))
            .collect();
        assert!(escaped.is_empty(), "{who}: {escaped:#?}");
        let is_run =
            outcome.code() == TRIED && told.contains("\nrefused ") | told.starts_with("refused ");
        assert!(
            is_run,
            "{who}: {}\n{told}\n{}",
            outcome.code(),
            outcome.stderr()
        );
        assert!(
            told.ends_with("everybody lives\n"),
            "{who}: {told}\n{}",
            outcome.stderr()
        );
        assert_eq!(after, before, "{who}");
        assert!(self.place.verifies(&self.place.store()), "{who}: the store");
        assert!(self.listener.accept().is_err(), "{who}: somebody called");
        self.place.expect_clean_within(Duration::from_secs(3));
    }

    /// What an attack says, whatever comes of it.
    pub(super) fn attempt(&self, attack: &str) -> String {
        let script = SCRIPT.replace("ATTACK", &self.call(attack));
        self.run(&script).expect("a shell").stdout()
    }

    /// The call of an attack in the sandbox, for a shell.
    fn call(&self, attack: &str) -> String {
        let program = wakebox().with_file_name("attack");
        let program = program.to_str().expect("text");
        let sight = match self.sandbox {
            Sandbox::Hermetic => "hermetic",
            _ => "host",
        };
        let words = format!("{program} {attack} \"$ROOT\" {sight} $client $bystander $daemon");
        match self.sandbox {
            Sandbox::Hermetic => {
                format!("$WAKEBOX run --quiet -i declared --bind {program} -- {words}")
            }
            Sandbox::Host => format!("$WAKEBOX run --quiet --host -i declared -- {words}"),
            Sandbox::None => words,
            Sandbox::BatchAsRoot => self.batch(program, attack, 0),
            Sandbox::BatchAsUser => self.batch(program, attack, 1000),
        }
    }

    /// The pids, which are not known yet, come by the environment of a shell.
    fn batch(&self, program: &str, attack: &str, user: u32) -> String {
        let root = self.place.root().to_str().expect("text");
        let store = self.place.store();
        let spec = json!({
            "command": [program, attack, root, "host", "CLIENT", "BYSTANDER", "DAEMON"],
            "environment": ["PATH=/usr/bin:/bin"],
            "visible": ["declared"],
            "user-id": user,
            "group-id": user,
            "cas-dir": store,
            "mount-ops": [{"type": "workspace", "destination": "."}],
        });
        let file = self.place.root().join("flags/spec");
        std::fs::write(file, spec.to_string()).expect("a spec");
        "sed -i \"s/CLIENT/$client/; s/BYSTANDER/$bystander/; s/DAEMON/$daemon/\" \"$ROOT/flags/spec\"
        $WAKEBOX -p \"$ROOT/flags/spec\""
            .into()
    }

    fn run(&self, script: &str) -> Option<Outcome> {
        match self.user {
            User::Ordinary => self.place.as_ordinary_user_with_fuse(script),
            User::Own => {
                let output = self.place.other("sh").args(["-c", script]).output();
                Some(Outcome(output.expect("a shell")))
            }
        }
    }

    /// Everything outside that a job could want to change.
    pub(super) fn look(&self) -> BTreeMap<PathBuf, Kept> {
        let mut seen = BTreeMap::new();
        for directory in ["workspace", "home"] {
            walk(&self.place.root().join(directory), &mut seen);
        }
        for file in KNOBS {
            let content = std::fs::read(file).unwrap_or_default();
            seen.insert(file.into(), (0, 0, content));
        }
        for device in [
            "/dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/tty",
            "/dev/urandom",
        ] {
            let mode = std::fs::metadata(device).map_or(0, |is| is.mode());
            seen.insert(device.into(), (mode, 0, Vec::new()));
        }
        seen
    }
}

const KNOBS: [&str; 4] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/domainname",
];

/// A machine that has been taken over is no place for further tests.
fn restore(before: &BTreeMap<PathBuf, Kept>, after: &BTreeMap<PathBuf, Kept>) {
    for file in KNOBS.map(Path::new) {
        if before.get(file) != after.get(file) {
            let _ = std::fs::write(file, &before[file].2);
        }
    }
}

fn walk(directory: &Path, seen: &mut BTreeMap<PathBuf, Kept>) {
    for entry in std::fs::read_dir(directory).expect("readable").flatten() {
        let path = entry.path();
        let is = path.symlink_metadata().expect("there");
        // Stores change: they are looked at by their own means.
        if path.ends_with(".cache") || path.ends_with(".build") {
            continue;
        }
        let content = if is.is_file() {
            std::fs::read(&path).expect("readable")
        } else {
            Vec::new()
        };
        let time = if is.is_dir() { 0 } else { is.mtime_nsec() };
        seen.insert(path.clone(), (is.mode(), time, content));
        if is.is_dir() {
            walk(&path, seen);
        }
    }
}
