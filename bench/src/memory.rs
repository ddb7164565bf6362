//! What the daemon of a job needs in memory: its peak, in a daemon started for this.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::Result;
use crate::cli::Options;
use crate::contender::{Boxed, Contender, boxes};
use crate::disk::Disk;
use crate::row::{Cell, Row, Unit};
use crate::tree::{Fill, Tree};
use crate::workload::{Job, touching};

const INPUTS: usize = 300_000;

/// Two rows: a declared tree, and what is touched of it.
pub(crate) fn measure(options: &Options, disk: &Disk) -> Result<Vec<Row>> {
    let place = disk.make("memory")?;
    let count = options.scaled(INPUTS, 50);
    let tree = Arc::new(Tree::make(&place, count, Fill::Line)?);
    let mut cells = (Vec::new(), Vec::new());
    for (name, path) in boxes(options)?
        .into_iter()
        .filter(|(_, path)| path.exists())
    {
        let program = Boxed::new(name.clone(), path, disk)?;
        let mut declared = cell(&name);
        let mut touched = cell(&name);
        match peaks(&program, &tree) {
            Ok((idle, walked)) => {
                declared.samples.push(idle);
                touched.samples.push((walked - idle) / count as f64);
            }
            Err(error) => declared.remark = Some(error.to_string()),
        }
        cells.0.push(declared);
        cells.1.push(touched);
    }
    let row = |name: &str, cells| Row {
        suite: crate::workload::MEMORY.to_owned(),
        name: name.to_owned(),
        unit: Unit::Bytes,
        cells,
    };
    Ok(vec![
        row("daemon, 300000 inputs declared", cells.0),
        row("daemon, per inode touched", cells.1),
    ])
}

fn cell(contender: &str) -> Cell {
    Cell {
        contender: contender.to_owned(),
        ..Cell::default()
    }
}

/// The peak of a daemon after a job that touches nothing, and of another after one that touches all.
fn peaks(program: &Boxed, tree: &Arc<Tree>) -> Result<(f64, f64)> {
    let peak = |job: Job| -> Result<f64> {
        program.stop();
        let task = touching(tree, job);
        program
            .begin(&task, 0)?
            .run(0, &task.jobs[0], Path::new("/dev/null"))?;
        let peak = peak_of(program.daemon()?);
        program.stop();
        peak
    };
    let files = tree.files.len().to_string();
    Ok((
        peak(Job::new(&["true"]))?,
        peak(Job::inner(&["stat", &files])?)?,
    ))
}

fn peak_of(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.trim().split(' ').next());
    Ok(kilobytes.ok_or("no VmHWM")?.parse::<f64>()? * 1024.0)
}
