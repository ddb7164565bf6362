//! Kills mounts under load: `mount_crash KILLS SEED DIRECTORY`, in a mount namespace of its own
//! and with the program under test in `$WAKEBOX`. Calls itself as `mount_crash work SEED JOURNAL`.

use std::path::Path;

use wakebox_tests::crash::{Random, Trial, work};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["work", seed, journal] => work(seed.parse()?, Path::new(journal))?,
        [kills, seed, directory] => {
            let trial = Trial {
                ground: Path::new(directory).canonicalize()?,
                wakebox: std::env::var_os("WAKEBOX")
                    .ok_or("where is wakebox?")?
                    .into(),
                random: Random::new(seed.parse()?),
            };
            println!("{:?}", trial.run(kills.parse()?)?);
        }
        _ => return Err("KILLS SEED DIRECTORY".into()),
    }
    Ok(())
}
