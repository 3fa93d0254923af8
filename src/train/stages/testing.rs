//! What the tests of stages share: data, models and runs.

use std::path::{Path, PathBuf};

use crate::config::ModelConfig;
use crate::convert::{ConvertOptions, checkpoint_files, read_checkpoint};
use crate::train::nn::random::random_float_model;
use crate::train::recipe::Recipe;
use crate::train::run::Run;
use crate::weights::FloatModel;

pub(super) const SENTENCES: [&str; 12] = [
    "봄이 왔다",
    "꽃이 핀다고 한다",
    "비가 내린다",
    "오늘은 눈이 온다",
    "바람이 분다",
    "해가 일찍 뜬다",
    "아이가 웃는다",
    "기차가 역에 들어온다",
    "문이 닫혔다",
    "바다는 깊고 푸르다",
    "길을 잃었다",
    "책을 읽고 있다",
];

/// Data, a student of 2 layers × 48 and two teachers of 3 layers, as wide as the student and wider.
pub(super) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        let write = |file: &str, text: &str| {
            std::fs::write(place.folder.path().join(file), text).unwrap();
        };
        let (mut sts, mut nli, mut sets) = (
            "sentence1\tsentence2\tscore\n".to_owned(),
            "sentence1\tsentence2\tlabel\n".to_owned(),
            "sentence\tset_id\n".to_owned(),
        );
        for (at, text) in SENTENCES.iter().enumerate() {
            let other = SENTENCES[(at + 1) % SENTENCES.len()];
            sts += &format!("{text}\t{other}\t{:.1}\n", at as f64 % 5.0);
            let label = ["entailment", "contradiction", "entailment"][at % 3];
            nli += &format!("{}\t{other}\t{label}\n", SENTENCES[at / 3]);
            sets += &format!("{text}\t{}\n", at / 3);
        }
        write("sts.tsv", &sts);
        let dev = "sentence1\tsentence2\tscore\n새가 난다\t새가 높이 난다\t4\n\
                   밥을 먹었다\t눈을 감았다\t0.5\n집에 간다\t집으로 돌아간다\t4.5\n\
                   물이 차다\t산은 높다\t1\n";
        write("dev.tsv", dev);
        write("nli.tsv", &nli);
        write("sets.tsv", &sets);
        write("lines.txt", &(SENTENCES.join("\n") + "\n"));
        for (name, hidden, layers, seed) in
            [("student", 48, 2, 1), ("teacher", 48, 3, 2), ("wide", 64, 3, 3)]
        {
            let model = grown_model(hidden, layers, seed);
            write_checkpoint(&model, &place.folder.path().join(name));
        }
        place
    }

    /// A run of `recipe` with one of the teachers and the student.
    pub(super) fn run(&self, recipe: &str, teacher: &str, out: &str) -> Run {
        let of = |name: &str| self.folder.path().join(name);
        let recipe = Recipe::parse(recipe, "test.toml").unwrap();
        let run = Run::new(recipe, self.folder.path().to_owned(), of(teacher), of(out));
        Run { student: Some(of("student")), ..run }
    }
}

/// A small random checkpoint of the repository.
pub(super) fn small(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/small").join(name)
}

/// Writes a model as a Hugging Face checkpoint.
pub(super) fn write_checkpoint(model: &FloatModel, folder: &Path) {
    for (file, bytes) in checkpoint_files(model).unwrap() {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Random weights, larger than those that BERT starts with: nothing is nearly linear, and sentences
/// lie far apart.
pub(super) fn grown_model(hidden_size: usize, num_hidden_layers: usize, seed: u64) -> FloatModel {
    let small = read_checkpoint(&small("bert"), &ConvertOptions::default()).unwrap();
    let config = ModelConfig { hidden_size, num_hidden_layers, ..small.config.clone() };
    let mut model = random_float_model(&config, seed);
    model.tokenizer_json = small.tokenizer_json;
    let grow = |data: &mut Vec<f32>| data.iter_mut().for_each(|x| *x *= 8.0);
    grow(&mut model.word_embeddings.data);
    grow(&mut model.position_embeddings.data);
    for layer in &mut model.layers {
        let attention = [&mut layer.query, &mut layer.key, &mut layer.value];
        let others = [&mut layer.attention_output, &mut layer.intermediate, &mut layer.output];
        attention.into_iter().chain(others).for_each(|linear| grow(&mut linear.weight.data));
    }
    model
}

/// The data of a [`Place`], as a recipe's head.
pub(super) const DATA: &str = r#"
    name = "agreement"
    seed = 5
    max_tokens = 16
    [data.sts]
    file = "sts.tsv"
    kind = "sts"
    license = "CC0"
    [data.half_sts]
    file = "sts.tsv"
    kind = "sts"
    license = "CC0"
    weight = 0.5
    [data.nli]
    file = "nli.tsv"
    kind = "nli"
    license = "CC0"
    [data.sets]
    file = "sets.tsv"
    kind = "sets"
    license = "CC0"
    [data.pairs]
    file = "sts.tsv"
    kind = "pairs"
    license = "CC0"
    [data.lines]
    file = "lines.txt"
    kind = "sentences"
    license = "CC0"
    [data.labelled]
    made_by = "label"
    kind = "sts"
    license = "CC0"
"#;
