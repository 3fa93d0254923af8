//! A folder of data, runs on it, and the recipes that several tests change a line of.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use munjang::train::internals::read_float_model;
use munjang::train::recipe::Recipe;
use munjang::train::run::Run;
use munjang::weights::FloatModel;

use crate::golden_files::{corpus, small};

/// A folder with data files cut from the fixtures' corpus, removed at the end.
pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        let lines: Vec<String> = corpus()
            .into_iter()
            .map(|line| line.chars().take(24).filter(|c| !c.is_control()).collect::<String>())
            .filter(|line| line.trim().chars().count() > 6)
            .take(200)
            .collect();
        let mut sts = "sentence1\tsentence2\tscore\tseen_in\n".to_owned();
        for (index, pair) in lines[..80].chunks_exact(2).enumerate() {
            sts += &format!("{}\t{}\t{:.1}\t\n", pair[0], pair[1], index as f64 % 6.0 * 0.9);
        }
        place.write("sts/train.tsv", &sts);
        let mut dev = "sentence1\tsentence2\tscore\n".to_owned();
        for (index, pair) in lines[80..120].chunks_exact(2).enumerate() {
            dev += &format!("{}\t{}\t{}\n", pair[0], pair[1], index % 5);
        }
        place.write("sts/dev.tsv", &dev);
        place.write("plain/lines.txt", &(lines[120..].join("\n") + "\n"));
        let mut nli = "sentence1\tsentence2\tgold_label\n".to_owned();
        for triple in lines[120..180].chunks_exact(3) {
            nli += &format!(
                "{0}\t{1}\tentailment\n{0}\t{2}\tcontradiction\n",
                triple[0], triple[1], triple[2]
            );
            nli += &format!("{0}\t{1} 그리고\tneutral\n", triple[0], triple[1]);
        }
        place.write("nli/train.tsv", &nli);
        place
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.data().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn recipe(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A run of the recipe `text` with the smallest teacher, into the folder `out`.
    pub fn run(&self, text: &str, out: &str) -> Run {
        let recipe = Recipe::parse(text, "test.toml").unwrap();
        Run::new(recipe, self.data(), small("bert"), self.out(out))
    }

    /// `munjang train RECIPE` with the data and the smallest teacher.
    pub fn command(&self, recipe: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_munjang"));
        command
            .arg("train")
            .arg(recipe)
            .args(["--data".as_ref(), self.data().as_os_str()])
            .args(["--teacher".as_ref(), small("bert").as_os_str()]);
        command
    }

    /// The model that a stage of the run in `out` left.
    pub fn model(&self, out: &str, stage: &str) -> FloatModel {
        read_float_model(&self.out(out).join(stage).join("model.safetensors")).unwrap()
    }

    /// Lends what `stages` left in one run to another.
    pub fn copy_stages(&self, from: &str, to: &str, stages: &[&str]) {
        for stage in stages {
            let folder = self.out(to).join(stage);
            fs::create_dir_all(&folder).unwrap();
            for file in ["model.safetensors", "done.json"] {
                fs::copy(self.out(from).join(stage).join(file), folder.join(file)).unwrap();
            }
        }
    }
}

/// Every kind of stage but those of pairs, on a teacher of three layers.
pub const RECIPE: &str = r#"
name = "tiny"
seed = 3
max_tokens = 24

[data.sts]
file = "sts/train.tsv"
kind = "sts"
drop = { seen_in = "*" }
license = "CC0 1.0"
origin = "made up"

[data.nli]
file = "nli/train.tsv"
kind = "nli"
license = "CC0 1.0"

[data.lines]
file = "plain/lines.txt"
kind = "sentences"
license = "CC0 1.0"

[[evaluate]]
name = "tiny dev"
file = "sts/dev.tsv"

[[stage]]
name = "vocabulary"
kind = "prune_vocabulary"
model = "teacher"
vocabulary = 830
data = ["sts", "lines"]

[[stage]]
name = "center"
kind = "center"
model = "teacher"
data = ["lines"]

[[stage]]
name = "contrast"
kind = "contrast"
model = "teacher"
data = ["nli"]
steps = 3
batch = 8
dropout = 0.1
freeze_layers = 1

[[stage]]
name = "teacher_sts"
kind = "sts"
model = "teacher"
data = ["sts"]
steps = 4
batch = 8
freeze_embeddings = true

[[stage]]
name = "layers"
kind = "pick_layers"
layers = [0, 2]

[[stage]]
name = "distill"
kind = "distill"
data = ["sts", "nli", "lines"]
steps = 6
batch = 8
learning_rate = 1e-3
state_weight = 1.0
quantized_teacher = true
freeze_word_embeddings = true

[[stage]]
name = "student_sts"
kind = "sts"
data = ["sts"]
steps = 6
batch = 8
teacher_weight = 0.1
quantized_teacher = true
quantize_bits = 7
evaluate_every = 3
average = { start = 0.5, every = 1 }

[[stage]]
name = "export"
kind = "export"
"#;

/// A stage long enough to be stopped in the middle of it.
pub const KILLED: &str = r#"
name = "killed"
seed = 9
max_tokens = 24
[data.sts]
file = "sts/train.tsv"
kind = "sts"
license = "CC0 1.0"
[data.lines]
file = "plain/lines.txt"
kind = "sentences"
license = "CC0 1.0"
[[stage]]
name = "layers"
kind = "pick_layers"
layers = [0, 2]
[[stage]]
name = "distill"
kind = "distill"
data = ["sts", "lines"]
steps = 60
batch = 16
dropout = 0.1
learning_rate = 1e-3
checkpoint_every = 5
average = { start = 0.2, every = 3, decay = 0.9 }
"#;

/// A cross-encoder, the pairs that it labels, and a student of them.
pub const CROSS: &str = r#"
name = "cross"
seed = 5
max_tokens = 24
[data.sts]
file = "sts/train.tsv"
kind = "sts"
license = "CC0 1.0"
[data.nli]
file = "nli/train.tsv"
kind = "nli"
license = "CC0 1.0"
[data.lines]
file = "plain/lines.txt"
kind = "sentences"
license = "CC0 1.0"
[data.labelled]
made_by = "label"
kind = "sts"
weight = 0.3
license = "CC0 1.0"
origin = "scored by the cross-encoder"
[data.partners]
file = "sts/train.tsv"
kind = "pairs"
license = "CC0 1.0"
[[evaluate]]
name = "tiny dev"
file = "sts/dev.tsv"
[[stage]]
name = "cross"
kind = "cross_encoder"
model = "teacher"
data = ["sts"]
steps = 4
batch = 8
dropout = 0.1
learning_rate = 1e-3
evaluate_every = 2
[[stage]]
name = "label"
kind = "label_pairs"
data = ["nli", "lines"]
neighbours = 2
mined_sentences = 40
[[stage]]
name = "layers"
kind = "pick_layers"
layers = [0, 2]
[[stage]]
name = "student_sts"
kind = "sts"
data = ["sts", "labelled", "partners"]
steps = 4
batch = 8
pairs_weight = 0.1
pairs_batch = 4
pairs_tokens = 40
[[stage]]
name = "export"
kind = "export"
"#;
