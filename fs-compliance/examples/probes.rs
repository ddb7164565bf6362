//! Runs the probes in a directory: `probes DIRECTORY [ELSEWHERE [SMALL]]`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fs_compliance::probes::{Ground, LIMIT, Shortfall, all};

fn main() -> std::io::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(directory) = arguments.next() else {
        eprintln!("probes: name a directory in which to run them");
        return Ok(ExitCode::from(2));
    };
    let mut ground = Ground::survey(Path::new(&directory))?;
    ground.elsewhere = arguments.next();
    ground.small = arguments.next();
    let (mut passed, mut failed) = (0, 0);
    for probe in all() {
        match probe.run(&ground, LIMIT) {
            Ok(()) => passed += 1,
            Err(shortfall) => {
                failed += usize::from(matches!(shortfall, Shortfall::Failed(_)));
                println!("{}/{}: {shortfall}", probe.theme, probe.name);
            }
        }
    }
    println!("{passed} of {} hold, {failed} failed", all().len());
    Ok(ExitCode::from(u8::from(failed > 0)))
}
