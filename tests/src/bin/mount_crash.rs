//! Kills mounts under load: `mount_crash WAKEBOX KILLS SEED DIRECTORY`, in a mount namespace of its
//! own. Calls itself as `mount_crash work SEED JOURNAL`.

use std::path::Path;

use wakebox_tests::crash::{Random, Trial, work};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["work", seed, journal] => work(seed.parse()?, Path::new(journal))?,
        [wakebox, kills, seed, directory] => {
            let trial = Trial {
                ground: Path::new(directory).canonicalize()?,
                wakebox: wakebox.into(),
                random: Random::new(seed.parse()?),
            };
            println!("{:?}", trial.run(kills.parse()?)?);
        }
        _ => return Err("WAKEBOX KILLS SEED DIRECTORY".into()),
    }
    Ok(())
}
