//! Long runs of faults: `faults daemons|clients COUNT [SEED]`, `faults soak COUNT...`, and
//! in a mount namespace of its own `faults errors STRIDE|full LEVELS|durable`. `cargo test` has short
//! ones.

use serde_json::json;
use wakebox_tests::Place;
use wakebox_tests::faults::{Durable, Errors, Kills, Soak, Victim};

/// What is durable, and that what is not is noticed.
fn durable(trial: &Durable<'_>) -> Result<(), String> {
    let default = trial.batch(&json!({}));
    let unflushed = |what: &str| default.iter().any(|lost| lost.contains(what));
    if !unflushed("the bytes of") || !unflushed("the name of") {
        return Err(format!("not noticed: {default:?}"));
    }
    let kept = trial.batch(&json!({"durable": true}));
    let discarded = trial.batch(&json!({"durable": true, "staging": "discard"}));
    let not_adopted = trial.batch(&json!({"durable": true, "adopt": false}));
    let published = trial.run(&["--durable"]);
    let lost = [kept, discarded, not_adopted, published].concat();
    match lost.is_empty() {
        true => Ok(()),
        false => Err(format!("lost: {lost:#?}")),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let numbers = words.iter().skip(1).map(|word| word.parse());
    let numbers: Vec<u64> = numbers.collect::<Result<_, _>>()?;
    let place = Place::new();
    let kills = |victim| Kills {
        victim,
        count: numbers.first().map_or(500, |count| *count as usize),
        jobs: 16,
        seed: numbers.get(1).copied().unwrap_or(1),
    };
    match words.first().map(String::as_str) {
        Some("daemons") => println!("{}", kills(Victim::Daemon).run(&place)?),
        Some("clients") => println!("{}", kills(Victim::Client).run(&place)?),
        Some("soak") => {
            let soak = Soak {
                looks: numbers,
                jobs: 16,
            };
            for sample in soak.run(&place)? {
                println!("{sample:?}");
            }
        }
        // These mount: `unshare -m faults errors`.
        Some("errors") => {
            let stride = numbers.first().copied().unwrap_or(1);
            println!("{}", Errors::new(&place).at_every_operation(stride)?);
        }
        Some("full") => {
            let levels = numbers.first().copied().unwrap_or(100);
            println!("{}", Errors::new(&place).at_every_level(levels)?);
        }
        Some("durable") => durable(&Durable::new(&place)?)?,
        _ => {
            return Err(
                "daemons|clients COUNT SEED, soak COUNT..., errors STRIDE, full LEVELS, durable"
                    .into(),
            );
        }
    }
    Ok(())
}
