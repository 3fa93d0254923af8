//! The commands `convert`, `eval` and `info` on what people have, and texts as they write them.
#![cfg(feature = "cli")]

mod golden_files;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use golden_files::{fixtures, repository, small};
use serde_json::Value;
use tempfile::TempDir;

fn munjang() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_munjang"));
    command.env_remove("MUNJANG_MODEL").current_dir(repository());
    command
}

fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn fails(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert_eq!(status.code(), Some(1), "{command:?}");
    String::from_utf8(stderr).unwrap()
}

fn convert(from: &Path, to: &Path, more: &[&str]) -> String {
    succeeds(munjang().arg("convert").arg(from).arg("--output").arg(to).args(more))
}

fn model(folder: &TempDir, name: &str) -> PathBuf {
    let path = folder.path().join(format!("{name}.munjang"));
    convert(&small(name), &path, &[]);
    path
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::write(&target, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

#[test]
fn convert_ends_with_what_became_of_the_folder() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("a.munjang");
    let current = fixtures().join("folders/sts-current");
    let printed = convert(&current, &output, &["--strict"]);
    for part in [
        "a.munjang: model ",
        "used",
        "modules.json",
        "pooling by cls",
        "at most 24 tokens",
        "문장: ",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let info = succeeds(munjang().args(["info", "--model"]).arg(&output));
    assert!(info.contains("prompt \"query\"") && info.contains("질문: "), "{info}");
    convert(&current, &output, &["--prompt", "query"]);
    let info = succeeds(munjang().args(["info", "--json", "--model"]).arg(&output));
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!((&info["config"]["prefix"], &info["dimension"]), (&"질문: ".into(), &32.into()));

    // What is not used is told, and an error if strict; nothing is written then.
    let copy = folder.path().join("copy");
    copy_all(&current, &copy);
    std::fs::write(copy.join("4_Odd.json"), "{}").unwrap();
    let printed = convert(&copy, &output, &[]);
    assert!(printed.contains("not used    4_Odd.json"), "{printed}");
    let never = folder.path().join("never.munjang");
    let message =
        fails(munjang().arg("convert").arg(&copy).arg("--strict").arg("--output").arg(&never));
    assert!(message.contains("--strict") && message.contains("4_Odd.json"), "{message}");
    assert!(!never.exists());
}

/// Sentences that look like options are sentences, in every command that takes text.
#[test]
fn texts_may_begin_with_a_hyphen() {
    let folder = TempDir::new().unwrap();
    let path = model(&folder, "bert");
    let lines = folder.path().join("lines.txt");
    std::fs::write(&lines, "-비가 옵니다\n눈이 온다\n").unwrap();
    for text in ["-비가 옵니다", "--비가 옵니다", "-1도입니다", "-", "—비"] {
        let same = succeeds(munjang().args(["similarity", text, text, "--model"]).arg(&path));
        assert_eq!(same.trim(), "1.0000", "{text}");
        let after =
            succeeds(munjang().arg("similarity").arg("--model").arg(&path).args([text, text]));
        assert_eq!(after.trim(), "1.0000", "{text}");
        let found = succeeds(
            munjang().arg("search").arg("--model").arg(&path).arg(&lines).args([text, "-k", "1"]),
        );
        assert_eq!(found.lines().count(), 1, "{text}");
    }
    let prefixed = folder.path().join("prefixed.munjang");
    convert(&small("bert"), &prefixed, &["--prefix", "- "]);
    let info = succeeds(munjang().args(["info", "--json", "--model"]).arg(&prefixed));
    assert_eq!(serde_json::from_str::<Value>(&info).unwrap()["config"]["prefix"], "- ");
}

const PAIRS: [(&str, &str, f64); 6] = [
    ("오늘은 비가 온다", "오늘 비가 내린다", 4.5),
    ("주가가 올랐다", "주식 시장이 상승했다", 4.0),
    ("고양이가 잔다", "고양이가 자고 있다", 4.8),
    ("밥을 먹었다", "점심을 먹었다", 3.1),
    ("기차를 탔다", "영화를 보았다", 0.2),
    ("서울은 크다", "바다가 푸르다", 0.4),
];

#[test]
fn the_same_pairs_in_every_form_score_the_same() {
    let folder = TempDir::new().unwrap();
    let path = model(&folder, "bert");
    let write = |name: &str, text: String| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let rows =
        |row: &dyn Fn(&(&str, &str, f64)) -> String| -> String { PAIRS.iter().map(row).collect() };
    let files = [
        write(
            "a.tsv",
            format!(
                "sentence1\tsentence2\tscore\n{}",
                rows(&|(a, b, s)| format!("{a}\t{b}\t{s}\n"))
            ),
        ),
        write(
            "a.csv",
            format!("text1,text2,label\n{}", rows(&|(a, b, s)| format!("\"{a}\",\"{b}\",{s}\n"))),
        ),
        write(
            "a.jsonl",
            rows(&|(a, b, s)| {
                serde_json::json!({"sentence1": a, "sentence2": b, "labels": {"real-label": s, "label": 1}})
                .to_string() + "\n"
            }),
        ),
    ];
    let mut scores = Vec::new();
    for file in &files {
        let printed =
            succeeds(munjang().args(["eval", "sts", "--json", "--model"]).arg(&path).arg(file));
        let json: Value = serde_json::from_str(&printed).unwrap();
        scores.push((json["files"][0]["spearman"].clone(), json["files"][0]["pearson"].clone()));
    }
    assert!(scores[0].0.is_f64() && scores.iter().all(|score| *score == scores[0]), "{scores:?}");

    let columns = write(
        "odd.tsv",
        format!("ko\tother\tgold\n{}", rows(&|(a, b, s)| format!("{a}\t{b}\t{s}\n"))),
    );
    let message = fails(munjang().args(["eval", "sts", "--model"]).arg(&path).arg(&columns));
    assert!(message.contains("--columns FIRST,SECOND,SCORE"), "{message}");
    // The advice, followed.
    let printed = succeeds(
        munjang()
            .args(["eval", "sts", "--json", "--columns", "ko,other,gold", "--model"])
            .arg(&path)
            .arg(&columns),
    );
    let json: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["files"][0]["spearman"], scores[0].0);
}

#[test]
fn eval_gives_intervals_and_compares_models() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (model(&folder, "bert"), model(&folder, "distilbert"));
    let file = folder.path().join("a.tsv");
    let text: String = PAIRS.iter().map(|(a, b, s)| format!("{a}\t{b}\t{s}\n")).collect();
    std::fs::write(&file, format!("sentence1\tsentence2\tscore\n{text}")).unwrap();
    let run = |more: &[&str]| {
        let mut command = munjang();
        command.args(["eval", "sts", "--model"]).arg(&first).args(more).arg(&file);
        command
    };
    let json: Value =
        serde_json::from_str(&succeeds(&mut run(&["--json", "--bootstrap", "200"]))).unwrap();
    let (low, high) = (&json["files"][0]["spearman95"][0], &json["files"][0]["spearman95"][1]);
    let value = json["files"][0]["spearman"].as_f64().unwrap();
    assert!(low.as_f64().unwrap() <= value && value <= high.as_f64().unwrap(), "{json}");
    let table = succeeds(&mut run(&["--bootstrap", "200"]));
    assert!(table.contains('[') && table.contains("95 %"), "{table}");

    let other = second.to_str().unwrap();
    let json: Value =
        serde_json::from_str(&succeeds(&mut run(&["--json", "--compare", other]))).unwrap();
    let rows = json["files"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    let of = |row: &Value| row["spearman"].as_f64().unwrap();
    assert!((of(&rows[1]) - of(&rows[0]) - of(&rows[2])).abs() < 1e-9);
    assert_eq!(rows[2]["model"], "difference");
    assert!(rows[2]["spearman95"].is_array(), "{json}");
    let same = first.to_str().unwrap();
    let table = succeeds(&mut run(&["--compare", same]));
    assert!(table.contains("difference") && table.contains("0.00 [0.00, 0.00]"), "{table}");
    assert!(fails(&mut run(&["--bootstrap", "0"])).contains("--bootstrap"));
}

#[test]
fn a_correlation_that_does_not_exist_is_nan_with_a_reason() {
    let folder = TempDir::new().unwrap();
    let path = model(&folder, "bert");
    let file = folder.path().join("const07.tsv");
    let text: String =
        PAIRS.iter().chain(&PAIRS).map(|(a, b, _)| format!("{a}\t{b}\t0.7\n")).collect();
    std::fs::write(&file, format!("sentence1\tsentence2\tscore\n{text}")).unwrap();
    let table = succeeds(munjang().args(["eval", "sts", "--model"]).arg(&path).arg(&file));
    assert!(table.contains("NaN, since the scores are all the same"), "{table}");
    let json = succeeds(
        munjang()
            .args(["eval", "sts", "--json", "--bootstrap", "50", "--model"])
            .arg(&path)
            .arg(&file),
    );
    let json: Value = serde_json::from_str(&json).unwrap();
    let row = &json["files"][0];
    assert!(
        row["pearson"].is_null() && row["spearman"].is_null() && row["spearman95"].is_null(),
        "{row}"
    );
    assert!(row["undefined"].as_str().unwrap().contains("scores"));
}
