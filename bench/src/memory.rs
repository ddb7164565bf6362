//! What the daemon of a job needs in memory, in a daemon started for this.

use std::fs;
use std::sync::Arc;

use crate::Result;
use crate::cli::Options;
use crate::contender::{Boxed, Contender, boxes};
use crate::disk::Disk;
use crate::inner::wait_for;
use crate::row::{Cell, Row, Unit};
use crate::tree::{Fill, Tree};
use crate::workload::{Job, touching};

const INPUTS: usize = 300_000;

/// What was found out, in the order of its rows.
const ROWS: [&str; 3] = [
    "daemon, 300000 inputs declared",
    "daemon, per inode touched",
    "daemon, peak with 300000 inputs declared",
];

/// A declared tree, what is touched of it, and what it takes to get there.
pub(crate) fn measure(options: &Options, disk: &Disk) -> Result<Vec<Row>> {
    let place = disk.make("memory")?;
    let count = options.scaled(INPUTS, 50);
    let tree = Arc::new(Tree::make(&place, count, Fill::Line)?);
    let mut rows = ROWS.map(|name| Row {
        suite: crate::workload::MEMORY.to_owned(),
        name: name.to_owned(),
        unit: Unit::Bytes,
        cells: Vec::new(),
    });
    for (name, path) in boxes(options)? {
        let chosen = options.only.is_empty() || options.only.contains(&name);
        if !chosen || !path.exists() {
            continue;
        }
        let found = figures(&Boxed::new(name.clone(), path, disk)?, &tree, disk);
        for (number, row) in rows.iter_mut().enumerate() {
            row.cells.push(cell(&name, number, &found));
        }
    }
    Ok(rows.into())
}

fn cell(contender: &str, number: usize, found: &Result<[f64; 3]>) -> Cell {
    Cell {
        contender: contender.to_owned(),
        samples: found.iter().map(|figures| figures[number]).collect(),
        remark: found.as_ref().err().map(ToString::to_string),
        round_trips: None,
    }
}

/// In the order of [`ROWS`]. While a job runs: afterwards its tables are gone.
fn figures(program: &Boxed, tree: &Arc<Tree>, disk: &Disk) -> Result<[f64; 3]> {
    let count = tree.files.len();
    let (declared, peak) = during(program, tree, 0, disk)?;
    let (touched, _) = during(program, tree, count, disk)?;
    Ok([declared, (touched - declared) / count as f64, peak])
}

/// What a new daemon has in memory, and had at most, when a job has touched so many inputs.
fn during(program: &Boxed, tree: &Arc<Tree>, files: usize, disk: &Disk) -> Result<(f64, f64)> {
    program.stop();
    let paper = disk.path().join(format!("hold-{}-{files}", program.name()));
    let words = paper.to_str().ok_or("a path in UTF-8")?;
    let mut task = touching(tree, Job::inner(&["hold", &files.to_string(), words])?);
    // Seen for the first time: no job is to run before it.
    task.fresh = true;
    let stage = program.begin(&task, 0)?;
    let said = paper.with_extension("said");
    std::thread::scope(|scope| {
        let job = scope.spawn(|| stage.run(0, &task.jobs[0], &said));
        let found = wait_for(&paper.with_extension("ready")).and_then(|()| memory_of(program));
        fs::write(paper.with_extension("enough"), "")?;
        job.join().map_err(|_| "a job's thread failed")??;
        program.stop();
        found
    })
}

fn memory_of(program: &Boxed) -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{}/status", program.daemon()?))?;
    let bytes = |key: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kilobytes = line.and_then(|rest| rest.trim().split(' ').next());
        Ok(kilobytes.ok_or("no such line in status")?.parse::<f64>()? * 1024.0)
    };
    Ok((bytes("VmRSS:")?, bytes("VmHWM:")?))
}
