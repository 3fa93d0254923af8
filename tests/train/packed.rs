//! Runs that are packed, carried elsewhere and run there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::recipe::{CROSS, Place, RECIPE};
use candle_core::Device;
use munjang::train::internals::{
    Metric, Metrics, PackedRun, Purpose, pack as pack_run, run_packed,
};
use munjang::train::recipe::Slot;
use munjang::train::run::Run;

fn pack(place: &Place, recipe: &Path, rest: &[&str]) -> Output {
    place.command(recipe).args(rest).output().unwrap()
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
    let tokenizer = whole.tokenizer(&float, Purpose::Training).unwrap();
    let (_, inside) = PackedRun::read(&packed).unwrap();
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
                    Purpose::Training,
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
    let error = pack_run(&whole, &place.out("small"), 20_000).unwrap_err();
    let said = error.to_string();
    assert_eq!(error.code(), "input_invalid");
    assert!(said.contains("at most 0.02 MiB") && said.contains("teacher.safetensors.gz"), "{said}");
    assert!(!place.out("small").exists());
    // A folder with other things is not touched.
    fs::create_dir(place.out("taken")).unwrap();
    fs::write(place.out("taken/letter.txt"), "dear").unwrap();
    let error = pack_run(&whole, &place.out("taken"), usize::MAX).unwrap_err();
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
    run_packed(&packed, 2.0, &result, Device::Cpu).unwrap();
    let files = files_below(&result);
    assert!(files.contains(&"student_sts/model.safetensors".to_owned()), "{files:?}");
    assert!(!files.iter().any(|file| file.ends_with(".tsv") || file.contains("head")), "{files:?}");
}

/// The scratch folder of `--pack` is deleted with the command that made it, and no other is.
#[test]
fn a_folder_in_the_way_of_packing_is_left_alone() {
    let place = Place::new();
    let recipe = place.recipe("tiny.toml", RECIPE);
    let (packed, work) = (place.out("packed"), place.out("packed.work"));
    fs::create_dir(&work).unwrap();
    fs::write(work.join("letter.txt"), "dear").unwrap();
    let output = pack(&place, &recipe, &["--pack", packed.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("packed.work is there already"), "{said}");
    assert_eq!(fs::read_to_string(work.join("letter.txt")).unwrap(), "dear");
    assert!(!packed.exists());
}
