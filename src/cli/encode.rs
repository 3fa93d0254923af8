//! `munjang encode`: lines of standard input to embeddings.

use std::io::{self, BufWriter, IsTerminal, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::args::ModelArg;
use super::lines::{LINES_PER_BATCH, Lines};
use super::output::{cannot_write, spinner};
use crate::error::{Error, Result};
use crate::files::PendingFile;

/// Arguments of `munjang encode`.
#[derive(Args)]
pub struct EncodeArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Write to a file: .npy (float32, lines × dimension) or .jsonl. Without it, JSON lines go to
    /// standard output: {"embedding": [...], "tokens": n, "truncated": false}
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Encodes until standard input ends.
///
/// # Errors
/// Whatever is wrong with the model or the input, or keeps the output from being written.
pub fn run(args: EncodeArgs) -> Result<()> {
    let encoder = args.model.load()?;
    let hidden = encoder.dimension();
    let mut sink = match &args.output {
        None => Sink::Stdout(BufWriter::new(io::stdout())),
        Some(path) => Sink::create(path, hidden)?,
    };
    let progress = spinner("lines");
    let mut lines = Lines::new(io::stdin().lock(), "standard input");
    // Someone who types wants an answer a line, a pipe wants throughput.
    let batch = if io::stdin().is_terminal() { 1 } else { LINES_PER_BATCH };
    let (mut total, mut cut) = (0, 0);
    loop {
        let texts = lines.take(batch)?;
        if texts.is_empty() {
            break;
        }
        let encoded = encoder.encode_batch(&texts)?;
        for (row, embedding) in encoded.embeddings.chunks_exact(hidden).enumerate() {
            sink.write(embedding, encoded.token_counts[row], encoded.truncated[row])?;
        }
        sink.flush()?;
        total += texts.len();
        cut += encoded.truncated.iter().filter(|&&truncated| truncated).count();
        progress.set_position(total as u64);
    }
    sink.finish(total, hidden)?;
    progress.finish_and_clear();
    if cut > 0 {
        eprintln!(
            "note: {cut} of {total} lines have more than {} tokens and were cut",
            encoder.config().max_position_embeddings
        );
    }
    Ok(())
}

/// Where embeddings go.
enum Sink {
    Stdout(BufWriter<io::Stdout>),
    Jsonl(PendingFile),
    Npy(PendingFile),
}

/// Length of the .npy header, fixed so that the number of rows can be filled in at the end.
const NPY_HEADER_BYTES: usize = 128;

impl Sink {
    fn create(path: &Path, hidden: usize) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => {
                let mut file = PendingFile::create(path)?;
                file.write_all(&npy_header(0, hidden)).map_err(cannot_write)?;
                Ok(Sink::Npy(file))
            }
            Some("jsonl") => Ok(Sink::Jsonl(PendingFile::create(path)?)),
            _ => Err(Error::input_invalid(format!(
                "--output {}: expected a name that ends in .npy or .jsonl",
                path.display()
            ))),
        }
    }

    fn write(&mut self, embedding: &[f32], tokens: u32, truncated: bool) -> Result<()> {
        let out: &mut dyn Write = match self {
            Sink::Stdout(out) => out,
            Sink::Jsonl(file) => file,
            Sink::Npy(file) => {
                return embedding
                    .iter()
                    .try_for_each(|value| file.write_all(&value.to_le_bytes()))
                    .map_err(cannot_write);
            }
        };
        let embedding = serde_json::to_string(embedding).expect("numbers become JSON");
        writeln!(out, "{{\"embedding\":{embedding},\"tokens\":{tokens},\"truncated\":{truncated}}}")
            .map_err(cannot_write)
    }

    /// Whoever reads along sees what was written so far; a file is seen when it is complete.
    fn flush(&mut self) -> Result<()> {
        match self {
            Sink::Stdout(out) => out.flush().map_err(cannot_write),
            Sink::Jsonl(_) | Sink::Npy(_) => Ok(()),
        }
    }

    fn finish(self, rows: usize, hidden: usize) -> Result<()> {
        match self {
            Sink::Stdout(mut out) => out.flush().map_err(cannot_write),
            Sink::Jsonl(file) => file.finish(),
            Sink::Npy(mut file) => {
                file.seek(SeekFrom::Start(0)).map_err(cannot_write)?;
                file.write_all(&npy_header(rows, hidden)).map_err(cannot_write)?;
                file.finish()
            }
        }
    }
}

/// NumPy's file header, version 1.0, for `rows × columns` little-endian 32-bit floats.
fn npy_header(rows: usize, columns: usize) -> Vec<u8> {
    let dict =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((NPY_HEADER_BYTES - 10) as u16).to_le_bytes());
    header.extend(dict.bytes());
    header.resize(NPY_HEADER_BYTES - 1, b' ');
    header.push(b'\n');
    header
}
