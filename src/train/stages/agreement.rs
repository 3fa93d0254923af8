//! What a GPU runs, run on the CPU, or on a GPU where there is one and the feature `cuda`: the composed
//! operations against the fused ones in every kind of stage, step by step and over a whole run.

use super::*;
use crate::config::ModelConfig;
use crate::train::data::LABELLED_PAIRS;
use crate::train::golden::values;
use crate::train::model::{composed_on_this_thread, random_float_model};

const SENTENCES: [&str; 12] = [
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
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
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
            for (file, bytes) in crate::convert::checkpoint_files(&model).unwrap() {
                let path = place.folder.path().join(name).join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
        place
    }

    fn run(&self, recipe: &str, teacher: &str, out: &str) -> Run {
        Run {
            recipe: Recipe::parse(recipe, "test.toml").unwrap(),
            data: self.folder.path().to_owned(),
            teacher: self.folder.path().join(teacher),
            student: Some(self.folder.path().join("student")),
            out: self.folder.path().join(out),
            device: Device::Cpu,
            from: None,
            packed: None,
        }
    }
}

/// Where composed operations run.
fn composed_device() -> Device {
    match cfg!(feature = "cuda") {
        true => Device::new_cuda(0).expect("with the feature cuda these tests need a GPU"),
        false => Device::Cpu,
    }
}

/// Random weights, larger than those that BERT starts with: nothing is nearly linear, and sentences
/// lie far apart.
fn grown_model(hidden_size: usize, num_hidden_layers: usize, seed: u64) -> FloatModel {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/small/bert");
    let small = read_checkpoint(&fixtures, &ConvertOptions::default()).unwrap();
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

const DATA: &str = r#"
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

/// Each kind of training stage, with each of its terms somewhere.
const STEPS: &str = r#"
    [[stage]]
    name = "contrast"
    kind = "contrast"
    data = ["nli", "sets"]
    steps = 1
    batch = 9
    dimensions = [16, 24]
    [[stage]]
    name = "contrast_upper_layers"
    kind = "contrast"
    data = ["nli"]
    steps = 1
    batch = 6
    freeze_embeddings = true
    freeze_layers = 1
    [[stage]]
    name = "sts"
    kind = "sts"
    data = ["half_sts"]
    steps = 1
    batch = 12
    teacher_weight = 0.5
    dimensions = [24]
    [[stage]]
    name = "sts_order"
    kind = "sts"
    data = ["sts"]
    steps = 1
    batch = 12
    loss = "cosent"
    freeze_word_embeddings = true
    [[stage]]
    name = "sts_and_pairs"
    kind = "sts"
    data = ["sts", "pairs"]
    steps = 1
    batch = 6
    pairs_weight = 0.5
    pairs_batch = 6
    pairs_teacher_weight = 2.0
    [[stage]]
    name = "sts_rounded"
    kind = "sts"
    data = ["sts"]
    steps = 1
    batch = 12
    quantize_bits = 7
    rounding_weight = 1.0
    [[stage]]
    name = "distill"
    kind = "distill"
    data = ["lines"]
    steps = 1
    batch = 12
    dimensions = [24]
    state_weight = 0.5
    middle_weight = 1.0
    middle_layers = [[0, 0], [1, 1]]
    [[stage]]
    name = "distill_from_file"
    kind = "distill"
    data = ["sts"]
    steps = 1
    batch = 6
    quantized_teacher = true
    middle_weight = 1.0
    middle_layers = [[0, 1]]
    [[stage]]
    name = "cross"
    kind = "cross_encoder"
    model = "teacher"
    data = ["sts"]
    steps = 1
    batch = 12
"#;

/// The loss of one step and every parameter's gradient.
type Step = (f32, Vec<(String, Option<Vec<f32>>)>);

fn step(run: &Run, index: usize, quantize: Option<FakeQuant>, composed: bool) -> Step {
    composed_on_this_thread(composed, || {
        let stage = &run.recipe.stages[index];
        // With what the other run's teacher said.
        let _ = std::fs::remove_dir_all(run.folder(stage));
        std::fs::create_dir_all(run.folder(stage)).unwrap();
        let float = run.model_before(0, stage.model).unwrap();
        let mut model = BertModel::from_float_model(&float, &run.device).unwrap();
        model.freeze(frozen(stage)).unwrap();
        let task = run.task(index, run.rows(stage).unwrap(), &float, &mut model).unwrap();
        let batch: Vec<u32> = (0..stage.batch.min(task.lengths().len()) as u32).collect();
        let options = ForwardOptions { quantize, ..ForwardOptions::training() };
        let (loss, outputs, _) = task.step(&model, &batch, &options).unwrap();
        let gradients = model.backward(&loss, outputs).unwrap();
        let gradients = model.parameters().iter().map(|parameter| {
            let gradient = gradients.dense(model.parameters(), &parameter.name).unwrap();
            assert_eq!(gradient.is_some(), parameter.trainable, "{}", parameter.name);
            (parameter.name.clone(), gradient.as_ref().map(values))
        });
        (loss.to_scalar::<f32>().unwrap(), gradients.collect())
    })
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// Asserts that losses differ by at most `tolerance` of themselves, and every parameter's gradients by
/// `tolerance` of their norm. Of a gradient that is 0 in theory (a key's bias shifts all scores of a
/// query alike) only rounding errors are there to compare: they are held against the whole gradient.
fn assert_agree(what: &str, fused: &Step, composed: &Step, tolerance: f64) {
    let (a, b) = (f64::from(fused.0), f64::from(composed.0));
    assert!(a.is_finite() && a.abs() > 1e-3, "{what}: the loss is {a}");
    assert!((a - b).abs() <= tolerance * a.abs(), "{what}: losses {a} and {b}");
    let all = fused.1.iter().filter_map(|(_, gradient)| gradient.as_deref());
    let whole = all.map(|gradient| norm(gradient).powi(2)).sum::<f64>().sqrt();
    assert_eq!(fused.1.len(), composed.1.len(), "{what}");
    for ((name, fused), (other, composed)) in fused.1.iter().zip(&composed.1) {
        assert_eq!((name, fused.is_some()), (other, composed.is_some()), "{what}");
        let (Some(fused), Some(composed)) = (fused, composed) else { continue };
        let error: Vec<f32> = fused.iter().zip(composed).map(|(a, b)| a - b).collect();
        let (error, size) = (norm(&error), norm(fused));
        assert!(
            error <= tolerance * size + 1e-2 * tolerance * whole,
            "{what}: {name} differs by {error:.2e} of {size:.2e} (all: {whole:.2e})"
        );
    }
}

#[test]
fn every_kind_of_step_has_the_same_loss_and_gradients_by_composed_operations() {
    let place = Place::new();
    let recipe = format!("{}{STEPS}", DATA.replace("made_by = \"label\"", "file = \"sts.tsv\""));
    for teacher in ["teacher", "wide"] {
        let run = place.run(&recipe, teacher, teacher);
        let other = Run { device: composed_device(), ..place.run(&recipe, teacher, teacher) };
        for (index, stage) in run.recipe.stages.iter().enumerate() {
            let what = format!("{} of {teacher}", stage.name);
            if stage.quantized_teacher && !other.device.is_cpu() {
                // The teacher is not rounded there.
                continue;
            }
            let run_in = |quantize| {
                (step(&run, index, quantize, false), step(&other, index, quantize, true))
            };
            let quantize = fake_quant(stage);
            // Rounded weights are the same to the bit in both.
            let smooth = quantize.map(|quantize| FakeQuant { activations: false, ..quantize });
            let (fused, composed) = run_in(smooth);
            assert_agree(&what, &fused, &composed, 1e-4);
            // Activations are not: what differs in the last bit may be rounded to either side, which
            // is a step of 1/127 of a row's range.
            if quantize.is_some() {
                let (fused, composed) = run_in(quantize);
                assert_agree(&format!("{what}, activations rounded"), &fused, &composed, 2e-2);
            }
        }
    }
}

/// Every kind of stage on the device of the run, one after another. Without dropout, whose masks
/// depend on padding.
const WHOLE: &str = r#"
    [[evaluate]]
    name = "scores"
    file = "dev.tsv"
    [[evaluate]]
    name = "partners"
    kind = "retrieval"
    file = "dev.tsv"
    columns = ["sentence1", "sentence2"]
    [[stage]]
    name = "pieces"
    kind = "prune_vocabulary"
    model = "teacher"
    vocabulary = 830
    data = ["lines"]
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
    name = "contrast"
    kind = "contrast"
    model = "teacher"
    data = ["nli", "sets"]
    steps = 3
    batch = 6
    [[stage]]
    name = "cross"
    kind = "cross_encoder"
    model = "teacher"
    data = ["sts"]
    steps = 3
    batch = 6
    evaluate_every = 2
    [[stage]]
    name = "label"
    kind = "label_pairs"
    data = ["nli", "lines"]
    neighbours = 3
    both_orders = true
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
    data = ["lines"]
    steps = 4
    batch = 6
    state_weight = 1.0
    middle_weight = 1.0
    middle_layers = [[0, 1]]
    [[stage]]
    name = "student"
    kind = "sts"
    data = ["sts", "labelled", "pairs"]
    steps = 4
    batch = 6
    teacher_weight = 0.1
    pairs_weight = 0.1
    pairs_batch = 5
    dimensions = [24]
    evaluate_every = 2
    average = { start = 0.5, every = 1 }
    [[stage]]
    name = "rounded"
    kind = "sts"
    data = ["sts"]
    steps = 3
    batch = 6
    quantize_bits = 7
    rounding_weight = 0.5
    average = { start = 0.3, every = 1, decay = 0.5 }
    [[stage]]
    name = "export"
    kind = "export"
"#;

#[test]
fn a_whole_run_by_composed_operations_goes_as_the_fused_one() {
    let place = Place::new();
    let run_in = |composed: bool| {
        let out = if composed { "composed" } else { "fused" };
        let mut run = place.run(&format!("{DATA}{WHOLE}"), "teacher", out);
        if composed {
            run.device = composed_device();
        }
        for (index, stage) in run.recipe.stages.iter().enumerate() {
            // This one is always computed in main memory.
            let composed = composed && stage.kind != StageKind::ShiftStates;
            composed_on_this_thread(composed, || run.stage(index)).unwrap();
        }
        run
    };
    let (fused, composed) = (run_in(false), run_in(true));

    let labels = |run: &Run| -> Vec<(String, f64)> {
        let text = std::fs::read_to_string(run.out.join("label").join(LABELLED_PAIRS)).unwrap();
        let row = |line: &str| {
            let (pair, score) = line.rsplit_once('\t').unwrap();
            (pair.to_owned(), score.parse().unwrap())
        };
        text.lines().skip(1).map(row).collect()
    };
    let (one, other) = (labels(&fused), labels(&composed));
    assert!(one.len() > SENTENCES.len() && one.len() == other.len());
    for ((pair, score), (same, near)) in one.iter().zip(&other) {
        assert_eq!(pair, same);
        assert!((score - near).abs() < 5e-3, "{pair}: {score} and {near}");
    }

    // Adam divides what is only rounding error by its own size, so weights drift apart: losses are
    // held to a thousandth, and no weight of theirs may change what the model says.
    let metrics = |run: &Run| Metrics::new(&run.out).read().unwrap();
    let (one, other) = (metrics(&fused), metrics(&composed));
    assert_eq!(one.len(), other.len());
    let mut trained = 0;
    for (one, other) in one.iter().zip(&other) {
        let (Metric::Train { loss, .. }, Metric::Train { loss: near, stage, .. }) = (one, other)
        else {
            continue;
        };
        trained += 1;
        assert!((loss - near).abs() <= 1e-3 * loss.abs(), "{stage}: losses {loss} and {near}");
    }
    assert_eq!(trained, 5);
    let vectors = |run: &Run| {
        let float = read_float_model(&run.out.join("rounded/model.safetensors")).unwrap();
        let store = run
            .store(&float, Slot::Student, Purpose::Evaluation, SENTENCES.iter().copied())
            .unwrap();
        let model = BertModel::from_float_model(&float, &Device::Cpu).unwrap();
        crate::train::evaluate::embed_all(&model, &store, None).unwrap()
    };
    let (one, other) = (vectors(&fused), vectors(&composed));
    for (one, other) in one.chunks_exact(48).zip(other.chunks_exact(48)) {
        let cosine: f32 = one.iter().zip(other).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.999, "{cosine}");
    }
}
