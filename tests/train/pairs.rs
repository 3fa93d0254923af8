//! Cross-encoders and the pairs that they label.

use std::fs;

use crate::golden_files::small;
use crate::recipe::{CROSS, Place};
use candle_core::Device;
use munjang::convert::{ConvertOptions, read_checkpoint};
use munjang::train::internals::{Metric, Metrics, TensorFile};
use munjang::train::recipe::Slot;

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
    TensorFile {
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
    place.copy_stages("out", "light", &["layers"]);
    fs::create_dir_all(place.out("light/label")).unwrap();
    fs::write(place.out("light/label/pairs.tsv"), &text).unwrap();
    place.run(&light, "light").run(Some("student_sts")).unwrap();
    let model = |out: &str| place.model(out, "student_sts");
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
