//! Inputs for the targets: kept ones, and mutations without end.

use std::path::{Path, PathBuf};

use munjang::Encoder;

use super::mutate::{self, Random};
use super::{seeds, targets};

/// What is mutated and given to which target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    ModelFile,
    Tokenizer,
    IndexFile,
    Texts,
}

pub const TARGETS: [Target; 4] =
    [Target::ModelFile, Target::Tokenizer, Target::IndexFile, Target::Texts];

impl Target {
    /// Also its folder in `corpus/`.
    pub fn name(self) -> &'static str {
        match self {
            Target::ModelFile => "model_file",
            Target::Tokenizer => "tokenizer",
            Target::IndexFile => "index_file",
            Target::Texts => "texts",
        }
    }
}

/// Makes inputs and runs them.
pub struct Cases {
    random: Random,
    tokenizers: Vec<Vec<u8>>,
    index_files: Vec<Vec<u8>>,
    encoders: Vec<Encoder>,
    kept: Vec<(Target, PathBuf, Vec<u8>)>,
    /// Mutated for a while: to make one costs more than to load it.
    model: Vec<u8>,
    uses: usize,
}

impl Cases {
    /// With the inputs kept in `corpus`.
    pub fn new(seed: u64, corpus: &Path) -> Self {
        let mut random = Random::new(seed);
        let model = seeds::model(&mut random, 1.0);
        let mut tokenizers = seeds::tokenizers();
        let mut kept = Vec::new();
        for target in TARGETS {
            let folder = corpus.join(target.name());
            let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
                .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
                .map(|entry| entry.expect("a folder can be read").path())
                .collect();
            paths.sort();
            for path in paths {
                let bytes = std::fs::read(&path).expect("a file can be read");
                if target == Target::Tokenizer {
                    tokenizers.push(bytes.clone());
                }
                kept.push((target, path, bytes));
            }
        }
        Cases {
            encoders: targets::encoders(&model),
            index_files: seeds::index_files(),
            tokenizers,
            kept,
            model,
            uses: 0,
            random,
        }
    }

    /// The inputs that are kept.
    pub fn kept(&self) -> &[(Target, PathBuf, Vec<u8>)] {
        &self.kept
    }

    /// The next input for `target`.
    pub fn next(&mut self, target: Target) -> Vec<u8> {
        let random = &mut self.random;
        if target == Target::ModelFile {
            self.uses += 1;
            if self.uses % 100 == 0 {
                let size = random.pick(&seeds::WEIGHTS);
                self.model = seeds::model(random, size);
            }
            let mut file = self.model.clone();
            mutate::model_file(random, &mut file);
            return file;
        }
        if target == Target::Texts {
            let lines: Vec<String> =
                (0..1 + random.below(3)).map(|_| mutate::text(random)).collect();
            return lines.join("\n").into_bytes();
        }
        let from = if target == Target::Tokenizer { &self.tokenizers } else { &self.index_files };
        let mut file = from[random.below(from.len())].clone();
        let end = file.len();
        if random.below(10) == 0 {
            file.truncate(random.below(end));
        } else {
            mutate::bytes(random, &mut file, 0..end);
        }
        file
    }

    /// Gives `input` to `target`: whether it was taken. Panics where something does not hold.
    pub fn run(&self, target: Target, input: &[u8]) -> bool {
        match target {
            Target::ModelFile => targets::model_file(input),
            Target::Tokenizer => targets::tokenizer(input),
            Target::IndexFile => targets::index_file(input),
            Target::Texts => targets::texts(&self.encoders, input),
        }
    }
}
