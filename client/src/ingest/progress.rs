//! How far an ingestion is, for a person who waits for it.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less time than this is not worth a bar, which would only flicker.
const SHOWN_AFTER: Duration = Duration::from_millis(500);

/// Redrawings per second. indicatif's own 20 is more than anyone reads off a count of bytes.
const REDRAWN_PER_SECOND: u8 = 10;

/// A bar on standard error, or nothing. Dropping it clears the bar, so the job's own output
/// starts on a clean line.
#[derive(Debug)]
pub struct Progress(Option<Bar>);

#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    started: Instant,
    shown: AtomicBool,
}

impl Progress {
    /// Shows nothing, ever.
    pub fn silent() -> Self {
        Self(None)
    }

    /// Shows a bar if standard error is a terminal, and only once half a second has passed since
    /// this call.
    pub fn on_terminal() -> Self {
        Self(std::io::stderr().is_terminal().then(Bar::new))
    }

    /// Says how many files and bytes there are to be done.
    pub(super) fn expect(&self, files: u64, bytes: u64) {
        if let Some(Bar { bar, .. }) = &self.0 {
            bar.set_length(bytes);
            bar.set_prefix(format!("wakebox: reading {files} files"));
        }
    }

    /// Says that so many more bytes are done.
    pub(super) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.advance(bytes);
        }
    }
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        // A template that does not parse falls back to indicatif's own; a test keeps it parsing.
        if let Ok(style) = style() {
            bar.set_style(style);
        }
        Self {
            bar,
            started: Instant::now(),
            shown: AtomicBool::new(false),
        }
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        let due = !self.shown.load(Ordering::Relaxed) && self.started.elapsed() > SHOWN_AFTER;
        if due && !self.shown.swap(true, Ordering::Relaxed) {
            let target = ProgressDrawTarget::stderr_with_hz(REDRAWN_PER_SECOND);
            self.bar.set_draw_target(target);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style() -> Result<ProgressStyle, indicatif::style::TemplateError> {
    ProgressStyle::with_template("{prefix} [{bar:24}] {bytes}/{total_bytes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_stays_hidden_until_half_a_second_has_passed() {
        assert!(style().is_ok());
        let mut bar = Bar::new();
        bar.advance(1);
        assert!(!bar.shown.load(Ordering::Relaxed));
        bar.started = Instant::now().checked_sub(SHOWN_AFTER * 2).unwrap();
        bar.advance(1);
        assert!(bar.shown.load(Ordering::Relaxed));
    }
}
