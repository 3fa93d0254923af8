//! Runs that are stopped: killed, on a full disk, outside of the finite numbers.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::golden_files::small;
use crate::recipe::{KILLED, Place};
use candle_core::{Device, Tensor};
use munjang::train::internals::{BertModel, Checkpoint, Metric, Metrics};

fn munjang(place: &Place, recipe: &Path, out: &str) -> Child {
    place.command(recipe).arg("--out").arg(place.out(out)).stderr(Stdio::null()).spawn().unwrap()
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
            let step = Checkpoint::read(&checkpoint).ok().map(|checkpoint| checkpoint.step);
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
    let (whole, broken) = (place.model("whole", "distill"), place.model("broken", "distill"));
    assert!(whole == broken, "weights differ after {kills} kills");
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
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint() {
    let place = Place::new();
    let text = KILLED
        .replace("learning_rate = 1e-3", "learning_rate = 0.99")
        .replace("steps = 60", "steps = 60\nwarmup = 0.0\nstate_weight = 3e37")
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
    let calm = KILLED.replace("steps = 60", "steps = 6").replace("every = 5", "every = 1");
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
        short.recipe.stages[1].training_mut().unwrap().minutes = Some(1e-9);
        short.run(Some("distill")).unwrap();
        fs::read_to_string(place.out("late/distill/done.json")).unwrap()
    };
    fs::remove_file(place.out("late/distill/done.json")).unwrap();
    let model = place.out("late/distill/model.safetensors");
    fs::remove_file(&model).unwrap();
    let student = place.model("late", "layers");
    let bert = BertModel::from_float_model(&student, &Device::Cpu).unwrap();
    let mut tensors = HashMap::new();
    for parameter in bert.parameters().iter() {
        let value = parameter.var.as_detached_tensor();
        let zeros = value.zeros_like().unwrap();
        tensors.insert(format!("adamw.second.{}", parameter.name), zeros.clone());
        // A first moment that throws the weights far out in the first step.
        tensors.insert(format!("adamw.first.{}", parameter.name), (zeros + 1e30).unwrap());
        tensors.insert(format!("model.{}", parameter.name), value);
    }
    let one = |value: i64| Tensor::new(&[value], &Device::Cpu).unwrap();
    tensors.insert("adamw.steps".into(), one(4));
    tensors.insert("average.updates".into(), one(0));
    Checkpoint { settings, step: 4, seconds: 1.0, tensors }.write(&file).unwrap();
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
    let recipe = place.recipe("killed.toml", &KILLED.replace("steps = 60", "steps = 20"));
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
    assert_eq!(place.model("full", "layers").layers.len(), 2);

    assert!(limited(None).status.success());
    assert!(place.out("full/distill/model.safetensors").exists());
}
