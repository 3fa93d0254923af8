//! The same recipe gives the same model file, byte for byte: before and after any change of the code
//! that is not meant to change what is trained, and on any machine.
//!
//! What a machine decides is kept out: products of the encoder are computed in one order
//! (`MUNJANG_PORTABLE_PRODUCTS`), and until the export no loss asks the system's library for an
//! exponential or a logarithm. The stages after the export are of the kinds that do; of these, as of all
//! others, the settings are pinned that a stopped run is compared with before it goes on.

#![cfg(feature = "train")]

use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

const RECIPE: &str = r#"
name = "same-bits"
seed = 11
max_tokens = 20

[teacher]
prefix = "query: "

[data.sts]
file = "sts.tsv"
kind = "sts"
license = "CC0 1.0"

[data.nli]
file = "nli.tsv"
kind = "nli"
license = "CC0 1.0"

[data.lines]
file = "lines.txt"
kind = "sentences"
running_text = true
license = "CC0 1.0"

[data.labelled]
made_by = "label"
kind = "sts"
weight = 0.5
license = "CC0 1.0"

[data.partners]
file = "sts.tsv"
kind = "pairs"
license = "CC0 1.0"

[[evaluate]]
name = "dev"
file = "dev.tsv"

[[stage]]
name = "vocabulary"
kind = "prune_vocabulary"
model = "teacher"
vocabulary = 840
data = ["sts", "lines"]

[[stage]]
name = "center"
kind = "center"
model = "teacher"
data = ["lines"]

[[stage]]
name = "shift"
kind = "shift_states"
model = "teacher"
data = ["lines"]

[[stage]]
name = "teacher_sts"
kind = "sts"
model = "teacher"
data = ["sts"]
steps = 4
batch = 8
dropout = 0.1
learning_rate = 1e-3
freeze_embeddings = true
freeze_layers = 1

[[stage]]
name = "layers"
kind = "pick_layers"
layers = [0, 2]

[[stage]]
name = "wider"
kind = "widen"
layers = [0, 2]
intermediate_size = 112

[[stage]]
name = "distill"
kind = "distill"
data = ["sts", "lines"]
steps = 6
batch = 8
learning_rate = 1e-3
dropout = 0.1
state_weight = 1.0
similarity_weight = 0.0
middle_weight = 0.5
middle_layers = [[0, 1]]
quantized_teacher = true
freeze_word_embeddings = true
checkpoint_every = 2

[[stage]]
name = "student_sts"
kind = "sts"
data = ["sts"]
steps = 6
batch = 8
learning_rate = 1e-3
teacher_weight = 0.1
similarity_weight = 0.0
quantized_teacher = true
quantize_bits = 7
rounding_weight = 0.5
dimensions = [16]
evaluate_every = 3
average = { start = 0.3, every = 1, decay = 0.9 }

[[stage]]
name = "export"
kind = "export"

[[stage]]
name = "contrast"
kind = "contrast"
model = "teacher"
data = ["nli"]
steps = 1
batch = 4
temperature = 0.1

[[stage]]
name = "cross"
kind = "cross_encoder"
model = "teacher"
data = ["sts"]
steps = 1
batch = 4
minutes = 60.0

[[stage]]
name = "label"
kind = "label_pairs"
data = ["nli"]
neighbours = 1
scorer = "cross"
teacher_share = 0.25

[[stage]]
name = "retrieval"
kind = "sts"
data = ["sts", "labelled", "partners"]
steps = 1
batch = 4
decay = "cosine"
precision = "bf16"
pairs_weight = 0.5
pairs_batch = 4
pairs_teacher_weight = 0.5
"#;

const WORDS: [&str; 12] = [
    "봄이",
    "꽃이",
    "비가",
    "눈이",
    "바람이",
    "아이가",
    "기차가",
    "바다가",
    "하늘이",
    "책을",
    "문을",
    "길을",
];
const ENDS: [&str; 7] =
    ["온다", "보인다", "아름답다", "지나간다", "열고 닫았다", "잃어버렸다", "조용히 기다린다"];

/// The sentences of the data, all different.
fn sentence(index: usize) -> String {
    let (word, end) = (WORDS[index % 12], ENDS[index % 7]);
    let middle = ["오늘", "어제도", "정말", "다시", "천천히"][index / 12 % 5];
    format!("{word} {middle} {end}")
}

fn write_data(folder: &Path) {
    let mut sts = "sentence1\tsentence2\tscore\n".to_owned();
    let mut nli = "sentence1\tsentence2\tlabel\n".to_owned();
    let mut lines = String::new();
    let mut dev = "sentence1\tsentence2\tscore\n".to_owned();
    for index in 0..30 {
        let (a, b) = (sentence(index), sentence(index + 13));
        sts += &format!("{a}\t{b}\t{}\n", index % 11 * 5 / 11);
        nli += &format!("{a}\t{b}\t{}\n", ["entailment", "neutral", "contradiction"][index % 3]);
        lines += &format!("{}\n", sentence(index + 20));
    }
    for index in 50..58 {
        dev += &format!("{}.\t{}\t{}\n", sentence(index), sentence(index + 1), index % 5);
    }
    for (file, text) in [("sts.tsv", sts), ("nli.tsv", nli), ("lines.txt", lines), ("dev.tsv", dev)]
    {
        fs::write(folder.join(file), text).unwrap();
    }
}

fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of what each stage was run with.
const SETTINGS: [(&str, &str); 13] = [
    ("vocabulary", "17ef77c75b64000c8c343efee704f0d403271c413c67dd17af3b67bc4c443376"),
    ("center", "b86ed7fcef9cfa238f31b93f365aaca2a0c73488dce8128b41f788dccecbf1d9"),
    ("shift", "1631582dfbd11ed4930f49a4431dd1170f83d6874995a8606988160726bee5aa"),
    ("teacher_sts", "7888f2836c7a685ad0b23a47ce0267540260cc68a49523b2ce9004aa478bcadf"),
    ("layers", "3a7a387c00fa5beed114c7af1aae3898223b10f2c649b65588b579a66f23bb80"),
    ("wider", "f8bcc985d7d040511da79f85cc722af25dc45c9ceba2f0d6db3ab84ce375e707"),
    ("distill", "6c1296b90c2e20764418d92751d0e5b4e5d244226d5e43b22600d304dcdf25d8"),
    ("student_sts", "c0807f9934a5213515e72db17373c45809d675c05763cd8ee5ade3ff063054de"),
    ("export", "3acfcd5bc95721e1fd23e55f5f8a7094f556ca87a7acd3bcc2ee97304f13f203"),
    ("contrast", "d5196491bf2bfb5cefa9afed43e67b7e5727263c7a69d53b627d161701cdafb4"),
    ("cross", "6c260ce00ced09fa8eb4f3d1914b3d65101d757daa854dd37e86507fbb840f1b"),
    ("label", "9c1230b5b87facde1e2cc6108277ad363064ec0dac27d118c238e2253a2989d5"),
    ("retrieval", "81043d4584e05dd5e62aca7daf10c4cd4cf48f6cdd2d170ded16be4c306c0ef1"),
];

const MODEL: &str = "cbafda1509dca80f282df223bf7867d35bfef4d4f7b24b6484afc240b607af2e";

#[test]
fn the_same_recipe_gives_the_same_model_file() {
    let place = tempfile::tempdir().unwrap();
    let (data, out) = (place.path().join("data"), place.path().join("out"));
    fs::create_dir(&data).unwrap();
    write_data(&data);
    let recipe = place.path().join("same-bits.toml");
    fs::write(&recipe, RECIPE).unwrap();
    let teacher = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/small/bert");
    let output = Command::new(env!("CARGO_BIN_EXE_munjang"))
        .env("MUNJANG_PORTABLE_PRODUCTS", "1")
        .arg("train")
        .arg(&recipe)
        .args(["--data".as_ref(), data.as_os_str()])
        .args(["--teacher".as_ref(), teacher.as_os_str()])
        .args(["--out".as_ref(), out.as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let settings = SETTINGS.map(|(stage, _)| (stage, sha256(&out.join(stage).join("done.json"))));
    let expected = SETTINGS.map(|(stage, hash)| (stage, hash.to_owned()));
    assert_eq!(settings, expected, "a stopped run of an earlier version would not go on");
    assert_eq!(sha256(&out.join("export/same-bits.munjang")), MODEL, "other weights were trained");
}
