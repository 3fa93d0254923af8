//! Whole training runs on small random checkpoints: what they leave, what stops them, and that a
//! killed one goes on as if nothing had been.

#![cfg(feature = "train")]

mod golden_files;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::Device;
use golden_files::{corpus, repository, small};
use munjang::Encoder;
use munjang::convert::{ConvertOptions, Manifest, read_checkpoint};
use munjang::tokenizer::Tokenizer;
use munjang::train::checkpoint::{Checkpoint, read_float_model};
use munjang::train::metrics::{Metric, Metrics};
use munjang::train::prune;
use munjang::train::recipe::{Recipe, Slot};
use munjang::train::stages::Run;
use munjang::weights::FloatModel;

/// A folder with data files cut from the fixtures' corpus, removed at the end.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
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

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.data().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn recipe(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, text: &str, out: &str) -> Run {
        Run {
            recipe: Recipe::parse(text, "test.toml").unwrap(),
            data: self.data(),
            teacher: small("bert"),
            student: None,
            out: self.out(out),
            device: Device::Cpu,
        }
    }
}

const RECIPE: &str = r#"
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

#[test]
fn a_whole_recipe_leaves_a_model_that_the_encoder_runs() {
    let place = Place::new();
    let run = place.run(RECIPE, "out");
    run.run(None).unwrap();

    let folder = place.out("out/export");
    let (_, bytes) = Manifest::read_model(&folder.join("manifest.json")).unwrap();
    let encoder = Encoder::from_bytes(bytes).unwrap();
    let config = encoder.info().config;
    assert_eq!((config.num_hidden_layers, config.vocab_size), (2, 830));
    assert!(encoder.encode("오늘은 날씨가 좋다").unwrap().iter().all(|x| x.is_finite()));
    let card = fs::read_to_string(folder.join("MODEL_CARD.md")).unwrap();
    assert!(card.contains("CC0 1.0") && card.contains("tiny dev"), "{card}");
    for file in ["loss.svg", "scores.svg"] {
        assert!(fs::read_to_string(place.out("out").join(file)).unwrap().contains("<polyline"));
    }

    // Every stage is in the metrics, and weights that are to stay have stayed.
    let metrics = Metrics::new(&place.out("out")).read().unwrap();
    for stage in &run.recipe.stages {
        let done = |metric: &Metric| matches!(metric, Metric::Done { stage: name, step, .. } if *name == stage.name && *step == stage.steps);
        assert!(metrics.iter().any(done), "{}", stage.name);
    }
    let model = |stage: &str| {
        read_float_model(&place.out("out").join(stage).join("model.safetensors")).unwrap()
    };
    let (before, after) = (model("center"), model("contrast"));
    assert_eq!(before.layers[0], after.layers[0]);
    assert_ne!(before.layers[1], after.layers[1]);
    assert_eq!(model("contrast").position_embeddings, model("teacher_sts").position_embeddings);
    assert_eq!(model("layers").word_embeddings, model("distill").word_embeddings);
    assert_ne!(model("distill").layers, model("student_sts").layers);

    // Done is done: nothing is trained again.
    let stamp = |stage: &str| {
        let file = place.out("out").join(stage).join("model.safetensors");
        fs::metadata(file).unwrap().modified().unwrap()
    };
    let before = stamp("distill");
    run.run(None).unwrap();
    assert_eq!(stamp("distill"), before);
}

#[test]
fn centring_moves_the_mean_vector_to_zero() {
    let place = Place::new();
    let run = place.run(RECIPE, "out");
    run.run(Some("vocabulary")).unwrap();
    run.run(Some("center")).unwrap();
    let model = run.model_before(2, Slot::Teacher).unwrap();
    let tokenizer = run.tokenizer(&model).unwrap();
    let text = fs::read_to_string(place.data().join("plain/lines.txt")).unwrap();
    let ids: Vec<Vec<u32>> = text.lines().map(|line| tokenizer.encode(line).unwrap().ids).collect();
    let bert = munjang::train::model::BertModel::from_float_model(&model, &Device::Cpu).unwrap();
    let batch = munjang::train::model::TokenBatch::new(&ids).unwrap();
    let pooled = bert.forward(&batch, &Default::default()).unwrap().pooled;
    let mean = pooled.mean(0).unwrap().to_vec1::<f32>().unwrap();
    let length = pooled.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(mean.iter().all(|x| x.abs() < 1e-4), "{mean:?}");
    assert!(length > 1.0);
}

#[test]
fn a_pruned_vocabulary_keeps_the_rows_of_its_pieces() {
    const KEPT: usize = 890;
    let lines: Vec<String> = corpus().into_iter().take(300).collect();
    let model = read_checkpoint(&small("xlm-roberta"), &ConvertOptions::default()).unwrap();
    let texts = lines.iter().map(String::as_str);
    let pruned = prune::prune_vocabulary(&model, &["query: "], texts, KEPT).unwrap();
    assert_eq!((pruned.config.vocab_size, pruned.word_embeddings.rows), (KEPT, KEPT));
    let rows = |model: &FloatModel, text: &str| -> Vec<Vec<f32>> {
        let max = model.config.max_position_embeddings;
        let tokenizer = Tokenizer::from_bytes(&model.tokenizer_json, "", max).unwrap();
        let ids = tokenizer.encode(text).unwrap().ids;
        ids.iter().map(|&id| model.word_embeddings.row(id as usize).to_vec()).collect()
    };
    let same = lines.iter().filter(|line| rows(&model, line) == rows(&pruned, line)).count();
    assert!(same * 2 > lines.len(), "{same} of {}", lines.len());

    // A piece of a BPE vocabulary cannot go alone.
    let bpe = read_checkpoint(&small("roberta"), &ConvertOptions::default()).unwrap();
    let error = prune::prune_vocabulary(&bpe, &[], ["가"], 100).unwrap_err();
    assert_eq!(error.code(), "tokenizer_invalid");
}

const KILLED: &str = r#"
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
steps = 120
batch = 16
dropout = 0.1
learning_rate = 1e-3
checkpoint_every = 5
average = { start = 0.2, every = 3, decay = 0.9 }
"#;

fn munjang(place: &Place, recipe: &Path, out: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_munjang"))
        .arg("train")
        .arg(recipe)
        .args(["--data".as_ref(), place.data().as_os_str()])
        .args(["--teacher".as_ref(), small("bert").as_os_str()])
        .args(["--out".as_ref(), place.out(out).as_os_str()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_run_ends_in_the_same_weights() {
    let place = Place::new();
    let recipe = place.recipe("killed.toml", KILLED);
    assert!(munjang(&place, &recipe, "whole").wait().unwrap().success());

    let checkpoint = place.out("broken/distill/checkpoint.safetensors");
    let model = place.out("broken/distill/model.safetensors");
    let mut kills = 0;
    let mut last_step = 0;
    for _ in 0..3 {
        let mut child = munjang(&place, &recipe, "broken");
        let begin = Instant::now();
        // Killed as soon as it has gone further than the last time.
        while begin.elapsed() < Duration::from_secs(60) && !model.exists() {
            let step = Checkpoint::read(&checkpoint)
                .ok()
                .and_then(|checkpoint| checkpoint.number::<usize>("step").ok());
            if let Some(step) = step.filter(|&step| step > last_step) {
                last_step = step;
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        if !child.wait().unwrap().success() {
            kills += 1;
        }
    }
    assert!(kills >= 1, "the run ended before it could be killed");
    assert!(munjang(&place, &recipe, "broken").wait().unwrap().success());

    // Metadata may stand in another order; numbers must be the same to the bit.
    let whole = read_float_model(&place.out("whole/distill/model.safetensors")).unwrap();
    assert!(whole == read_float_model(&model).unwrap(), "weights differ after {kills} kills");
    assert!(!checkpoint.exists());
    // The curves show each step once.
    let steps: Vec<usize> = Metrics::new(&place.out("broken"))
        .read()
        .unwrap()
        .into_iter()
        .filter_map(|metric| match metric {
            Metric::Train { step, .. } => Some(step),
            _ => None,
        })
        .collect();
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
}

#[test]
fn bad_rows_are_named_by_file_and_line() {
    let place = Place::new();
    let message = |text: &str| {
        place.write("sts/train.tsv", text);
        let error = place.run(RECIPE, "bad").run(Some("vocabulary")).unwrap_err();
        assert_eq!(error.code(), "data_invalid", "{error}");
        error.to_string()
    };
    let header = "sentence1\tsentence2\tscore\tseen_in\n";
    assert!(message("").contains("train.tsv:1: expected a header"));
    assert!(message(header).contains("train.tsv:1: the file has no rows"));
    assert!(message("a\tb\n1\t2\n").contains("no column \"sentence1\""));
    assert!(message(&format!("{header}가\t나\t5.1\t\n")).contains("train.tsv:2: score is \"5.1\""));
    assert!(
        message(&format!("{header}가\t나\t1\t\n가\t\t1\t\n"))
            .contains("train.tsv:3: sentence2 is empty")
    );
    assert!(message(&format!("{header}가\t나\t1\n")).contains("train.tsv:2: 3 fields"));
    assert!(message(&format!("{header}가\t나\t1\tdev\n")).contains("no row is left"));
}

#[test]
fn sentences_of_evaluation_sets_are_left_out() {
    let place = Place::new();
    place.write("sts/dev.tsv", "sentence1\tsentence2\tscore\n봄이 왔다.\t여름이 왔다\t3\n");
    place.write(
        "sts/train.tsv",
        "sentence1\tsentence2\tscore\tseen_in\n봄이  왔다!\t가을이 왔다\t1\t\n눈이 온다\t비가 온다\t2\t\n밤\t낮\t1\ttest\n",
    );
    let run = place.run(RECIPE, "out");
    let rows = run.rows(&run.recipe.stages[3]).unwrap();
    assert_eq!(rows.rows.len(), 1);
    assert_eq!(rows.rows[0].texts, ["눈이 온다", "비가 온다"]);
    assert!(rows.place(0).ends_with("sts/train.tsv:3"));
    let count = rows.counts[0].1;
    assert_eq!((count.kept, count.filtered, count.leaked), (1, 1, 1));
}

#[test]
fn mistakes_say_what_to_do() {
    let place = Place::new();
    let error = place.run(RECIPE, "alone").run(Some("distill")).unwrap_err().to_string();
    assert!(error.contains("\"layers\"") && error.contains("run it first"), "{error}");
    let error = place.run(RECIPE, "alone").run(Some("distil")).unwrap_err().to_string();
    assert!(error.contains("its stages are vocabulary, center"), "{error}");

    // Another seed in the folder of a run that is under way.
    place.run(RECIPE, "other").run(Some("vocabulary")).unwrap();
    let changed = RECIPE.replace("seed = 3", "seed = 4");
    let error = place.run(&changed, "other").run(None).unwrap_err().to_string();
    assert!(error.contains("other settings"), "{error}");

    // A teacher with fewer layers than the recipe picks.
    let changed = RECIPE.replace("layers = [0, 2]", "layers = [0, 5, 11]");
    let run = place.run(&changed, "picks");
    for stage in ["vocabulary", "center", "contrast", "teacher_sts"] {
        run.run(Some(stage)).unwrap();
    }
    let error = run.run(Some("layers")).unwrap_err().to_string();
    assert!(error.contains("[0, 5, 11]"), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint() {
    let place = Place::new();
    let text = KILLED
        .replace("learning_rate = 1e-3", "learning_rate = 0.99")
        .replace("steps = 120", "steps = 120\nwarmup = 0.0\nstate_weight = 3e37")
        .replace("checkpoint_every = 5", "checkpoint_every = 1");
    let run = place.run(&text, "nan");
    let error = run.run(None).unwrap_err();
    assert_eq!(error.code(), "non_finite", "{error}");
    let text = error.to_string();
    assert!(text.contains("stage \"distill\", step") && text.contains(".t"), "{text}");
    assert!(!place.out("nan/distill/model.safetensors").exists());
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let place = Place::new();
    let recipe = place.recipe("tiny.toml", RECIPE);
    let output = Command::new(env!("CARGO_BIN_EXE_munjang"))
        .arg("train")
        .arg(&recipe)
        .args(["--data".as_ref(), place.data().as_os_str()])
        .args(["--teacher".as_ref(), small("bert").as_os_str()])
        .args(["--out".as_ref(), place.out("dry").as_os_str()])
        .arg("--dry-run")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("teacher:") && text.contains("student_sts") && text.contains("about"),
        "{text}"
    );
    assert!(!place.out("dry").exists());
}

/// The published recipe, on random checkpoints of its architectures and files in KorNLI's and
/// KorSTS's own format, a few steps a stage.
#[test]
fn the_published_recipe_runs() {
    let place = Place::new();
    let read = |file: &str| fs::read_to_string(place.data().join(file)).unwrap();
    let nli = read("nli/train.tsv");
    place.write("KorNLI/snli_1.0_train.ko.tsv", &nli);
    place.write("KorNLI/multinli.train.ko.tsv", &nli);
    let korsts = |text: &str| -> String {
        let mut out = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\n".to_owned();
        for (index, line) in text.lines().skip(1).enumerate() {
            let fields: Vec<&str> = line.split('\t').collect();
            out += &format!(
                "main-captions\tMSRvid\t2012test\t{index:04}\t{}\t{}\t{}\n",
                fields[2], fields[0], fields[1]
            );
        }
        out
    };
    let (train, dev) = (read("sts/train.tsv"), read("sts/dev.tsv"));
    place.write("KorSTS/sts-train.tsv", &korsts(&train));
    place.write("KorSTS/sts-dev.tsv", &korsts(&dev));
    place.write("klue_sts/train.tsv", &train);
    place.write("klue_sts/dev.tsv", &dev);

    let mut recipe = Recipe::read(&repository().join("recipes/klue-roberta-large.toml")).unwrap();
    recipe.max_tokens = 24;
    for stage in &mut recipe.stages {
        (stage.steps, stage.batch, stage.evaluate_every) = (2, 6, None);
    }
    let run = Run {
        recipe,
        data: place.data(),
        teacher: small("roberta"),
        student: Some(small("distilbert")),
        out: place.out("published"),
        device: Device::Cpu,
    };
    run.run(None).unwrap();
    let (_, bytes) = Manifest::read_model(&place.out("published/export/manifest.json")).unwrap();
    let config = Encoder::from_bytes(bytes).unwrap().info().config;
    assert_eq!((config.hidden_size, config.num_hidden_layers), (60, 3));
}
