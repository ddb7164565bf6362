//! Whether a job makes the same every time: it runs twice, under different conditions.

mod difference;
mod diffoscope;
mod fake_time;
mod position;

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use cas::Store;

use crate::cli::{CheckArguments, Environment};
use crate::commands::print;
use crate::daemon::Daemons;
use crate::error::{Result, say};
use crate::exit_code;
use crate::result;
use crate::trial::{Conditions, Ground, Trial, read_spec};

pub use difference::{Difference, differences};

/// How much later the second run begins. Archives count time in steps of two seconds.
const LATER: Duration = Duration::from_secs(2);

/// The process number after which those of the second run begin; in the first they begin at 2. Every
/// kernel lets numbers go up to 32767.
const LAST_PID: u32 = 9000;

/// The order in which the second run lists directories. The same in every check, so that what one has
/// found another finds again.
const LISTING_SEED: u64 = 1;

/// `wakebox check`.
pub fn run(arguments: &CheckArguments, environment: &Environment) -> Result<u8> {
    let (spec, _) = read_spec(&arguments.spec)?;
    let store = Store::open(&spec.store)?;
    let daemons = Daemons::from_environment(environment)?;
    let ground = Ground {
        store: &store,
        daemons: &daemons,
        environment,
    };
    let [first, second] = conditions(arguments, &spec.environment);
    let begin = Instant::now();
    let one = ground.run(spec.clone(), &first)?;
    std::thread::sleep(LATER.saturating_sub(begin.elapsed()));
    let two = ground.run(spec, &second)?;
    judge(&store, environment, &one, &two)
}

fn conditions(arguments: &CheckArguments, variables: &[OsString]) -> [Conditions; 2] {
    let library = arguments.fake_time.then(fake_time::library).flatten();
    if arguments.fake_time && library.is_none() {
        say(
            "libfaketime is missing: the runs are only seconds apart. Install it (Debian: \
             libfaketime) to give them dates",
        );
    }
    let dated = |offset| {
        let variables = |library: &Path| fake_time::variables(library, offset, variables);
        library.as_deref().map(variables).unwrap_or_default()
    };
    let first = Conditions {
        variables: dated("+0d"),
        ..Conditions::default()
    };
    let second = Conditions {
        listing_seed: Some(LISTING_SEED),
        last_pid: Some(LAST_PID),
        host_name: Some(
            format!("not-{}", result::host_name())
                .chars()
                .take(64)
                .collect::<String>()
                .into(),
        ),
        variables: dated("+400d"),
        ..Conditions::default()
    };
    [first, second]
}

/// Tells what differs, and where.
fn judge(store: &Store, environment: &Environment, one: &Trial, two: &Trial) -> Result<u8> {
    let differences = differences(one, two);
    for difference in &differences {
        match difference.position(store)? {
            Some(position) => print(format_args!("{difference}: {position}"))?,
            None => print(format_args!("{difference}"))?,
        }
    }
    diffoscope::show(store, environment, &differences)?;
    if let Some(code) = one.failure(" in the first run") {
        return Ok(code);
    }
    let outputs = one.outputs.len();
    Ok(match differences.len() {
        0 => {
            say(format_args!("{outputs} outputs, identical in both runs"));
            0
        }
        count => {
            say(format_args!(
                "{count} differences between two runs of the job"
            ));
            exit_code::NO
        }
    })
}
