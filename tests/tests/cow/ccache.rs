//! A compiler's cache as an input that jobs change: what ccache does to a plain directory, what it
//! does to an overlay, and what a job's result has of it.

use std::collections::BTreeMap;
use std::io::Write;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use wakebox_tests::{Place, needs_fuse, skip};

use super::{apply, cas, export, same, sh};

/// ccache writes the time into what it stores, and chooses by its process number which file of counts
/// it adds to. With times and numbers given, what two runs store is the same to the byte. The time is
/// later than that of all files, for ccache distrusts headers from the future.
const CLOCK: &str = "#include <stdlib.h>\n#include <sys/syscall.h>\n#include <sys/time.h>\n\
    #include <time.h>\n#include <unistd.h>\n\
    static time_t at(void) { return atol(getenv(\"FIXED_TIME\")); }\n\
    int clock_gettime(clockid_t c, struct timespec *t) {\n\
    if (c != CLOCK_REALTIME) return syscall(SYS_clock_gettime, c, t);\n\
    t->tv_sec = at(); t->tv_nsec = 0; return 0; }\n\
    int gettimeofday(struct timeval *t, void *z) { t->tv_sec = at(); t->tv_usec = 0; return 0; }\n\
    time_t time(time_t *t) { time_t now = at(); if (t) *t = now; return now; }\n\
    pid_t getpid(void) { const char *n = getenv(\"FIXED_PID\");\n\
    return n ? atoi(n) : syscall(SYS_getpid); }\n";

/// Compiles every file, and tells how often the cache was of use.
const BUILD: &str = "set -e; mkdir -p out; n=0; for f in src/common/*.c src/compress/*.c \
    src/decompress/*.c src/dictBuilder/*.c; do\n\
    n=$((n + 1)); FIXED_PID=$n ccache gcc -O0 -DZSTD_DISABLE_ASM=1 -c -o out/$(basename $f .c).o $f; done";

/// Small files, of which one more is changed each time.
const CHANGED: [&str; 3] = [
    "common/error_private.c",
    "common/zstd_common.c",
    "common/debug.c",
];

struct World {
    place: Place,
    environment: Vec<(String, String)>,
}

/// Why this cannot be tried here, if it cannot.
fn cannot_cache() -> Option<String> {
    let works = |tool: &&str| {
        let output = Command::new(tool).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let missing = ["ccache", "gcc"].into_iter().find(|tool| !works(tool));
    missing.map(|tool| format!("there is no {tool}"))
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        let clock = place.root().join("clock.c");
        std::fs::write(&clock, CLOCK).expect("a file");
        sh(
            place.root(),
            "gcc -shared -fPIC -o clock.so clock.c; mkdir tmp",
        );
        sh(
            &place.workspace(),
            &format!(
                "cp -r {} src; mkdir ccache",
                wakebox_tests::zstd().join("lib").display()
            ),
        );
        let root = place.root().display().to_string();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let later = now.expect("after 1970").as_secs() + 86_400;
        let environment = [
            ("PATH", "/usr/bin:/bin".into()),
            ("HOME", format!("{root}/home")),
            (
                "CCACHE_DIR",
                format!("{}/ccache", place.workspace().display()),
            ),
            // With what only this machine has a use for: inodes and half-written files.
            ("CCACHE_TEMPDIR", format!("{root}/tmp")),
            ("CCACHE_NOINODECACHE", "1".into()),
            ("LD_PRELOAD", format!("{root}/clock.so")),
            ("FIXED_TIME", later.to_string()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value));
        Self {
            place,
            environment: environment.into(),
        }
    }

    /// Runs a script in the real workspace.
    fn plain(&self, script: &str) -> String {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .current_dir(self.place.workspace());
        let output = command.env_clear().envs(self.environment.clone()).output();
        let output = output.expect("a shell");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Bytes in the upper directory of an overlay over the workspace after a script has run in it,
    /// or why that is not known.
    fn overlay(&self, round: usize, script: &str) -> Result<u64, String> {
        let (root, workspace) = (self.place.root(), self.place.workspace());
        let layers = root.join(format!("overlay-{round}"));
        sh(
            root,
            &format!("mkdir -p {0}/upper {0}/work", layers.display()),
        );
        let mount = format!(
            "mount -t overlay overlay -o lowerdir={0},upperdir={1}/upper,workdir={1}/work {0}",
            workspace.display(),
            layers.display()
        );
        let script = format!("{mount} && cd {} && {script}", workspace.display());
        let mut command = Command::new("unshare");
        command.args(["-m", "--", "sh", "-c", &script]).env_clear();
        let output = command.envs(self.environment.clone()).output();
        let output = output.map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(files(&layers.join("upper/ccache"))
                .values()
                .map(|b| b.len() as u64)
                .sum()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// A job that builds on a stored tree, with some sources changed.
    fn job(&self, tree: &str, changed: &[&str]) -> Value {
        let mut spec = self.place.spec(BUILD);
        let environment = self.environment.iter();
        let environment: Vec<_> = environment
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        spec["environment"] = json!(environment);
        spec["input-root"] = json!(tree);
        spec["copy-on-write"] = json!(["ccache"]);
        let visible = changed.iter().map(|file| {
            let path = format!("src/{file}");
            self.place.visible(&path, self.place.read(&path))
        });
        spec["visible"] = visible.collect();
        spec["staging"] = json!("discard");
        self.place.result_of(&spec)
    }

    /// How often the cache in a directory was hit and missed.
    fn hits(&self, cache: &Path) -> (u64, u64) {
        let stats = self.plain(&format!(
            "CCACHE_DIR={} ccache --print-stats",
            cache.display()
        ));
        let stat = |name: &str| -> u64 {
            let lines = stats.lines().filter_map(|line| line.split_once('\t'));
            let value = lines
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value);
            value
                .map(|value| value.parse::<u64>().expect("a number"))
                .sum()
        };
        let hits = stat("direct_cache_hit") + stat("preprocessed_cache_hit");
        (hits, stat("cache_miss"))
    }
}

/// All files below a directory, by path.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                found.insert(entry.path(), std::fs::read(entry.path()).expect("a file"));
            }
        }
    }
    found
}

/// Bytes of files that are new or not what they were.
fn changed_bytes(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> u64 {
    let new = after
        .iter()
        .filter(|(path, bytes)| before.get(*path) != Some(bytes));
    new.map(|(_, bytes)| bytes.len() as u64).sum()
}

/// Bytes that a result adds to the store for the cache.
fn delta_bytes(result: &Value) -> u64 {
    let files = result["hashed_files"].as_object().expect("files");
    let in_cache = files.iter().filter(|(path, entry)| {
        let change = result["changed"][path.as_str()]["change"].as_str();
        path.starts_with("ccache/")
            && entry["type"] == "file"
            && matches!(change, None | Some("modified"))
    });
    in_cache
        .map(|(_, entry)| entry["size"].as_u64().expect("a size"))
        .sum()
}

#[test]
fn a_compilers_cache_costs_what_it_gained() {
    needs_fuse!();
    if let Some(reason) = cannot_cache() {
        skip!(reason);
    }
    let world = World::new();
    let workspace = world.place.workspace();
    let cache = workspace.join("ccache");
    world.plain(BUILD);
    sh(&workspace, "rm -r out");
    let (_, filled) = world.hits(&cache);
    let mut tree = cas(&world.place, &["import", workspace.to_str().expect("text")]);
    for round in 0..CHANGED.len() {
        let changed = &CHANGED[..=round];
        let source = workspace.join("src").join(changed[round]);
        let mut file = std::fs::File::options()
            .append(true)
            .open(source)
            .expect("a source");
        writeln!(file, "int added_{round}(void) {{ return {round}; }}").expect("a line");
        let (before, was) = (files(&cache), world.hits(&cache));
        let result = world.job(&tree, changed);
        let upper = world.overlay(round, BUILD);
        world.plain(BUILD);
        sh(&workspace, "rm -r out");
        let (after, is) = (files(&cache), world.hits(&cache));
        assert_eq!(
            (is.0 - was.0, is.1 - was.1),
            (filled - 1, 1),
            "hits and misses"
        );
        let next = apply(&world.place, &tree, &result, &["--only", "ccache"]).expect(0);
        tree = next.stdout().trim_end().to_owned();
        let (real, delta) = (changed_bytes(&before, &after), delta_bytes(&result));
        let whole: usize = after.values().map(Vec::len).sum();
        let told = format!(
            "ccache, round {round}: {delta} bytes of {whole}, really {real}; an overlay: {upper:?}; \
             {} hits, {} miss\n",
            is.0 - was.0,
            is.1 - was.1
        );
        let _ = std::io::stderr().write_all(told.as_bytes());
        assert!(
            delta.abs_diff(real) * 10 <= real,
            "{delta} bytes and not {real}"
        );
        match upper {
            Ok(upper) => assert!(delta * 20 <= upper, "{delta} bytes, an overlay has {upper}"),
            Err(reason) => {
                wakebox_tests::say_skipped(file!(), line!(), format!("no overlay: {reason}"));
            }
        }
        let exported = export(&world.place, &tree, &format!("exported-{round}"));
        assert_eq!(world.hits(&exported.join("ccache")), is, "the job's hits");
        same(&cache, &exported.join("ccache"));
    }

    world.place.expect_clean();
}
