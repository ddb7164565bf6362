//! A hostile job: `attack NAME ROOT host|hermetic PID PID PID`; see the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use wakebox_tests::attack::{Ground, TRIED, nested_knobs, run};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["knobs", proc] => {
            nested_knobs(Path::new(proc));
            ExitCode::SUCCESS
        }
        [name, root, sight, ref pids @ ..] => {
            let ground = Ground {
                root: PathBuf::from(root),
                sees_host: sight == "host",
                outside: pids.iter().filter_map(|pid| pid.parse().ok()).collect(),
            };
            match run(name, &ground) {
                true => ExitCode::from(TRIED.to_le_bytes()[0]),
                false => ExitCode::FAILURE,
            }
        }
        _ => ExitCode::FAILURE,
    }
}
