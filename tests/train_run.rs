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
use munjang::train::model::{BertModel, TokenBatch};
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
            from: None,
            packed: None,
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
    // The float checkpoint beside the file converts to the very same file.
    let float = read_checkpoint(&folder.join("checkpoint"), &ConvertOptions::default()).unwrap();
    assert!(munjang::format::write(&float).unwrap() == bytes);
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
fn a_run_goes_on_from_an_exported_model() {
    let place = Place::new();
    place.run(RECIPE, "out").run(None).unwrap();
    let exported = place.out("out/export");
    let (_, bytes) = Manifest::read_model(&exported.join("manifest.json")).unwrap();

    let mut run = place.run(RECIPE, "second");
    let from = run.recipe.stage("student_sts").unwrap();
    (run.from, run.student) = (Some(from), Some(exported.clone()));
    run.run(None).unwrap();
    assert!(!place.out("second/layers").exists() && !place.out("second/distill").exists());
    // It begins with exactly what the file holds, and does not stay there.
    let begin = run.model_before(from, Slot::Student).unwrap();
    assert!(munjang::format::write(&begin).unwrap() == bytes);
    let (_, after) = Manifest::read_model(&place.out("second/export/manifest.json")).unwrap();
    assert!(after != bytes);
    let card = fs::read_to_string(place.out("second/export/MODEL_CARD.md")).unwrap();
    assert!(card.contains("in an earlier run") && card.contains("went on"), "{card}");

    // Nor is a model taken whose layers are not those that the stages left out would leave.
    let other = RECIPE.replace("layers = [0, 2]", "layers = [0, 2]\nintermediate_size = 40");
    let mut run = place.run(&other, "wider");
    (run.from, run.student) = (Some(from), Some(exported.clone()));
    let error = run.run(None).unwrap_err();
    assert_eq!(error.code(), "input_invalid");
    assert!(error.to_string().contains("intermediate size 40"), "{error}");
    assert!(!place.out("wider/vocabulary").exists());

    // Ids of another tokenizer would mean other pieces.
    let teacher = place.out("teacher");
    fs::create_dir(&teacher).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(small("bert").join(file), teacher.join(file)).unwrap();
    }
    let tokenizer = fs::read_to_string(teacher.join("tokenizer.json")).unwrap();
    let other =
        tokenizer.replace(r#""handle_chinese_chars":true"#, r#""handle_chinese_chars":false"#);
    assert_ne!(other, tokenizer);
    fs::write(teacher.join("tokenizer.json"), other).unwrap();
    let mut run = place.run(RECIPE, "third");
    (run.from, run.student) = (Some(from), Some(exported));
    run.teacher = teacher;
    let error = run.run(None).unwrap_err();
    assert_eq!(error.code(), "input_invalid");
    assert!(error.to_string().contains("another tokenizer"), "{error}");
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
    let bert = BertModel::from_float_model(&model, &Device::Cpu).unwrap();
    let batch = TokenBatch::new(&ids).unwrap();
    let pooled = bert.forward(&batch, &Default::default()).unwrap().pooled;
    let mean = pooled.mean(0).unwrap().to_vec1::<f32>().unwrap();
    let length = pooled.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(mean.iter().all(|x| x.abs() < 1e-4), "{mean:?}");
    assert!(length > 1.0);
}

#[test]
fn shifted_states_are_the_same_model_and_quantize_better() {
    let mut model = read_checkpoint(&small("bert"), &ConvertOptions::default()).unwrap();
    // What trained models have: channels far from zero on every token.
    for layer in &mut model.layers {
        layer.attention_norm.bias[3] += 9.0;
        layer.output_norm.bias[5] -= 7.0;
    }
    let lines: Vec<String> = corpus().into_iter().take(100).collect();
    let max = model.config.max_position_embeddings;
    let tokenizer = Tokenizer::from_bytes(&model.tokenizer_json, "", max).unwrap();
    let ids: Vec<Vec<u32>> = lines.iter().map(|line| tokenizer.encode(line).unwrap().ids).collect();
    let sentences: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let batch = TokenBatch::new(&ids).unwrap();
    let vectors = |model: &FloatModel| {
        BertModel::from_float_model(model, &Device::Cpu).unwrap().encode(&batch, None).unwrap()
    };
    let quantized = |model: &FloatModel| {
        Encoder::from_bytes(munjang::format::write(model).unwrap())
            .unwrap()
            .encode_ids(&ids)
            .unwrap()
    };
    let distance = |a: &[f32], b: &[f32]| -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / ids.len() as f32
    };
    let (float, before) = (vectors(&model), quantized(&model));
    let most = prune::shift_states(&mut model, &sentences).unwrap();
    assert!((7.0..12.0).contains(&most), "{most}");
    assert!(distance(&float, &vectors(&model)) < 1e-9);
    let (before, after) = (distance(&float, &before), distance(&float, &quantized(&model)));
    assert!(after < before / 4.0, "{before} {after}");

    // Nothing is left to move, but for the last states, which are pooled.
    let bert = BertModel::from_float_model(&model, &Device::Cpu).unwrap();
    let hidden = model.config.hidden_size;
    let last = 2 * model.layers.len();
    bert.observe_norms(&batch, &mut |norm, states| {
        for channel in 0..hidden {
            let sum: f32 = states.iter().skip(channel).step_by(hidden).sum();
            let mean = sum / batch.num_tokens() as f32;
            assert!(norm == last || mean.abs() < 1e-3, "{norm} {channel}: {mean}");
        }
    })
    .unwrap();
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

    // A teacher that does not fit the recipe is found before anything is done, and the place named.
    let line_of = |text: &str, stage: &str| {
        let name = format!("name = {stage:?}");
        text.lines().position(|line| line == name).unwrap()
    };
    for (old, new, stage, said) in [
        ("layers = [0, 2]", "layers = [0, 5, 11]", "layers", "[0, 5, 11]"),
        ("freeze_layers = 1", "freeze_layers = 4", "contrast", "the teacher has 3 layers"),
        (
            "state_weight = 1.0",
            "middle_weight = 1.0\nmiddle_layers = [[0, 3]]",
            "distill",
            "the teacher 3",
        ),
        (
            "state_weight = 1.0",
            "middle_weight = 1.0\nmiddle_layers = [[2, 1]]",
            "distill",
            "the student has 2 layers",
        ),
    ] {
        let changed = RECIPE.replace(old, new);
        let error = place.run(&changed, "misfit").run(None).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.code(), "input_invalid");
        let at = format!("test.toml:{}: stage {stage:?}", line_of(&changed, stage));
        assert!(text.starts_with(&at) && text.contains(said), "{at} in {text}");
        assert!(!place.out("misfit/vocabulary").exists());
    }
    // What only shows when a stage runs names its place too.
    let wide = RECIPE.replace("steps = 4\n", "steps = 4\ndimensions = [48]\n");
    let run = place.run(&wide, "wide");
    for stage in ["vocabulary", "center", "contrast"] {
        run.run(Some(stage)).unwrap();
    }
    let error = run.run(Some("teacher_sts")).unwrap_err().to_string();
    let at = format!("test.toml:{}: stage \"teacher_sts\"", line_of(&wide, "teacher_sts"));
    assert!(error.starts_with(&at) && error.contains("cannot be cut to 48"), "{error}");
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

/// Weights that leave the finite numbers after a while: what was saved before is whole, and the
/// batch is named by its rows.
#[test]
fn the_last_good_checkpoint_outlives_a_loss_that_is_not_finite() {
    let place = Place::new();
    let calm = KILLED.replace("steps = 120", "steps = 6").replace("every = 5", "every = 1");
    let wild = |steps: usize| {
        calm.replace("steps = 6", &format!("steps = {steps}"))
            .replace("dropout = 0.1", "dropout = 0.1\nstate_weight = 1.0")
    };
    // A run that is cut short in its fifth step...
    let run = place.run(&wild(6), "late");
    run.run(Some("layers")).unwrap();
    let file = place.out("late/distill/checkpoint.safetensors");
    let settings = {
        // ...here by a checkpoint whose moments are about to overflow.
        let mut short = place.run(&wild(6), "late");
        short.recipe.stages[1].minutes = Some(1e-9);
        short.run(Some("distill")).unwrap();
        fs::read_to_string(place.out("late/distill/done.json")).unwrap()
    };
    fs::remove_file(place.out("late/distill/done.json")).unwrap();
    let model = place.out("late/distill/model.safetensors");
    fs::remove_file(&model).unwrap();
    let student = read_float_model(&place.out("late/layers/model.safetensors")).unwrap();
    let bert = munjang::train::model::BertModel::from_float_model(&student, &Device::Cpu).unwrap();
    let mut tensors = std::collections::HashMap::new();
    for parameter in bert.parameters().iter() {
        let value = parameter.var.as_detached_tensor();
        let zeros = value.zeros_like().unwrap();
        tensors.insert(format!("adamw.second.{}", parameter.name), zeros.clone());
        // A first moment that throws the weights far out in the first step.
        tensors.insert(format!("adamw.first.{}", parameter.name), (zeros + 1e30).unwrap());
        tensors.insert(format!("model.{}", parameter.name), value);
    }
    let one = |value: i64| candle_core::Tensor::new(&[value], &Device::Cpu).unwrap();
    tensors.insert("adamw.steps".into(), one(4));
    tensors.insert("average.updates".into(), one(0));
    let notes = [("settings", settings.as_str()), ("step", "4"), ("seconds", "1.0")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Checkpoint { tensors, notes: notes.into() }.write(&file).unwrap();
    let before = fs::read(&file).unwrap();

    let error = run.run(Some("distill")).unwrap_err();
    assert_eq!(error.code(), "non_finite", "{error}");
    let text = error.to_string();
    assert!(text.starts_with("test.toml:") && text.contains("stage \"distill\", step 5"), "{text}");
    let named = text.contains("sts/train.tsv:") || text.contains("plain/lines.txt:");
    assert!(named && text.contains("the batch begins with"), "{text}");
    assert!(!model.exists());
    assert!(fs::read(&file).unwrap() == before, "the last good checkpoint was touched");
}

/// A disk that is full, by a limit of the size of files: the error names the file, what was there
/// before stays whole, and with room the run goes on from it.
#[test]
#[cfg(unix)]
fn a_full_disk_loses_nothing() {
    let place = Place::new();
    let recipe = place.recipe("killed.toml", &KILLED.replace("steps = 120", "steps = 20"));
    let limited = |kib: Option<usize>| {
        // A file that would grow beyond the limit gives an error where the signal is ignored.
        let limit = match kib {
            Some(kib) => format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\""),
            None => "exec \"$0\" \"$@\"".to_owned(),
        };
        Command::new("bash")
            .args(["-c", &limit, env!("CARGO_BIN_EXE_munjang"), "train"])
            .arg(&recipe)
            .args(["--data".as_ref(), place.data().as_os_str()])
            .args(["--teacher".as_ref(), small("bert").as_os_str()])
            .args(["--out".as_ref(), place.out("full").as_os_str()])
            .output()
            .unwrap()
    };
    let output = limited(Some(600));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("cannot write") && said.contains("checkpoint.safetensors"), "{said}");
    let left: Vec<String> = fs::read_dir(place.out("full/distill"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let student = read_float_model(&place.out("full/layers/model.safetensors")).unwrap();
    assert_eq!(student.layers.len(), 2);

    assert!(limited(None).status.success());
    let whole = fs::read(place.out("full/distill/model.safetensors")).unwrap();
    // An older checkpoint outlives the attempt to write a newer one.
    let file = place.out("full/old.safetensors");
    munjang::train::checkpoint::write_atomically(&file, b"old").unwrap();
    fs::create_dir(place.out("full/old.safetensors.partial")).unwrap();
    assert!(munjang::train::checkpoint::write_atomically(&file, &whole).is_err());
    assert_eq!(fs::read(&file).unwrap(), b"old");
}

#[test]
fn sentences_of_evaluation_passages_are_left_out_and_counted() {
    let place = Place::new();
    let passage = "한강은 서울을 가로질러 흐르는 강이다. 길이는 약 494 km 이며 서해로 들어간다.";
    place.write("qa/dev.tsv", &format!("question\tpassage\n한강은 긴가\t{passage}\n"));
    let mut lines = fs::read_to_string(place.data().join("plain/lines.txt")).unwrap();
    lines += "길이는 약 494km이며, 서해로 들어간다\n이 문장은 어디에도 나오지 않습니다\n";
    place.write("plain/lines.txt", &lines);
    let text = RECIPE.replacen(
        "[[stage]]",
        "[[evaluate]]\nname = \"qa\"\nfile = \"qa/dev.tsv\"\nkind = \"retrieval\"\n\
         columns = [\"question\", \"passage\"]\nfinal_only = true\n[[stage]]",
        1,
    );
    let run = place.run(&text, "out");
    let rows = run.rows(&run.recipe.stages[1]).unwrap();
    assert_eq!(rows.counts[0].1.in_passages, 1);
    assert!(!rows.rows.iter().any(|row| row.texts[0].contains("494km")));
    assert!(rows.rows.iter().any(|row| row.texts[0].contains("어디에도")));

    let recipe = place.recipe("passages.toml", &text);
    let output = Command::new(env!("CARGO_BIN_EXE_munjang"))
        .arg("train")
        .arg(&recipe)
        .args(["--data".as_ref(), place.data().as_os_str()])
        .args(["--teacher".as_ref(), small("bert").as_os_str()])
        .args(["--out".as_ref(), place.out("dry").as_os_str()])
        .arg("--dry-run")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with("lines ")).unwrap();
    let counts: Vec<&str> = line.split_whitespace().collect();
    assert!(said.contains("in passages") && counts[4] == "1", "{said}");
}

/// Middle layers and cut vectors, with the teacher as it is and quantized.
#[test]
fn middle_layers_and_cut_vectors_are_trained_and_measured() {
    let place = Place::new();
    let text = RECIPE
        .replace("state_weight = 1.0\nquantized_teacher = true", "middle_weight = 0.5\nmiddle_layers = [[0, 1]]\ndimensions = [16, 32]\nevaluate_every = 3")
        .replace("teacher_weight = 0.1", "teacher_weight = 0.1\ndimensions = [16]")
        .replace("freeze_layers = 1", "freeze_layers = 1\ndimensions = [16]");
    place.run(&text, "float").run(None).unwrap();
    let metrics = Metrics::new(&place.out("float")).read().unwrap();
    let measured = |stage: &str, metric: &str| {
        metrics.iter().any(|line| {
            matches!(line, Metric::Score { stage: at, metric: name, value, .. }
                if at == stage && name == metric && value.is_finite())
        })
    };
    assert!(measured("distill", "spearman") && measured("distill", "spearman, 32 wide"));
    assert!(measured("student_sts", "pearson, 16 wide"));
    assert!(!measured("student_sts", "pearson, 32 wide"));

    let model =
        |out: &str| read_float_model(&place.out(out).join("distill/model.safetensors")).unwrap();
    // Each of the two options changes what is learned.
    for (option, out) in [
        ("middle_weight = 0.5\nmiddle_layers = [[0, 1]]\n", "plain"),
        ("dimensions = [16, 32]\n", "uncut"),
    ] {
        let run = place.run(&text.replace(option, ""), out);
        copy_stages(
            &place,
            "float",
            out,
            &["vocabulary", "center", "contrast", "teacher_sts", "layers"],
        );
        run.run(Some("distill")).unwrap();
        assert!(model(out) != model("float"), "{out}");
    }
    // A quantized teacher has middle states too, and they are near to the float ones.
    let quantized = text.replace("middle_weight", "quantized_teacher = true\nmiddle_weight");
    copy_stages(
        &place,
        "float",
        "int8",
        &["vocabulary", "center", "contrast", "teacher_sts", "layers"],
    );
    place.run(&quantized, "int8").run(Some("distill")).unwrap();
    let first_loss = |out: &str| {
        let lines = Metrics::new(&place.out(out)).read().unwrap();
        lines
            .into_iter()
            .find_map(|line| match line {
                Metric::Train { stage, loss, .. } if stage == "distill" => Some(loss),
                _ => None,
            })
            .unwrap()
    };
    let (float, int8) = (first_loss("float"), first_loss("int8"));
    assert!((float - int8).abs() < 0.05 * float, "{float} {int8}");
}

fn copy_stages(place: &Place, from: &str, to: &str, stages: &[&str]) {
    for stage in stages {
        let folder = place.out(to).join(stage);
        fs::create_dir_all(&folder).unwrap();
        for file in ["model.safetensors", "done.json"] {
            fs::copy(place.out(from).join(stage).join(file), folder.join(file)).unwrap();
        }
    }
}

const CROSS: &str = r#"
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

#[test]
fn a_cross_encoder_labels_pairs_for_the_student() {
    let place = Place::new();
    let run = place.run(CROSS, "out");
    run.run(None).unwrap();
    let text = fs::read_to_string(place.out("out/label/pairs.tsv")).unwrap();
    let rows: Vec<Vec<&str>> =
        text.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    let mut unordered = std::collections::HashSet::new();
    for row in &rows {
        let score: f64 = row[2].parse().unwrap();
        assert!((0.0..=5.0).contains(&score), "{row:?}");
        assert!(row[0] != row[1] && unordered.insert([row[0].min(row[1]), row[0].max(row[1])]));
    }
    // 60 rows of NLI, some with the same pair; up to two neighbours each of 40 sentences.
    assert!((60..=140).contains(&rows.len()), "{}", rows.len());
    let scores: std::collections::HashSet<&str> = rows.iter().map(|row| row[2]).collect();
    assert!(scores.len() > 10, "the scores tell nothing apart: {scores:?}");
    // The cross-encoder is neither teacher nor student, and is measured by its own scores.
    let teacher = run.model_before(3, Slot::Teacher).unwrap();
    assert!(
        teacher
            == read_checkpoint(
                &small("bert"),
                &ConvertOptions { pooling: None, ..Default::default() }
            )
            .unwrap()
    );
    let metrics = Metrics::new(&place.out("out")).read().unwrap();
    let own =
        |line: &&Metric| matches!(line, Metric::Score { model, .. } if model == "cross-encoder");
    assert_eq!(metrics.iter().filter(own).count(), 3 * 2);
    // Scored pairs, labelled ones, and the scored ones once more as partners.
    assert_eq!(run.rows(&run.recipe.stages[3]).unwrap().rows.len(), 40 + rows.len() + 40);
    let card = fs::read_to_string(place.out("out/export/MODEL_CARD.md")).unwrap();
    assert!(card.contains("scored by the cross-encoder"), "{card}");

    // The same again, to the byte; also where scoring was interrupted.
    let again = place.run(CROSS, "again");
    again.run(Some("cross")).unwrap();
    again.run(Some("label")).unwrap();
    assert_eq!(fs::read_to_string(place.out("again/label/pairs.tsv")).unwrap(), text);
    let settings = fs::read_to_string(place.out("again/label/done.json")).unwrap();
    fs::remove_file(place.out("again/label/done.json")).unwrap();
    let some: Vec<f32> =
        rows[..17].iter().map(|row| row[2].parse::<f32>().unwrap() / 5.0).collect();
    let some = candle_core::Tensor::new(some.as_slice(), &Device::Cpu).unwrap();
    Checkpoint {
        tensors: [("scores".to_owned(), some)].into(),
        notes: [("settings".to_owned(), settings)].into(),
    }
    .write(&place.out("again/label/scores.partial.safetensors"))
    .unwrap();
    again.run(Some("label")).unwrap();
    assert_eq!(fs::read_to_string(place.out("again/label/pairs.tsv")).unwrap(), text);
    assert!(!place.out("again/label/scores.partial.safetensors").exists());

    // The weight of labelled pairs matters; both orders and a quantized scorer are near by.
    let light = CROSS.replace("weight = 0.3", "weight = 0.01");
    copy_stages(&place, "out", "light", &["layers"]);
    fs::create_dir_all(place.out("light/label")).unwrap();
    fs::write(place.out("light/label/pairs.tsv"), &text).unwrap();
    place.run(&light, "light").run(Some("student_sts")).unwrap();
    let model = |out: &str| {
        read_float_model(&place.out(out).join("student_sts/model.safetensors")).unwrap()
    };
    assert!(model("out") != model("light"));
    let both = CROSS
        .replace("neighbours = 2", "neighbours = 2\nboth_orders = true\nquantized_teacher = true");
    let run = place.run(&both, "again");
    fs::remove_dir_all(place.out("again/label")).unwrap();
    run.run(Some("label")).unwrap();
    let other = fs::read_to_string(place.out("again/label/pairs.tsv")).unwrap();
    assert_ne!(other, text);
    assert!(other.lines().count().abs_diff(text.lines().count()) < 10);

    // Scores that are the teacher's cosines in part lie between the two.
    let with_share = |share: &str| -> Vec<f64> {
        let recipe =
            CROSS.replace("neighbours = 2", &format!("neighbours = 2\nteacher_share = {share}"));
        fs::remove_dir_all(place.out("again/label")).unwrap();
        place.run(&recipe, "again").run(Some("label")).unwrap();
        let text = fs::read_to_string(place.out("again/label/pairs.tsv")).unwrap();
        text.lines()
            .skip(1)
            .map(|line| line.rsplit('\t').next().unwrap().parse().unwrap())
            .collect()
    };
    let (half, cosines) = (with_share("0.5"), with_share("1.0"));
    for ((row, half), cosine) in rows.iter().zip(half).zip(&cosines) {
        let score: f64 = row[2].parse().unwrap();
        assert!((half - 0.5 * (score + cosine)).abs() < 2e-4, "{row:?}: {half}, {cosine}");
    }
    assert!(cosines.iter().any(|cosine| *cosine > 0.0));

    // Without its cross-encoder the stage says what to run.
    let error = place.run(CROSS, "none").run(Some("label")).unwrap_err().to_string();
    assert!(error.contains("stage \"label\"") && error.contains("run it first"), "{error}");
}

fn pack(place: &Place, recipe: &Path, rest: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_munjang"))
        .arg("train")
        .arg(recipe)
        .args(["--data".as_ref(), place.data().as_os_str()])
        .args(["--teacher".as_ref(), small("bert").as_os_str()])
        .args(rest)
        .output()
        .unwrap()
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(now) = folders.pop() {
        for entry in fs::read_dir(now).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_packed_run_needs_nothing_but_its_folder() {
    let place = Place::new();
    let text = RECIPE.replace("[[stage]]\nname = \"layers\"", "[[stage]]\nname = \"center_tuned\"\nkind = \"center\"\nmodel = \"teacher\"\ndata = [\"lines\"]\n\n[[stage]]\nname = \"layers\"");
    let recipe = place.recipe("tiny.toml", &text);
    let (packed, result) = (place.out("packed"), place.out("result"));
    let output = pack(&place, &recipe, &["--pack", packed.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("least cosine of f16 to f32 weights 0.9999") || said.contains("weights 1.0"),
        "{said}"
    );
    assert_eq!(files_below(&packed), ["data.bin.gz", "pack.json", "teacher.safetensors.gz"]);
    assert!(!place.out("packed.work").exists());
    // The ids are those that an unpacked run would see.
    let whole = place.run(&text, "whole");
    whole.run(Some("vocabulary")).unwrap();
    whole.run(Some("center")).unwrap();
    let float = whole.model_before(2, Slot::Teacher).unwrap();
    let tokenizer = whole.tokenizer(&float).unwrap();
    let (_, inside) = munjang::train::pack::Packed::read(&packed).unwrap();
    let unpacked = Run { packed: Some(inside), ..place.run(&text, "unused") };
    for stage in ["contrast", "teacher_sts", "distill"] {
        let stage = &whole.recipe.stages[whole.recipe.stage(stage).unwrap()];
        let (texts, numbers) = (whole.rows(stage).unwrap(), unpacked.rows(stage).unwrap());
        assert_eq!(texts.rows.len(), numbers.rows.len());
        for (text, number) in texts.rows.iter().zip(&numbers.rows) {
            assert_eq!(
                (text.line, text.file, text.texts.len()),
                (number.line, number.file, number.texts.len())
            );
            assert_eq!(text.target, number.target);
            let store = unpacked
                .store(
                    &float,
                    Slot::Teacher,
                    munjang::train::stages::Purpose::Training,
                    number.texts.iter().map(String::as_str),
                )
                .unwrap();
            for (text, number) in text.texts.iter().zip(&number.texts) {
                assert_eq!(store.ids(store.index(number)), tokenizer.encode(text).unwrap().ids);
            }
        }
    }

    // It runs without data, teacher or recipe, and leaves weights and metrics alone.
    let run = |minutes: &str| {
        Command::new(env!("CARGO_BIN_EXE_munjang"))
            .args(["train", "--packed", packed.to_str().unwrap(), "--minutes", minutes])
            .args(["--out", result.to_str().unwrap()])
            .output()
            .unwrap()
    };
    let output = run("2");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let done = ["center_tuned", "contrast", "distill", "layers", "student_sts", "teacher_sts"];
    let mut expected: Vec<String> = done.map(|stage| format!("{stage}/done.json")).into();
    expected.extend(
        ["center_tuned/model.safetensors", "metrics.jsonl", "student_sts/model.safetensors"]
            .map(str::to_owned),
    );
    expected.sort();
    assert_eq!(files_below(&result), expected);
    let metrics = Metrics::new(&result).read().unwrap();
    let scored = metrics.iter().any(|line| matches!(line, Metric::Score { stage, set, .. } if stage == "student_sts" && set == "tiny dev"));
    assert!(scored);
    // Back home the run goes on to the export.
    place.run(&text, "result").run(None).unwrap();
    assert!(result.join("export/manifest.json").exists());

    // Nothing of a folder that would be too large is written; the sizes are said.
    let error = munjang::train::pack::pack(&whole, &place.out("small"), 20_000).unwrap_err();
    let said = error.to_string();
    assert_eq!(error.code(), "input_invalid");
    assert!(said.contains("at most 0.02 MiB") && said.contains("teacher.safetensors.gz"), "{said}");
    assert!(!place.out("small").exists());
    // A folder with other things is not touched.
    fs::create_dir(place.out("taken")).unwrap();
    fs::write(place.out("taken/letter.txt"), "dear").unwrap();
    let error = munjang::train::pack::pack(&whole, &place.out("taken"), usize::MAX).unwrap_err();
    assert!(error.to_string().contains("letter.txt"), "{error}");
    // Damage is found.
    let data = packed.join("data.bin.gz");
    let bytes = fs::read(&data).unwrap();
    fs::write(&data, &bytes[..bytes.len() / 2]).unwrap();
    let output = run("1");
    assert!(String::from_utf8_lossy(&output.stderr).contains("data.bin.gz"));
}

#[test]
fn a_cross_encoder_and_its_labels_run_packed() {
    let place = Place::new();
    let recipe = place.recipe("cross.toml", CROSS);
    let (packed, result) = (place.out("packed"), place.out("result"));
    let output = pack(&place, &recipe, &["--pack", packed.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    munjang::train::pack::run_packed(&packed, 2.0, &result, Device::Cpu).unwrap();
    let files = files_below(&result);
    assert!(files.contains(&"student_sts/model.safetensors".to_owned()), "{files:?}");
    assert!(!files.iter().any(|file| file.ends_with(".tsv") || file.contains("head")), "{files:?}");
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
        from: None,
        out: place.out("published"),
        device: Device::Cpu,
        packed: None,
    };
    run.run(None).unwrap();
    let (_, bytes) = Manifest::read_model(&place.out("published/export/manifest.json")).unwrap();
    let config = Encoder::from_bytes(bytes).unwrap().info().config;
    assert_eq!((config.hidden_size, config.num_hidden_layers), (60, 3));
}
