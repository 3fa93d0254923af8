//! The command line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use munjang::config::Pooling;
use munjang::convert::{self, ConvertOptions, Manifest};
use munjang::search::{FlatIndex, similarity_matrix};
use munjang::{Encoder, Error, ErrorKind, Result, eval, format};

/// Lines given to the encoder at once: enough for all its threads, few enough for a pipe to flow.
const LINES_PER_BATCH: usize = 512;

#[derive(Parser)]
#[command(name = "munjang", version, about = "Korean sentence embeddings")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Turn a Hugging Face checkpoint folder into a model file
    Convert(ConvertArgs),
    /// Turn the lines of standard input into sentence embeddings
    Encode(EncodeArgs),
    /// Print the cosine similarity of sentences
    Similarity(SimilarityArgs),
    /// Find the lines of a file that are most similar to a query
    Search(SearchArgs),
    /// Measure a model on files with human judgements
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Describe a model file
    Info(InfoArgs),
    /// Train a model as a recipe says
    #[cfg(feature = "train")]
    Train(munjang::train::cli::TrainArgs),
}

#[derive(Args)]
struct ModelArg {
    /// The model file, its manifest.json, or the folder of that. Without it the first of:
    /// MUNJANG_MODEL; models/manifest.json in the working directory or one above it; the same
    /// beside the program or above it
    #[arg(long, value_name = "PATH", env = "MUNJANG_MODEL")]
    model: Option<PathBuf>,
}

#[derive(Args)]
struct ConvertArgs {
    /// Folder with config.json, model.safetensors (f32, f16 or bf16) and tokenizer.json
    checkpoint: PathBuf,
    /// The model file to write, such as my-model.munjang
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Keep only these layers, counted from 0, such as 0,5,11
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    layers: Option<Vec<usize>>,
    /// How token states become one vector [default: what the folder's 1_Pooling says, else mean]
    #[arg(long)]
    pooling: Option<PoolingArg>,
    /// Put before every text, such as "query: "
    #[arg(long, default_value = "", value_name = "TEXT")]
    prefix: String,
    /// Keep only this many positions: the most tokens of one text
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Also write manifest.json beside the model file
    #[arg(long)]
    manifest: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PoolingArg {
    /// The mean over all tokens
    Mean,
    /// The first token
    Cls,
}

#[derive(Args)]
struct EncodeArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Write to a file: .npy (float32, lines × hidden_size) or .jsonl. Without it, JSON lines go to
    /// standard output: {"embedding": [...], "tokens": n, "truncated": false}
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Args)]
struct SimilarityArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Two sentences (prints one number) or more (prints a matrix)
    #[arg(required = true, num_args = 2..)]
    sentences: Vec<String>,
}

#[derive(Args)]
struct SearchArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Text file, one document a line
    corpus: PathBuf,
    /// What to look for
    query: String,
    /// How many lines to print
    #[arg(long, short = 'k', default_value_t = 10, value_name = "K")]
    top_k: usize,
    /// Keep the corpus' embeddings in this file and use them if they are there
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum EvalCommand {
    /// Correlate the cosine of sentence pairs with scores given by people
    Sts(StsArgs),
}

#[derive(Args)]
struct StsArgs {
    #[command(flatten)]
    model: ModelArg,
    /// TSV files (also .gz) with a header line and the columns sentence1, sentence2, score
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct InfoArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Convert(args) => run_convert(args),
        Command::Encode(args) => run_encode(args),
        Command::Similarity(args) => run_similarity(args),
        Command::Search(args) => run_search(args),
        Command::Eval(EvalCommand::Sts(args)) => run_sts(args),
        Command::Info(args) => run_info(args),
        #[cfg(feature = "train")]
        Command::Train(args) => munjang::train::cli::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough; that is not an error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[{}]: {error}", error.code());
            ExitCode::FAILURE
        }
    }
}

fn run_convert(args: ConvertArgs) -> Result<()> {
    let options = ConvertOptions {
        layers: args.layers,
        pooling: args.pooling.map(|pooling| match pooling {
            PoolingArg::Mean => Pooling::Mean,
            PoolingArg::Cls => Pooling::Cls,
        }),
        prefix: args.prefix,
        max_tokens: args.max_tokens,
    };
    let name = args.output.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        input_invalid(format!("--output {} is not a file name", args.output.display()))
    })?;
    let model = convert::read_checkpoint(&args.checkpoint, &options)?;
    let bytes = format::write(&model)?;
    // What is written must load; better to learn it here than in a page.
    let info = Encoder::from_bytes(bytes.as_slice())?.info();
    write_file(&args.output, &bytes)?;
    if args.manifest {
        let manifest = Manifest::new(name, &bytes, &info);
        write_file(&args.output.with_file_name("manifest.json"), manifest.to_json().as_bytes())?;
    }
    print(&format!("{}: model {}, {} bytes\n", args.output.display(), info.model_id, bytes.len()))
}

fn run_encode(args: EncodeArgs) -> Result<()> {
    let encoder = load(&args.model)?;
    let hidden = encoder.config().hidden_size;
    let mut sink = match &args.output {
        None => Sink::Lines(Box::new(BufWriter::new(io::stdout()))),
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
    sink.finish(args.output.as_deref(), total, hidden)?;
    progress.finish_and_clear();
    if cut > 0 {
        eprintln!(
            "note: {cut} of {total} lines have more than {} tokens and were cut",
            encoder.config().max_position_embeddings
        );
    }
    Ok(())
}

fn run_similarity(args: SimilarityArgs) -> Result<()> {
    let encoder = load(&args.model)?;
    let embeddings = encoder.encode_batch(&args.sentences)?.embeddings;
    let hidden = encoder.config().hidden_size;
    if let [_, _] = args.sentences[..] {
        let (a, b) = embeddings.split_at(hidden);
        return print(&format!("{:.4}\n", munjang::search::dot(a, b)));
    }
    let scores = similarity_matrix(&embeddings, &embeddings, hidden);
    let mut text = String::new();
    for row in scores.chunks_exact(args.sentences.len()) {
        let cells: Vec<String> = row.iter().map(|score| format!("{score:.4}")).collect();
        text += &(cells.join("\t") + "\n");
    }
    print(&text)
}

fn run_search(args: SearchArgs) -> Result<()> {
    let encoder = load(&args.model)?;
    let name = args.corpus.display().to_string();
    let file = File::open(&args.corpus)
        .map_err(|source| Error::io(format!("cannot read {name}"), source))?;
    let mut lines = Lines::new(BufReader::new(file), &name);
    let texts = lines.take(usize::MAX)?;
    if texts.is_empty() {
        return Err(Error::new(ErrorKind::DataInvalid, format!("{name}:1: the file is empty")));
    }
    let index = match &args.index {
        Some(path) if path.exists() => {
            let bytes = std::fs::read(path)
                .map_err(|source| Error::io(format!("cannot read {}", path.display()), source))?;
            let index = FlatIndex::from_bytes(&bytes, &encoder.info().model_id)?;
            if index.len() != texts.len() {
                return Err(Error::new(
                    ErrorKind::IndexInvalid,
                    format!(
                        "{} holds {} rows, {name} {} lines: delete the index to build it again",
                        path.display(),
                        index.len(),
                        texts.len()
                    ),
                ));
            }
            index
        }
        path => {
            let index = build_index(&encoder, &texts)?;
            if let Some(path) = path {
                write_file(path, &index.to_bytes()?)?;
            }
            index
        }
    };
    let mut text = String::new();
    for hit in index.search(&encoder.encode(&args.query)?, args.top_k)? {
        let line = &texts[hit.row];
        if args.json {
            let json = serde_json::json!({"line": hit.row + 1, "score": hit.score, "text": line});
            text += &format!("{json}\n");
        } else {
            text += &format!("{:.4}\t{}\t{line}\n", hit.score, hit.row + 1);
        }
    }
    print(&text)
}

fn build_index(encoder: &Encoder, texts: &[String]) -> Result<FlatIndex> {
    let mut index = FlatIndex::new(encoder.info().model_id, encoder.config().hidden_size)?;
    let progress = bar(texts.len(), "lines");
    for batch in texts.chunks(LINES_PER_BATCH) {
        index.add(&encoder.encode_batch(batch)?.embeddings)?;
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    Ok(index)
}

fn run_sts(args: StsArgs) -> Result<()> {
    let encoder = load(&args.model)?;
    let mut rows = Vec::new();
    for path in &args.files {
        let pairs = eval::read_sts(path)?;
        let progress = bar(2 * pairs.len(), "sentences");
        let score = eval::sts(&encoder, &pairs, |done| progress.set_position(done as u64))?;
        progress.finish_and_clear();
        rows.push((path.display().to_string(), score));
    }
    if args.json {
        // NaN (fewer than two pairs, constant scores) has no JSON number: it becomes null.
        let files: Vec<_> = rows
            .iter()
            .map(|(file, score)| {
                serde_json::json!({"file": file, "pairs": score.pairs,
                    "spearman": 100.0 * score.spearman, "pearson": 100.0 * score.pearson})
            })
            .collect();
        let info = encoder.info();
        let json =
            serde_json::json!({"modelId": info.model_id, "kernel": info.kernel, "files": files});
        return print(&format!("{json}\n"));
    }
    let width = rows.iter().map(|(file, _)| file.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "{:width$}  {:>7}  {:>12}  {:>11}\n",
        "file", "pairs", "Spearman×100", "Pearson×100"
    );
    for (file, score) in &rows {
        text += &format!(
            "{file:width$}  {:>7}  {:>12.2}  {:>11.2}\n",
            score.pairs,
            100.0 * score.spearman,
            100.0 * score.pearson
        );
    }
    print(&text)
}

fn run_info(args: InfoArgs) -> Result<()> {
    let info = load(&args.model)?.info();
    // By way of text, so that an f32 keeps its short spelling.
    let config: serde_json::Value = serde_json::to_string(&info.config)
        .and_then(|text| serde_json::from_str(&text))
        .expect("a config becomes JSON");
    if args.json {
        let json = serde_json::json!({"modelId": info.model_id, "formatVersion": info.format_version,
            "bytes": info.bytes, "kernel": info.kernel, "config": config});
        return print(&format!("{json}\n"));
    }
    let mut text = format!(
        "model id                 {}\nformat version           {}\nbytes                    {}\n\
         kernels on this machine  {}\n",
        info.model_id, info.format_version, info.bytes, info.kernel
    );
    for (name, value) in config.as_object().into_iter().flatten() {
        text += &format!("{name:23}  {value}\n");
    }
    print(&text)
}

/// Loads the model that `--model`, `MUNJANG_MODEL` or the default place names.
fn load(arg: &ModelArg) -> Result<Encoder> {
    let path = match &arg.model {
        Some(path) if path.is_dir() => path.join("manifest.json"),
        Some(path) => path.clone(),
        None => default_manifest()?,
    };
    if path.extension().is_some_and(|extension| extension == "json") {
        return Encoder::from_bytes(Manifest::read_model(&path)?.1);
    }
    let cannot_read = |source| Error::io(format!("cannot read {}", path.display()), source);
    Encoder::from_bytes(std::fs::read(&path).map_err(cannot_read)?)
}

fn default_manifest() -> Result<PathBuf> {
    let starts = [std::env::current_dir(), std::env::current_exe()];
    starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join("models/manifest.json"))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            input_invalid(
                "no model: give --model PATH, set MUNJANG_MODEL, or run where models/manifest.json is"
                    .into(),
            )
        })
}

/// Lines of UTF-8 text, numbered for messages.
struct Lines<'a, R> {
    reader: R,
    name: &'a str,
    number: usize,
}

impl<'a, R: BufRead> Lines<'a, R> {
    fn new(reader: R, name: &'a str) -> Self {
        Lines { reader, name, number: 0 }
    }

    /// At most `count` further lines, without their line ends.
    fn take(&mut self, count: usize) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let mut line = Vec::new();
            let read = self.reader.read_until(b'\n', &mut line);
            if read.map_err(|source| Error::io(format!("cannot read {}", self.name), source))? == 0
            {
                break;
            }
            self.number += 1;
            while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                line.pop();
            }
            lines.push(String::from_utf8(line).map_err(|_| {
                Error::new(
                    ErrorKind::DataInvalid,
                    format!("{}:{}: not UTF-8", self.name, self.number),
                )
            })?);
        }
        Ok(lines)
    }
}

/// Where embeddings go.
enum Sink {
    Lines(Box<dyn Write>),
    /// Written under another name until complete.
    Npy {
        file: BufWriter<File>,
        partial: PathBuf,
    },
}

/// Length of the .npy header, fixed so that the number of rows can be filled in at the end.
const NPY_HEADER_BYTES: usize = 128;

impl Sink {
    fn create(path: &Path, hidden: usize) -> Result<Self> {
        let create = |path: &Path| {
            File::create(path)
                .map(BufWriter::new)
                .map_err(|source| Error::io(format!("cannot write {}", path.display()), source))
        };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => {
                let partial = path.with_extension("npy.partial");
                let mut file = create(&partial)?;
                file.write_all(&npy_header(0, hidden)).map_err(cannot_write)?;
                Ok(Sink::Npy { file, partial })
            }
            Some("jsonl") => Ok(Sink::Lines(Box::new(create(path)?))),
            _ => Err(input_invalid(format!(
                "--output {}: expected a name that ends in .npy or .jsonl",
                path.display()
            ))),
        }
    }

    fn write(&mut self, embedding: &[f32], tokens: u32, truncated: bool) -> Result<()> {
        match self {
            Sink::Lines(out) => {
                let embedding = serde_json::to_string(embedding).expect("numbers become JSON");
                writeln!(
                    out,
                    "{{\"embedding\":{embedding},\"tokens\":{tokens},\"truncated\":{truncated}}}"
                )
            }
            Sink::Npy { file, .. } => {
                embedding.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))
            }
        }
        .map_err(cannot_write)
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Sink::Lines(out) => out.flush(),
            Sink::Npy { file, .. } => file.flush(),
        }
        .map_err(cannot_write)
    }

    fn finish(mut self, path: Option<&Path>, rows: usize, hidden: usize) -> Result<()> {
        self.flush()?;
        if let (Sink::Npy { mut file, partial }, Some(path)) = (self, path) {
            file.seek(SeekFrom::Start(0)).map_err(cannot_write)?;
            file.write_all(&npy_header(rows, hidden)).map_err(cannot_write)?;
            file.flush().map_err(cannot_write)?;
            std::fs::rename(partial, path)
                .map_err(|source| Error::io(format!("cannot write {}", path.display()), source))?;
        }
        Ok(())
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

/// Writes a whole file or none: to another name first, then renamed.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|source| Error::io(format!("cannot write {}", path.display()), source))
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(cannot_write)
}

fn cannot_write(source: io::Error) -> Error {
    Error::io("cannot write the output", source)
}

fn is_broken_pipe(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.is_some_and(|source: &io::Error| source.kind() == io::ErrorKind::BrokenPipe)
}

fn input_invalid(message: String) -> Error {
    Error::new(ErrorKind::InputInvalid, message)
}

/// A progress bar on standard error; nothing where that is not a terminal.
fn bar(len: usize, unit: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!(
        "{{bar:40}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left"
    ));
    ProgressBar::new(len as u64).with_style(style.expect("the template is well formed"))
}

/// A count of unknown end on standard error; nothing where that is not a terminal.
fn spinner(unit: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{spinner}} {{pos}} {unit}, {{per_sec}}"));
    ProgressBar::new_spinner().with_style(style.expect("the template is well formed"))
}
