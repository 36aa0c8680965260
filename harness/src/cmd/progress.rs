//! Progress, for people and for logs.
//!
//! On a terminal a bar that moves. Elsewhere (a CI log, a file) a plain line now and then, since a
//! bar there is a thousand lines of escape codes.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How often [`Progress::update`] is worth calling.
pub(crate) const UPDATE_EVERY: Duration = Duration::from_millis(250);

/// The progress of something that takes a known time, or goes on until it is stopped.
pub(crate) struct Progress {
    label: String,
    started: Instant,
    lasts: Option<Duration>,
    bar: Option<ProgressBar>,
    printed: Instant,
}

// === impl Progress ===

impl Progress {
    /// Something that takes `lasts`.
    pub(crate) fn lasting(label: &str, lasts: Duration) -> Self {
        let template = "{prefix} [{elapsed_precise}] {bar:30} {msg}";
        Self::new(
            label,
            Some(lasts),
            ProgressBar::new(lasts.as_secs()),
            template,
        )
    }

    /// Something that goes on until it is stopped.
    pub(crate) fn endless(label: &str) -> Self {
        let template = "{spinner} {prefix} [{elapsed_precise}] {msg}";
        Self::new(label, None, ProgressBar::new_spinner(), template)
    }

    fn new(label: &str, lasts: Option<Duration>, bar: ProgressBar, template: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(label.to_owned());
            bar
        });
        let now = Instant::now();
        let progress = Self {
            label: label.to_owned(),
            started: now,
            lasts,
            bar,
            printed: now,
        };
        if progress.bar.is_none() {
            let lasts = lasts
                .map(|t| format!(", {} s", t.as_secs()))
                .unwrap_or_default();
            eprintln!("{label}{lasts} …");
        }
        progress
    }

    /// Shows how far it has come.
    pub(crate) fn update(&mut self, message: &str) {
        let elapsed = self.started.elapsed();
        match &self.bar {
            Some(bar) => {
                match self.lasts {
                    Some(lasts) => bar.set_position(elapsed.min(lasts).as_secs()),
                    None => bar.tick(),
                }
                bar.set_message(message.to_owned());
            }
            None if self.printed.elapsed() >= LINE_EVERY => {
                self.printed = Instant::now();
                eprintln!("  {:>4} s  {message}", elapsed.as_secs());
            }
            None => {}
        }
    }

    /// Leaves one last line.
    pub(crate) fn finish(self, message: &str) {
        match self.bar {
            Some(bar) => bar.abandon_with_message(message.to_owned()),
            None => eprintln!("{}: {message}", self.label),
        }
    }
}
