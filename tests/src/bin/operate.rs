//! Does file operations in the current directory: reads them as JSON lines from the file named by
//! the argument, and prints the outcome of each as a JSON line.

use std::io::{BufRead, BufReader, Write};

use wakebox_tests::operation::Machine;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let list = std::env::args_os().nth(1).ok_or("which operations?")?;
    let list = BufReader::new(std::fs::File::open(list)?);
    let mut machine = Machine::new()?;
    let mut output = std::io::stdout().lock();
    for line in list.lines() {
        let outcome = machine.perform(&serde_json::from_str(&line?)?);
        writeln!(output, "{}", serde_json::to_string(&outcome)?)?;
    }
    Ok(())
}
