//! What a command shows: results on standard output, progress and errors on standard error.

use std::io::{self, Write};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, Result};

/// Writes `text` to standard output.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(cannot_write)
}

pub(super) fn cannot_write(source: io::Error) -> Error {
    Error::io("cannot write the output", source)
}

fn is_broken_pipe(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.is_some_and(|source: &io::Error| source.kind() == io::ErrorKind::BrokenPipe)
}

/// A progress bar on standard error; nothing where that is not a terminal.
pub(super) fn bar(len: usize, unit: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!(
        "{{bar:40}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left"
    ));
    ProgressBar::new(len as u64).with_style(style.expect("the template is well formed"))
}

/// A count of unknown end on standard error; nothing where that is not a terminal.
pub(super) fn spinner(unit: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{spinner}} {{pos}} {unit}, {{per_sec}}"));
    ProgressBar::new_spinner().with_style(style.expect("the template is well formed"))
}

/// The exit status of a command that ended so; an error is told on standard error.
pub fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough; that is not an error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[{}]: {error:#}", error.code());
            ExitCode::FAILURE
        }
    }
}
