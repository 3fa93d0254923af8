use candle_core::{Device, Tensor};

use super::task;
use super::testing::{small, write_checkpoint};
use crate::config::ModelConfig;
use crate::convert::{ConvertOptions, read_checkpoint};
use crate::train::nn::bert::BertModel;
use crate::train::nn::options::ForwardOptions;
use crate::train::nn::random::random_float_model;
use crate::train::recipe::{Recipe, StageKind};
use crate::train::run::Run;
use crate::train::run::training::fake_quant;

/// Each kind of training stage, each term of it somewhere.
const EVERY_TASK: &str = r#"
        name = "x"
        seed = 1
        max_tokens = 16
        [data.sts]
        file = "sts.tsv"
        kind = "sts"
        license = "CC0"
        weight = 0.5
        [data.plain_sts]
        file = "sts.tsv"
        kind = "sts"
        license = "CC0"
        [data.nli]
        file = "nli.tsv"
        kind = "nli"
        license = "CC0"
        [data.pairs]
        file = "sts.tsv"
        kind = "pairs"
        license = "CC0"
        [data.lines]
        file = "lines.txt"
        kind = "sentences"
        license = "CC0"
        [[stage]]
        name = "simcse"
        kind = "contrast"
        data = ["nli"]
        steps = 1
        batch = 3
        dimensions = [24]
        [[stage]]
        name = "sts"
        kind = "sts"
        data = ["sts"]
        steps = 1
        batch = 6
        teacher_weight = 0.5
        dimensions = [24]
        [[stage]]
        name = "rounded"
        kind = "sts"
        data = ["sts"]
        steps = 1
        batch = 6
        quantize_bits = 7
        rounding_weight = 1.0
        [[stage]]
        name = "both"
        kind = "sts"
        data = ["sts", "pairs"]
        steps = 1
        batch = 6
        pairs_weight = 0.5
        pairs_batch = 4
        pairs_tokens = 5
        pairs_teacher_weight = 0.5
        [[stage]]
        name = "distill"
        kind = "distill"
        data = ["lines"]
        steps = 1
        batch = 6
        dimensions = [24]
        middle_weight = 1.0
        middle_layers = [[0, 0], [1, 1]]
        [[stage]]
        name = "middle_only"
        kind = "distill"
        data = ["lines"]
        steps = 1
        batch = 6
        cosine_weight = 0.0
        similarity_weight = 0.0
        state_weight = 0.5
        middle_weight = 1.0
        middle_layers = [[2, 1]]
        [[stage]]
        name = "cross"
        kind = "cross_encoder"
        model = "teacher"
        data = ["plain_sts"]
        steps = 1
        batch = 6
    "#;

fn written_data() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(place.path().join(file), text).unwrap();
    let words = ["봄이 왔다", "꽃이 핀다", "비가 내린다", "눈이 온다", "바람이 분다", "해가 뜬다"];
    let (mut sts, mut nli, mut lines) = (
        "sentence1\tsentence2\tscore\n".to_owned(),
        "sentence1\tsentence2\tlabel\n".to_owned(),
        String::new(),
    );
    for (at, word) in words.iter().enumerate() {
        let next = words[(at + 1) % words.len()];
        sts += &format!("{word}\t{next}\t{at}\n").replace("\t5\n", "\t4.5\n");
        let label = ["entailment", "contradiction"][at % 2];
        nli += &format!("{}\t{next}\t{label}\n", words[at / 2]);
        lines += &format!("{word}\n");
    }
    write("sts.tsv", &sts);
    write("nli.tsv", &nli);
    write("lines.txt", &lines);
    place
}

/// One step of every kind of training stage: each trainable weight gets a gradient, also those
/// that the stage adds to the model.
#[test]
fn every_trainable_weight_of_every_task_gets_a_gradient() {
    let place = written_data();
    // Teacher and student of one tokenizer, of different widths in the last case.
    for (teacher, student) in [("bert", "bert"), ("distilbert", "bert")] {
        let recipe = Recipe::parse(EVERY_TASK, "test.toml").unwrap();
        let (data, out) = (place.path().to_owned(), place.path().join(teacher));
        let run = Run::new(recipe, data, small(teacher), out);
        let run = Run { student: Some(small(student)), ..run };
        for (index, stage) in run.recipe.stages.iter().enumerate() {
            // Different tokenizers: states cannot be compared.
            if teacher != student && matches!(stage.kind, StageKind::Distill(_)) {
                continue;
            }
            let training = stage.training().unwrap();
            std::fs::create_dir_all(run.folder(stage)).unwrap();
            let mut float = run.model_before(0, stage.model()).unwrap();
            // Another model than the teacher, or there would be nothing to learn from it.
            float.layers.reverse();
            let mut model = BertModel::from_float_model(&float, &Device::Cpu).unwrap();
            let rows = run.rows(stage).unwrap();
            let task = task(&run, index, rows, &float, &mut model).unwrap();
            let batch: Vec<u32> = (0..training.batch.min(task.lengths().len()) as u32).collect();
            let options =
                ForwardOptions { quantize: fake_quant(training), ..ForwardOptions::training() };
            let (loss, outputs, _) = task.step(&model, &batch, &options).unwrap();
            let gradients = model.backward(&loss, outputs).unwrap();
            for parameter in model.parameters().iter() {
                let gradient = gradients.dense(model.parameters(), &parameter.name).unwrap();
                let gradient = gradient.unwrap_or_else(|| {
                    panic!("{}: no gradient for {}", stage.name, parameter.name)
                });
                let largest = gradient.abs().unwrap().max_all().unwrap();
                let largest = largest.to_scalar::<f32>().unwrap();
                // A key's bias shifts all scores of a query alike.
                let still = parameter.name.ends_with("key.bias");
                assert!(still || largest > 0.0, "{}: {} is 0", stage.name, parameter.name);
            }
            let added = model.parameters().len() - 4 - 16 * float.layers.len();
            let head = if matches!(stage.kind, StageKind::CrossEncoder(_)) { 4 } else { 0 };
            assert_eq!(added, head, "{}", stage.name);
        }
    }
}

#[test]
fn states_of_another_width_are_projected() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("lines.txt"), "봄이 왔다\n꽃이 핀다\n비가 내린다\n").unwrap();
    // The same tokenizer in a wider teacher.
    let narrow = read_checkpoint(&small("bert"), &ConvertOptions::default()).unwrap();
    let config = ModelConfig {
        hidden_size: 64,
        model_type: "bert".into(),
        num_hidden_layers: 4,
        ..narrow.config.clone()
    };
    let mut wide = random_float_model(&config, 3);
    wide.tokenizer_json = narrow.tokenizer_json.clone();
    let teacher = place.path().join("teacher");
    write_checkpoint(&wide, &teacher);
    let text = r#"
        name = "x"
        seed = 1
        [data.lines]
        file = "lines.txt"
        kind = "sentences"
        license = "CC0"
        [[stage]]
        name = "distill"
        kind = "distill"
        data = ["lines"]
        steps = 1
        batch = 3
        STATES
        middle_weight = 1.0
        middle_layers = [[0, 1], [1, 3]]
    "#;
    for (states, projections) in [("state_weight = 1.0", 3), ("cosine_weight = 0.0", 2)] {
        let recipe = Recipe::parse(&text.replace("STATES", states), "test.toml").unwrap();
        let (data, out) = (place.path().to_owned(), place.path().join("out"));
        let run = Run::new(recipe, data, teacher.clone(), out);
        let run = Run { student: Some(small("bert")), ..run };
        let stage = &run.recipe.stages[0];
        let mut model = BertModel::from_float_model(&narrow, &Device::Cpu).unwrap();
        let before = model.parameters().len();
        let task = task(&run, 0, run.rows(stage).unwrap(), &narrow, &mut model).unwrap();
        assert_eq!(model.parameters().len() - before, projections, "{states}");
        let step =
            |model: &BertModel| task.step(model, &[0, 1, 2], &ForwardOptions::training()).unwrap();
        let (loss, outputs, _) = step(&model);
        let gradients = model.backward(&loss, outputs).unwrap();
        for parameter in model.parameters().iter().skip(before) {
            let gradient = gradients.dense(model.parameters(), &parameter.name).unwrap();
            let gradient = gradient.expect("projections are trained").flatten_all().unwrap();
            let gradient = gradient.to_vec1::<f32>().unwrap();
            let values = parameter.var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let at = (0..gradient.len())
                .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
                .unwrap();
            let moved = |by: f32| {
                let mut values = values.clone();
                values[at] += by;
                let values = Tensor::from_vec(values, parameter.var.dims(), &Device::Cpu);
                parameter.var.set(&values.unwrap()).unwrap();
                step(&model).0.to_scalar::<f32>().unwrap()
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            moved(0.0);
            let (found, size) = (gradient[at], gradient[at].abs());
            assert!((slope - found).abs() < 0.02 * size, "{found} against {slope}");
        }
    }
}
