//! Both ends of a conversation over a socket, for jobs: `converse listen SOCKET` answers one
//! question with the same words in capitals, `converse ask SOCKET WORDS` prints the answer.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let mut heard = String::new();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["listen", socket] => {
            let (mut other, _) = UnixListener::bind(socket)?.accept()?;
            other.read_to_string(&mut heard)?;
            other.write_all(heard.to_uppercase().as_bytes())?;
        }
        ["ask", socket, question] => {
            let mut other = UnixStream::connect(socket)?;
            other.write_all(question.as_bytes())?;
            other.shutdown(Shutdown::Write)?;
            other.read_to_string(&mut heard)?;
            println!("{heard}");
        }
        _ => return Err("listen SOCKET, or ask SOCKET WORDS".into()),
    }
    Ok(())
}
