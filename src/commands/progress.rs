//! A progress bar on a terminal, for commands that transfer modules. Elsewhere it shows nothing.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use crate::modules::{Progress, Watch};

/// On stderr; gone when it is dropped.
pub struct Bar(ProgressBar);

impl Bar {
    /// `doing`: a word or two, such as `pushing`.
    pub fn new(doing: &'static str) -> Self {
        let bar = ProgressBar::no_length().with_message(doing);
        let style = ProgressStyle::with_template("{msg} {bytes:>10} / {total_bytes} {wide_bar} {bytes_per_sec} {eta}");
        bar.set_style(style.expect("the template is well-formed"));
        Self(bar)
    }

    /// What is to be told of the transfer.
    pub fn watch(&self) -> Watch {
        let bar = self.0.clone();
        Arc::new(move |progress| match progress {
            Progress::Total(bytes) => bar.set_length(bytes),
            Progress::Bytes(bytes) => bar.inc(bytes),
        })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_moves_the_bar() {
        let bar = Bar::new("pushing");
        let watch = bar.watch();
        watch(Progress::Total(10));
        watch(Progress::Bytes(3));
        watch(Progress::Bytes(4));
        assert_eq!((bar.0.position(), bar.0.length()), (7, Some(10)));
    }
}
