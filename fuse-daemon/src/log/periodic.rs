//! Something that is done every few seconds.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that does something every few seconds until this is dropped, which waits for it.
#[derive(Debug)]
pub struct Periodic {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Periodic {
    /// Starts it. What `work` owns is dropped when it ends, so it should own no more than it needs:
    /// the owner of this would never be dropped if `work` owned that.
    pub fn start(every: Duration, mut work: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let run = move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                work();
            }
        };
        let thread = std::thread::Builder::new()
            .name("view-log".into())
            .spawn(run)?;
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self { stop, thread })
    }
}

impl Drop for Periodic {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // `work` itself may drop us, as the last owner of what we belong to.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_until_dropped_and_not_longer() {
        let (done, seen) = channel();
        let work = move || {
            let _ = done.send(());
        };
        let periodic = Periodic::start(Duration::from_millis(1), work).unwrap();
        for _ in 0..3 {
            seen.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        drop(periodic);
        while seen.try_recv().is_ok() {}
        let after = seen.recv_timeout(Duration::from_millis(20));
        assert_eq!(after, Err(RecvTimeoutError::Disconnected));
    }
}
