//! Is a record complete, and is nothing in it that did not happen? strace is asked about the same
//! job, and both have to tell the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use wakebox_tests::{Place, needs_fuse, skip};

use super::trace::{CALLS, Did, Trace};
use super::{has, rows};

/// What is known of a job from elsewhere.
#[derive(Default)]
struct Known {
    /// Links among the inputs, and where they lead from the view's root.
    links: BTreeMap<&'static str, &'static str>,
    /// Programs among the inputs, and the interpreters that the kernel opens for them.
    interpreters: BTreeMap<&'static str, &'static str>,
}

impl Known {
    /// Where a path leads; the links on the way are added to `walked`.
    fn resolve(&self, path: &str, walked: &mut BTreeSet<String>) -> String {
        let mut done = String::new();
        for name in path.split('/') {
            let at = if done.is_empty() {
                name.to_owned()
            } else {
                format!("{done}/{name}")
            };
            done = match self.links.get(at.as_str()) {
                Some(target) => {
                    walked.insert(at);
                    self.resolve(target, walked)
                }
                None => at,
            };
        }
        done
    }
}

fn works(tool: &str) -> bool {
    let output = std::process::Command::new(tool).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// Runs words under strace in a job with a full record, and compares what both tell.
fn compare(place: &Place, visible: &Value, words: &[&str], known: &Known) -> Trace {
    let log = place.flag("trace");
    let file = log.to_str().expect("text");
    let strace = [
        "strace", "-ff", "-qq", "-y", "-s", "100000", "-e", CALLS, "-o", file, "--",
    ];
    let mut spec = place.spec_of(&[&strace, words].concat());
    spec["visible"] = visible.clone();
    spec["record"] = json!("full");
    let result = place.result_of(&spec);
    let root = place.workspace().canonicalize().expect("a workspace");
    let trace = Trace::read(&log, root.to_str().expect("text"));
    let told = rows(&result);
    let missing = trace.did.iter();
    let missing = missing.filter_map(|(path, did)| untold(&told, path, *did, known));
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "nobody tells of {missing:#?}");
    let surplus = told
        .iter()
        .flat_map(|(path, row)| unexplained(path, row, &trace, known));
    let surplus: Vec<_> = surplus.collect();
    assert!(surplus.is_empty(), "nobody did that: {surplus:#?}");
    trace
}

/// What a system call did and the record does not have.
fn untold(told: &BTreeMap<&str, &Value>, path: &str, did: Did, known: &Known) -> Option<String> {
    let mut walked = BTreeSet::new();
    let target = known.resolve(path, &mut walked);
    let class = match did {
        Did::Read => "read",
        Did::Exec => "exec",
        Did::List => "list",
        Did::Readlink => "readlink",
        Did::Missed => "probe-absent",
        Did::Named => return None,
    };
    let is_told = |path: &str, class| told.get(path).is_some_and(|row| has(row, class));
    if let Some(link) = walked
        .iter()
        .find(|link| *link != path && !is_told(link, "readlink"))
    {
        return Some(format!("link {link} on the way to {path}"));
    }
    // A link is read by its own name, everything else by where that leads.
    let mut cut = if did == Did::Readlink { path } else { &target };
    while !is_told(cut, class) {
        // A path is absent by its first absent component.
        match cut.rsplit_once('/') {
            Some((above, _)) if did == Did::Missed => cut = above,
            _ => {
                return Some(format!(
                    "{class} of {path}: {:?}",
                    told.get(target.as_str())
                ));
            }
        }
    }
    None
}

/// What of a row no system call explains, no link that was walked, and no interpreter.
fn unexplained(path: &str, row: &Value, trace: &Trace, known: &Known) -> Vec<String> {
    let also = row["also"].as_array().into_iter().flatten();
    let classes = std::iter::once(&row["class"])
        .chain(also)
        .filter_map(Value::as_str);
    let explained = |class: &str| match class {
        "read" => led_to(path, &[Did::Read], trace, known),
        "exec" => led_to(path, &[Did::Exec], trace, known) || is_interpreter(path, trace, known),
        "list" => led_to(path, &[Did::List], trace, known),
        "readlink" => trace.has(path, Did::Readlink) || is_walked(path, trace, known),
        "probe-absent" => is_missed(path, trace, known),
        // Looked at, made, changed or removed, by name; by its interpreter's or a link's, too.
        _ => {
            let any = [Did::Named, Did::Read, Did::Exec, Did::List, Did::Readlink];
            led_to(path, &any, trace, known)
                || is_interpreter(path, trace, known)
                || is_walked(path, trace, known)
        }
    };
    let left = classes.filter(|class| !explained(class));
    left.map(|class| format!("{class} of {path}: {row}"))
        .collect()
}

/// Whether a path was used so, by its own name or by one that leads there.
fn led_to(path: &str, dids: &[Did], trace: &Trace, known: &Known) -> bool {
    let leads = |given: &str| known.resolve(given, &mut BTreeSet::new()) == path;
    let mut did = trace.did.iter().filter(|(_, did)| dids.contains(did));
    did.any(|(given, _)| given == path || leads(given))
}

fn is_walked(path: &str, trace: &Trace, known: &Known) -> bool {
    let mut walked = BTreeSet::new();
    for (given, _) in &trace.did {
        known.resolve(given, &mut walked);
    }
    let programs = known.interpreters.iter();
    for (_, interpreter) in programs.filter(|(program, _)| trace.has(program, Did::Exec)) {
        known.resolve(interpreter, &mut walked);
    }
    walked.contains(path)
}

fn is_interpreter(path: &str, trace: &Trace, known: &Known) -> bool {
    known.interpreters.iter().any(|(program, interpreter)| {
        known.resolve(interpreter, &mut BTreeSet::new()) == path
            && led_to(program, &[Did::Exec], trace, known)
    })
}

/// Whether it, or something that would be below it, was missed or about to be made.
fn is_missed(path: &str, trace: &Trace, known: &Known) -> bool {
    let below = |given: &str| {
        let rest = given.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut missed = trace.did.iter();
    missed.any(|(given, did)| {
        let leads = || known.resolve(given, &mut BTreeSet::new());
        matches!(did, Did::Missed | Did::Named) && (below(given) || below(&leads()))
    })
}

macro_rules! needs_tools {
    ($($tool:expr),*) => {
        needs_fuse!();
        if let Some(tool) = [$($tool),*].into_iter().find(|tool| !works(tool)) {
            skip!(format!("there is no {tool}"));
        }
    };
}

fn link(place: &Place, path: &str, target: &str) -> Value {
    json!({"path": path, "type": "symlink", "hash": place.put(target), "mode": 511, "mtime": 0})
}

/// The dynamic linker of this machine.
fn linker() -> Option<&'static str> {
    let known = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    known
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
}

#[test]
fn everything_that_strace_shows_of_a_compiler_is_told() {
    needs_tools!("cc", "strace");
    let Some(linker) = linker() else {
        skip!("it is not known where the dynamic linker is");
    };
    let place = Place::new();
    let linker = std::fs::read(linker).expect("the dynamic linker");
    let visible = json!([
        place.visible(
            "m.c",
            "#include \"u.h\"\n#include \"linked.h\"\nint main(void) { return N; }\n"
        ),
        place.visible("include/u.h", "#define N 0\n#include \"sub/empty.h\"\n"),
        place.visible("include/sub/empty.h", ""),
        place.visible("real/other.h", "#define OTHER 1\n"),
        link(&place, "real/linked.h", "other.h"),
        link(&place, "seen", "real"),
        place.visible_mode("ld.so", linker, 0o755),
    ]);
    let known = Known {
        links: [("seen", "real"), ("real/linked.h", "real/other.h")].into(),
        interpreters: [("p", "ld.so")].into(),
    };
    let build =
        "cc -Iinclude -Iabsent -Iinclude/no -Iseen -Wl,--dynamic-linker=./ld.so -o p m.c && ./p";
    let trace = compare(&place, &visible, &["/bin/sh", "-c", build], &known);
    assert!(
        trace.has("include/u.h", Did::Read) && trace.has("p", Did::Exec),
        "{trace:#?}"
    );
    assert!(
        trace.has("absent", Did::Missed) && trace.did.len() > 20,
        "{trace:#?}"
    );
}

#[test]
fn everything_that_strace_shows_of_make_is_told() {
    needs_tools!("cc", "make", "strace");
    let place = Place::new();
    let shell = std::fs::read("/bin/sh").expect("a shell");
    let rules = "-include config.mk\nall: lib/lib.a out.txt\n\
        lib/lib.a: ; $(MAKE) -C lib lib.a\n\
        out.txt: gen.sh ; ./gen.sh > $@.tmp && mv $@.tmp $@ && ls data > listing && rm listing\n";
    let visible = json!([
        place.visible("Makefile", rules),
        place.visible(
            "lib/Makefile",
            "lib.a: a.o b.o ; ar rc $@ $^ && ln -s lib.a lib.so && cat lib.so > /dev/null\n"
        ),
        place.visible("lib/a.c", "#include \"../data/n.h\"\nint a = N;\n"),
        place.visible("lib/b.c", "int b;\n"),
        place.visible("data/n.h", "#define N 1\n"),
        place.visible("data/unread", "nobody opens this\n"),
        place.visible_mode(
            "gen.sh",
            "#!tools/sh\nwhile read line; do echo $line; done < data/n.h\n",
            0o755
        ),
        place.visible_mode("tools/dash", shell, 0o755),
        link(&place, "tools/sh", "dash"),
    ]);
    let known = Known {
        links: [("tools/sh", "tools/dash"), ("lib/lib.so", "lib/lib.a")].into(),
        interpreters: [("gen.sh", "tools/sh")].into(),
    };
    let trace = compare(&place, &visible, &["make"], &known);
    assert!(
        trace.has("gen.sh", Did::Exec) && trace.has("data", Did::List),
        "{trace:#?}"
    );
    assert!(
        trace.has("config.mk", Did::Missed) && trace.has("lib/a.c", Did::Read),
        "{trace:#?}"
    );
}

#[test]
fn everything_that_strace_shows_of_git_is_told() {
    needs_tools!("git", "strace");
    let place = Place::new();
    let visible = json!([
        place.visible("a", "one\n"),
        place.visible("d/b", "two\n"),
        place.visible(".gitignore", "*.o\n"),
        place.visible("d/x.o", "ignored\n"),
        link(&place, "l", "d/b"),
    ]);
    let known = Known {
        links: [("l", "d/b")].into(),
        ..Known::default()
    };
    let script = "git init -q . && git add . && \
        git -c user.name=n -c user.email=e -c gc.auto=0 commit -qm first && \
        echo three > c && git status --short && git log --stat && git grep two && git checkout -qb other";
    let trace = compare(&place, &visible, &["/bin/sh", "-c", script], &known);
    assert!(
        trace.has("d", Did::List) && trace.has("a", Did::Read),
        "{trace:#?}"
    );
    assert!(
        trace.has("l", Did::Readlink) && trace.has(".git/index", Did::Read),
        "{trace:#?}"
    );
}
