//! Jobs that are as large as they get: in inputs, outputs, sizes, depths, and with few descriptors.

use std::process::Stdio;
use std::time::Instant;

use cas::{Digest, Store};
use serde_json::{Value, json};

use crate::{Outcome, Place};

/// One job, and what is to be true of it.
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// Runs it and returns a figure or two, or what is wrong.
    pub try_it: fn(&Place) -> Result<String, String>,
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// All of them.
pub const LIMITS: [Limit; 5] = [
    Limit {
        name: "300,000 inputs, 200,000 of them in one directory",
        try_it: many_inputs,
    },
    Limit {
        name: "100,000 outputs",
        try_it: many_outputs,
    },
    Limit {
        name: "an output of 20 GiB with holes",
        try_it: sparse,
    },
    Limit {
        name: "paths of 4,000 names, as input and as output",
        try_it: deep,
    },
    Limit {
        name: "64 descriptors",
        try_it: few_descriptors,
    },
];

fn expect(is: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if is { Ok(()) } else { Err(what()) }
}

/// Runs a job by its spec; the result, and what the call printed.
fn run(place: &Place, spec: &Value) -> Result<(Value, Outcome), String> {
    let (outcome, result) = place.batch_call(spec, &[]);
    let told = outcome.stderr();
    expect(outcome.code() == 0, || {
        format!("{}: {told}", outcome.code())
    })?;
    Ok((result.ok_or("no result")?, outcome))
}

fn store(place: &Place) -> Store {
    std::fs::create_dir_all(place.workspace().join(".build/cas")).expect("a directory");
    Store::open(&place.workspace().join(".build/cas")).expect("a store")
}

fn put(place: &Place, content: &[u8]) -> Digest {
    let store = store(place);
    let staging = store.new_staging("limits").expect("room");
    store.put_bytes(content, &staging).expect("room")
}

/// Resident memory of the daemon, in KiB.
fn memory(place: &Place) -> u64 {
    let daemon = place.daemons().first().map_or(0, |pid| pid.as_raw_pid());
    let status = std::fs::read_to_string(format!("/proc/{daemon}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.unwrap_or(0)
}

fn many_inputs(place: &Place) -> Result<String, String> {
    let hash = put(place, b"content").to_string();
    let file = |path: String| json!({"path": path, "type": "file", "hash": hash, "mode": 0o644, "mtime": 1});
    let wide = (0..200_000).map(|n| file(format!("wide/a-name-of-some-length-{n:06}")));
    let other = (0..100_000).map(|n| file(format!("src/{}/{}/{n}", n % 37, n % 1009)));
    let mut spec = place.spec("ls -f wide | wc -l; find src -type f | wc -l; cat wide/*-199999");
    run(place, &place.spec("true"))?; // so that there is a daemon
    let before = memory(place);
    spec["visible"] = wide.chain(other).collect();
    let begun = Instant::now();
    let (result, outcome) = run(place, &spec)?;
    let took = begun.elapsed();
    let said = outcome.stdout();
    expect(said == "200002\n100000\ncontent", || said)?;
    expect(
        result["inputs"]
            .as_array()
            .is_some_and(|used| !used.is_empty()),
        || result["inputs"].to_string(),
    )?;
    let grown = memory(place).saturating_sub(before) / 1024;
    Ok(format!(
        "{:.1} s in all, the daemon has {grown} MiB more",
        took.as_secs_f64()
    ))
}

fn many_outputs(place: &Place) -> Result<String, String> {
    let mut spec =
        place.spec("mkdir o && seq 100000 | split -l 1 -a 5 -d - o/x && ls -f o | wc -l");
    spec["staging"] = json!("discard");
    let begun = Instant::now();
    let (result, outcome) = run(place, &spec)?;
    let took = begun.elapsed();
    expect(outcome.stdout() == "100002\n", || outcome.stdout())?;
    let hashed = result["hashed_files"].as_object().ok_or("no files")?;
    expect(hashed.len() == 100_001, || hashed.len().to_string())?;
    let last = &hashed["o/x99999"]["hash"];
    expect(*last == Digest::of(b"100000\n").to_string(), || {
        last.to_string()
    })?;
    let blobs = store(place).list().map_err(|error| error.to_string())?;
    expect(blobs.len() >= 100_000, || format!("{} blobs", blobs.len()))?;
    Ok(format!("{:.1} s in all", took.as_secs_f64()))
}

fn sparse(place: &Place) -> Result<String, String> {
    let script =
        "truncate -s 20G disk; printf x | dd of=disk bs=1 seek=10G conv=notrunc 2> /dev/null";
    let mut figures = String::new();
    for staging in ["discard", "keep"] {
        let mut spec = place.spec(script);
        spec["staging"] = json!(staging);
        // So that the second is not there already.
        spec["command"][2] = json!(format!("{script}; printf {staging} >> disk"));
        let begun = Instant::now();
        let (result, _) = run(place, &spec)?;
        let took = begun.elapsed();
        let entry = &result["hashed_files"]["disk"];
        let size = (20 << 30) + staging.len() as u64;
        expect(entry["size"] == size, || entry.to_string())?;
        let digest: Digest = entry["hash"]
            .as_str()
            .unwrap_or_default()
            .parse()
            .map_err(|_| "no hash")?;
        let is = store(place)
            .path(digest)
            .metadata()
            .map_err(|error| error.to_string())?;
        let blocks = std::os::unix::fs::MetadataExt::blocks(&is);
        expect(blocks * 512 < 4 << 20, || {
            format!("{blocks} blocks in the store")
        })?;
        let verified = store(place)
            .verify(digest)
            .map_err(|error| error.to_string())?;
        expect(verified == size, || verified.to_string())?;
        figures += &format!(
            "{staging}: {:.1} s, {} KiB in the store; ",
            took.as_secs_f64(),
            blocks / 2
        );
    }
    Ok(figures)
}

/// A program that goes down as far as it can, looks there, and goes down again where nothing is.
const DOWN: &str = "
import os, sys
depth, start = 0, os.open('.', os.O_RDONLY)
while os.path.isdir('d'):
    os.chdir('d')
    depth += 1
print(depth, open('file').read(), end='')
os.fchdir(start)
for n in range(4000):
    os.mkdir('e')
    os.chdir('e')
open('made', 'w').write('far down')
";

fn deep(place: &Place) -> Result<String, String> {
    let hash = put(place, b" content").to_string();
    let down = format!("{}file", "d/".repeat(4000));
    let mut spec = place.spec_of(&["python3", "-c", DOWN]);
    spec["visible"] =
        json!([{"path": down, "type": "file", "hash": hash, "mode": 0o644, "mtime": 1}]);
    let begun = Instant::now();
    let (result, outcome) = run(place, &spec)?;
    let took = begun.elapsed();
    expect(outcome.stdout() == "4000  content", || outcome.stdout())?;
    let made = format!("{}made", "e/".repeat(4000));
    let entry = &result["hashed_files"][&made]["hash"];
    expect(*entry == Digest::of(b"far down").to_string(), || {
        entry.to_string()
    })?;
    Ok(format!("{:.1} s in all", took.as_secs_f64()))
}

/// Of the client, and of the daemon that it starts: more files are open in the view than that.
fn few_descriptors(place: &Place) -> Result<String, String> {
    let hash = put(place, b"content").to_string();
    let file = |n| json!({"path": format!("in/{n}"), "type": "file", "hash": hash, "mode": 0o644, "mtime": 1});
    // Four shells with forty files each, open at once.
    let hold = "i=10; while [ $i -lt 50 ]; do eval \"exec $i< in/$((N * 40 + i - 10))\"; i=$((i + 1)); done; sleep 0.5; cat <&10";
    let script = format!(
        "for N in 0 1 2 3; do N=$N bash -c '{hold}' & done; wait; seq 200 | split -l 1 - out-"
    );
    let mut spec = place.spec(&script);
    spec["visible"] = (0..160).map(file).collect();
    let (spec_file, result) = (
        place.root().join("few.json"),
        place.root().join("few-result.json"),
    );
    std::fs::write(&spec_file, spec.to_string()).expect("a spec");
    let mut command = place.other("prlimit");
    command.args(["--nofile=64:64", "--"]).arg(crate::wakebox());
    let command = command.arg("-p").arg(spec_file).arg("-o").arg(&result);
    let outcome = Outcome(
        command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?,
    );
    expect(outcome.code() == 0, || outcome.stderr())?;
    expect(outcome.stdout() == "content".repeat(4), || {
        outcome.stdout() + &outcome.stderr()
    })?;
    let result: Value =
        serde_json::from_slice(&std::fs::read(result).expect("a result")).expect("JSON");
    let count = result["outputs"].as_array().map_or(0, Vec::len);
    expect(count == 200, || format!("{count} outputs"))?;
    Ok("160 inputs open at once, 200 outputs".into())
}
