//! Whole training runs on small random checkpoints: what they leave, and what they begin with.

use std::fs;

use crate::golden_files::{repository, small};
use crate::recipe::{Place, RECIPE};
use munjang::Encoder;
use munjang::convert::{ConvertOptions, Manifest, read_checkpoint};
use munjang::train::internals::{Metric, Metrics};
use munjang::train::recipe::{Recipe, Slot};
use munjang::train::run::Run;

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
        let done = |metric: &Metric| matches!(metric, Metric::Done { stage: name, step, .. } if *name == stage.name && *step == stage.steps());
        assert!(metrics.iter().any(done), "{}", stage.name);
    }
    let model = |stage: &str| place.model("out", stage);
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

    let model = |out: &str| place.model(out, "distill");
    // Each of the two options changes what is learned.
    for (option, out) in [
        ("middle_weight = 0.5\nmiddle_layers = [[0, 1]]\n", "plain"),
        ("dimensions = [16, 32]\n", "uncut"),
    ] {
        let run = place.run(&text.replace(option, ""), out);
        place.copy_stages(
            "float",
            out,
            &["vocabulary", "center", "contrast", "teacher_sts", "layers"],
        );
        run.run(Some("distill")).unwrap();
        assert!(model(out) != model("float"), "{out}");
    }
    // A quantized teacher has middle states too, and they are near to the float ones.
    let quantized = text.replace("middle_weight", "quantized_teacher = true\nmiddle_weight");
    place.copy_stages(
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

    let file = repository().join("recipes/klue-roberta-large.toml");
    let text = fs::read_to_string(&file).unwrap();
    let mut recipe = Recipe::parse(&text, "klue-roberta-large.toml").unwrap();
    recipe.max_tokens = 24;
    for training in recipe.stages.iter_mut().filter_map(|stage| stage.training_mut()) {
        (training.steps, training.batch, training.evaluate_every) = (2, 6, None);
    }
    let run = Run::new(recipe, place.data(), small("roberta"), place.out("published"));
    let run = Run { student: Some(small("distilbert")), ..run };
    run.run(None).unwrap();
    let (_, bytes) = Manifest::read_model(&place.out("published/export/manifest.json")).unwrap();
    let config = Encoder::from_bytes(bytes).unwrap().info().config;
    assert_eq!((config.hidden_size, config.num_hidden_layers), (60, 3));
}
