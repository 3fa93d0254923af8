//! What a GPU runs, run on the CPU, or on a GPU where there is one and the feature `cuda`: the composed
//! operations against the fused ones in every kind of stage, step by step and over a whole run.

use candle_core::Device;

use super::task;
use super::testing::{DATA, Place, SENTENCES};
use crate::train::data::{LABELLED_PAIRS, Purpose};
use crate::train::golden::values;
use crate::train::nn::bert::{BertModel, composed_on_this_thread};
use crate::train::nn::options::{FakeQuant, ForwardOptions};
use crate::train::recipe::{Slot, StageKind};
use crate::train::report::evaluation::embed_all;
use crate::train::report::metrics::{Metric, Metrics};
use crate::train::run::Run;
use crate::train::run::float_model::read_float_model;
use crate::train::run::training::{fake_quant, frozen};

/// Where composed operations run.
fn composed_device() -> Device {
    match cfg!(feature = "cuda") {
        true => Device::new_cuda(0).expect("with the feature cuda these tests need a GPU"),
        false => Device::Cpu,
    }
}

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
        let training = stage.training().unwrap();
        // With what the other run's teacher said.
        let _ = std::fs::remove_dir_all(run.folder(stage));
        std::fs::create_dir_all(run.folder(stage)).unwrap();
        let float = run.model_before(0, training.model).unwrap();
        let mut model = BertModel::from_float_model(&float, &run.device).unwrap();
        model.freeze(frozen(training)).unwrap();
        let task = task(run, index, run.rows(stage).unwrap(), &float, &mut model).unwrap();
        let batch: Vec<u32> = (0..training.batch.min(task.lengths().len()) as u32).collect();
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
            let quantized =
                matches!(&stage.kind, StageKind::Distill(stage) if stage.own.quantized_teacher);
            if quantized && !other.device.is_cpu() {
                // The teacher is not rounded there.
                continue;
            }
            let run_in = |quantize| {
                (step(&run, index, quantize, false), step(&other, index, quantize, true))
            };
            let quantize = fake_quant(stage.training().unwrap());
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
            let composed = composed && !matches!(stage.kind, StageKind::ShiftStates(_));
            composed_on_this_thread(composed, || run.run_stage(index)).unwrap();
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
        embed_all(&model, &store, None).unwrap()
    };
    let (one, other) = (vectors(&fused), vectors(&composed));
    for (one, other) in one.chunks_exact(48).zip(other.chunks_exact(48)) {
        let cosine: f32 = one.iter().zip(other).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.999, "{cosine}");
    }
}
