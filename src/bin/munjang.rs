//! The program `munjang`: parses its arguments and hands them to the command, which lies in the
//! file of [`munjang::cli`] that has its name.

use std::process::ExitCode;

use clap::Parser;
use munjang::cli::{self, convert, encode, eval, index, info, mark_texts, search, similarity};

#[derive(Parser)]
#[command(name = "munjang", version, about = "Korean sentence embeddings")]
enum Command {
    /// Turn a Hugging Face checkpoint folder into a model file
    Convert(convert::ConvertArgs),
    /// Turn the lines of standard input into sentence embeddings
    Encode(encode::EncodeArgs),
    /// Print the cosine similarity of sentences
    Similarity(similarity::SimilarityArgs),
    /// Make a file of documents that can be searched, here and in a page
    Index(index::IndexArgs),
    /// Find the lines of a file that answer a query best, by meaning and by words
    Search(search::SearchArgs),
    /// Measure a model on files with human judgements
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Describe a model file
    Info(info::InfoArgs),
    /// Train a model as a recipe says
    #[cfg(feature = "train")]
    Train(cli::train::TrainArgs),
}

fn main() -> ExitCode {
    cli::exit_code(match Command::parse_from(mark_texts(std::env::args_os())) {
        Command::Convert(args) => convert::run(args),
        Command::Encode(args) => encode::run(args),
        Command::Similarity(args) => similarity::run(args),
        Command::Index(args) => index::run(args),
        Command::Search(args) => search::run(args),
        Command::Eval(command) => eval::run(command),
        Command::Info(args) => info::run(args),
        #[cfg(feature = "train")]
        Command::Train(args) => cli::train::run(args),
    })
}
