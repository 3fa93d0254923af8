//! The command line, as a user runs it.
#![cfg(feature = "cli")]

mod golden_files;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use golden_files::{fixtures, repository, small};
use serde_json::Value;
use tempfile::TempDir;

fn munjang() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_munjang"));
    command.env_remove("MUNJANG_MODEL").current_dir(repository());
    command
}

fn run(command: &mut Command, stdin: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    let writer = std::thread::spawn(move || drop(input.write_all(&stdin)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Standard output of a run that must succeed.
fn succeeds(command: &mut Command, stdin: &[u8]) -> String {
    let output = run(command, stdin);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a run that must fail with `code`.
fn fails(command: &mut Command, stdin: &[u8], code: &str) -> String {
    let output = run(command, stdin);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.starts_with(&format!("error[{code}]: ")), "{message}");
    message
}

/// A small model made by `munjang convert`, in a folder of its own with a manifest.
fn small_model(folder: &TempDir) -> PathBuf {
    let model = folder.path().join("tiny.munjang");
    let mut command = munjang();
    command.arg("convert").arg(small("bert")).arg("--output").arg(&model).arg("--manifest");
    let printed = succeeds(&mut command, b"");
    assert!(printed.contains("tiny.munjang: model "), "{printed}");
    model
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

#[test]
fn convert_then_info() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("manifest.json")).unwrap())
            .unwrap();
    let info = succeeds(munjang().args(["info", "--json", "--model"]).arg(&model), b"");
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(manifest["modelId"], info["modelId"]);
    assert_eq!(manifest["file"], "tiny.munjang");
    assert_eq!(info["config"]["hidden_size"], 48);
    assert_eq!(info["bytes"], std::fs::metadata(&model).unwrap().len());
    // A folder, its manifest and the file are three ways to name one model.
    for path in [folder.path(), &folder.path().join("manifest.json")] {
        let same = succeeds(munjang().args(["info", "--json", "--model"]).arg(path), b"");
        assert_eq!(serde_json::from_str::<Value>(&same).unwrap(), info);
    }
    let table = succeeds(munjang().arg("info").env("MUNJANG_MODEL", &model), b"");
    assert!(table.contains("model_type") && table.contains("\"bert\""), "{table}");
}

#[test]
fn convert_reports_what_is_wrong_and_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("x.munjang");
    let convert = |checkpoint: &Path| {
        let mut command = munjang();
        command.arg("convert").arg(checkpoint).arg("--output").arg(&output);
        command
    };
    fails(&mut convert(&folder.path().join("nothing")), b"", "input_invalid");
    let message = fails(convert(&small("bert")).args(["--layers", "0,7"]), b"", "input_invalid");
    assert!(message.contains("[0, 7]") && message.contains("3 layers"), "{message}");
    fails(&mut convert(folder.path()), b"", "io");
    assert!(!output.exists());
}

#[test]
fn encode_writes_json_lines() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let long = "가 ".repeat(200);
    let input = format!("안녕하세요\r\n\n{long}\n마지막 줄");
    let output = run(munjang().args(["encode", "--model"]).arg(&model), input.as_bytes());
    let lines = json_lines(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!(lines.len(), 4);
    for line in &lines {
        let embedding = numbers(&line["embedding"]);
        assert_eq!(embedding.len(), 48);
        assert!((golden_files::cosine(&embedding, &embedding) - 1.0).abs() < 1e-6);
    }
    assert_eq!(lines[1]["tokens"], 2);
    let cut: Vec<bool> = lines.iter().map(|line| line["truncated"].as_bool().unwrap()).collect();
    assert_eq!(cut, [false, false, true, false]);
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.contains("1 of 4 lines have more than 64 tokens"), "{note}");
    assert_eq!(succeeds(munjang().args(["encode", "--model"]).arg(&model), b""), "");
}

#[test]
fn encode_writes_npy() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let text = "하나\n둘\n셋\n".repeat(400);
    let npy = folder.path().join("x.npy");
    succeeds(
        munjang().args(["encode", "--model"]).arg(&model).arg("--output").arg(&npy),
        text.as_bytes(),
    );
    let bytes = std::fs::read(&npy).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header = std::str::from_utf8(&bytes[10..128]).unwrap();
    assert_eq!(u16::from_le_bytes([bytes[8], bytes[9]]), 118);
    assert!(header.contains("'<f4'") && header.contains("(1200, 48)"), "{header}");
    assert!(header.ends_with('\n'));
    let values: Vec<f32> =
        bytes[128..].as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
    assert_eq!(values.len(), 1200 * 48);
    let lines = succeeds(munjang().args(["encode", "--model"]).arg(&model), "하나\n둘".as_bytes());
    let lines = json_lines(&lines);
    assert_eq!(numbers(&lines[0]["embedding"]), values[..48]);
    assert_eq!(numbers(&lines[1]["embedding"]), values[1198 * 48..1199 * 48]);
    assert!(!folder.path().join("x.npy.partial").exists());

    let message = fails(
        munjang().args(["encode", "--output", "x.csv", "--model"]).arg(&model),
        b"",
        "input_invalid",
    );
    assert!(message.contains(".npy"), "{message}");
}

#[test]
fn encode_names_the_line_that_is_not_utf8() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let message = fails(
        munjang().args(["encode", "--model"]).arg(&model),
        b"fine\n\xff\xfe\nfine\n",
        "data_invalid",
    );
    assert!(message.contains("standard input:2: not UTF-8"), "{message}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let mut child = munjang()
        .args(["encode", "--model"])
        .arg(&model)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer =
        std::thread::spawn(move || drop(input.write_all("문장\n".repeat(5000).as_bytes())));
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 100]).unwrap();
    drop(output);
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn similarity_of_two_and_of_many() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let same = succeeds(
        munjang().args(["similarity", "같은 문장", "같은 문장", "--model"]).arg(&model),
        b"",
    );
    assert_eq!(same, "1.0000\n");
    let table =
        succeeds(munjang().args(["similarity", "하나", "둘", "셋", "--model"]).arg(&model), b"");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split('\t').collect()).collect();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.len() == 3), "{table}");
    assert_eq!(rows[0][1], rows[1][0]);
}

#[test]
fn search_ranks_lines_and_reuses_an_index() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let corpus = folder.path().join("corpus.txt");
    std::fs::write(&corpus, "오늘 날씨가 맑다\n환불은 어떻게 받나요?\n강아지가 뛴다\n").unwrap();
    let index = folder.path().join("corpus.index");
    let search = |model: &Path, corpus: &Path| {
        let mut command = munjang();
        command.arg("search").arg(corpus).args(["환불은 어떻게 받나요?", "-k", "2", "--json"]);
        command.arg("--model").arg(model).arg("--index").arg(&index);
        command
    };
    let first = succeeds(&mut search(&model, &corpus), b"");
    let hits = json_lines(&first);
    assert_eq!(hits.len(), 2);
    assert_eq!(hits[0]["line"], 2);
    let (score, lexical) =
        (hits[0]["score"].as_f64().unwrap(), hits[0]["lexical"].as_f64().unwrap());
    assert!(hits[0]["cosine"].as_f64().unwrap() > 0.999 && lexical > 0.3 && lexical < 1.0);
    assert!((score - (0.4 + 0.6 * lexical)).abs() < 1e-3);
    assert_eq!(hits[0]["passage"], "환불은 어떻게 받나요?");
    assert_eq!(succeeds(&mut search(&model, &corpus), b""), first, "with the stored index");

    let other = folder.path().join("other.txt");
    std::fs::write(&other, "한 줄\n").unwrap();
    let message = fails(&mut search(&model, &other), b"", "index_invalid");
    assert!(message.contains("was not made of") && message.contains("delete it"), "{message}");
    let roberta = folder.path().join("roberta.munjang");
    succeeds(munjang().arg("convert").arg(small("roberta")).arg("--output").arg(&roberta), b"");
    let message = fails(&mut search(&roberta, &corpus), b"", "index_invalid");
    assert!(message.contains("the model in use"), "{message}");
    std::fs::write(&other, "").unwrap();
    fails(&mut search(&model, &other), b"", "data_invalid");
}

#[test]
fn an_index_of_documents_with_ids() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let corpus = folder.path().join("corpus.jsonl");
    let lines = "{\"id\": \"a\", \"text\": \"비가 온다. 우산을 쓴다.\", \"data\": {\"year\": 2024}}\n\n\
                 {\"text\": \"강아지가 뛴다\"}\n";
    std::fs::write(&corpus, lines).unwrap();
    let make = |name: &str| {
        let output = folder.path().join(name);
        let mut command = munjang();
        command.arg("index").arg(&corpus).arg("--output").arg(&output).arg("--model").arg(&model);
        command.args(["--precision", "binary", "--max-chars", "10"]);
        let told = succeeds(&mut command, b"");
        assert!(told.contains("2 documents, 3 passages"), "{told}");
        std::fs::read(output).unwrap()
    };
    assert_eq!(make("one.index"), make("two.index"), "the same bytes each time");
    let mut search = munjang();
    search.arg("search").arg(&corpus).args([
        "우산",
        "--semantic",
        "0",
        "--max-chars",
        "10",
        "--json",
    ]);
    search.arg("--index").arg(folder.path().join("one.index")).arg("--model").arg(&model);
    let hits = json_lines(&succeeds(&mut search, b""));
    assert_eq!(
        (hits.len(), &hits[0]["line"], &hits[0]["passage"]),
        (1, &1.into(), &"우산을 쓴다.".into())
    );
    for (text, expected) in [
        ("{\"id\": 1}\n", "no string \"text\""),
        ("{\n", "not JSON"),
        ("{\"text\": \"a\", \"id\": [1]}\n", "expected a string or a number"),
        ("{\"text\": \"a\", \"id\": 2}\n{\"text\": \"b\"}\n", "comes twice"),
    ] {
        std::fs::write(&corpus, text).unwrap();
        let mut command = munjang();
        command
            .arg("index")
            .arg(&corpus)
            .arg("--output")
            .arg(folder.path().join("x"))
            .arg("--model")
            .arg(&model);
        let message = fails(&mut command, b"", "data_invalid");
        assert!(message.contains(expected) && message.contains("corpus.jsonl:"), "{message}");
    }
}

#[test]
fn eval_retrieval_prints_a_table_and_json() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("queries.tsv", "id\ttext\nq1\t우산\nq2\t강아지\n");
    write("corpus.tsv", "id\ttext\nd1\t비가 와서 우산을 쓴다\nd2\t강아지가 뛴다\nd3\t밥\n");
    write("relevance.tsv", "query\tdocument\nq1\td1\nq2\td2\n");
    let mut command = munjang();
    command.args(["eval", "retrieval"]).arg(folder.path()).arg("--model").arg(&model);
    let table = succeeds(&mut command, b"");
    assert!(table.contains("nDCG@10") && table.contains("fusion"), "{table}");
    let json: Value = serde_json::from_str(&succeeds(command.arg("--json"), b"")).unwrap();
    assert_eq!(json["scores"]["words"]["ndcg@10"], 100.0);
    assert_eq!((&json["queries"], &json["documents"]), (&2.into(), &3.into()));
    let message = fails(command.args(["--semantic", "2"]), b"", "input_invalid");
    assert!(message.contains("0 to 1"), "{message}");
    std::fs::remove_file(folder.path().join("corpus.tsv")).unwrap();
    fails(&mut command, b"", "io");
}

#[test]
fn eval_sts_prints_a_table_and_json() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let file = folder.path().join("sts.tsv");
    std::fs::write(
        &file,
        "score\tsentence1\tsentence2\n5\t같은 문장\t같은 문장\n1\t강아지가 뛴다\t환율이 올랐다\n0\t밥\tGPU\n",
    )
    .unwrap();
    let mut command = munjang();
    command.args(["eval", "sts"]).arg(&file).arg("--model").arg(&model);
    let table = succeeds(&mut command, b"");
    assert!(table.contains("Spearman×100") && table.contains("sts.tsv"), "{table}");
    let json: Value = serde_json::from_str(&succeeds(command.arg("--json"), b"")).unwrap();
    assert_eq!(json["files"][0]["pairs"], 3);
    let spearman = json["files"][0]["spearman"].as_f64().unwrap();
    assert!((-100.0..=100.0).contains(&spearman));
    assert!(table.contains(&format!("{spearman:.2}")), "{table}");

    std::fs::write(&file, "sentence1\tsentence2\tscore\n가\t나\tmany\n").unwrap();
    let mut command = munjang();
    command.args(["eval", "sts"]).arg(&file).arg("--model").arg(&model);
    let message = fails(&mut command, b"", "data_invalid");
    assert!(message.contains("sts.tsv:2: score is \"many\""), "{message}");
    fails(munjang().args(["eval", "sts", "no-such-file.tsv", "--model"]).arg(&model), b"", "io");
}

#[test]
fn models_that_cannot_be_loaded() {
    let folder = TempDir::new().unwrap();
    let model = small_model(&folder);
    let bytes = std::fs::read(&model).unwrap();
    let bad = folder.path().join("bad.munjang");
    let info = || {
        let mut command = munjang();
        command.args(["info", "--model"]).arg(&bad);
        command
    };
    fails(&mut info(), b"", "io");
    std::fs::write(&bad, &bytes[..bytes.len() / 2]).unwrap();
    fails(&mut info(), b"", "weights_truncated");
    std::fs::write(&bad, "<!doctype html><title>404</title>".repeat(99)).unwrap();
    fails(&mut info(), b"", "weights_malformed");
    // Neither named nor anywhere above: the program itself lies in the repository's build folder or
    // elsewhere, so only the message's absence of a panic is certain there.
    let somewhere = Command::new(env!("CARGO_BIN_EXE_munjang"))
        .env_remove("MUNJANG_MODEL")
        .current_dir(folder.path())
        .args(["info"])
        .output()
        .unwrap();
    let message = String::from_utf8(somewhere.stderr).unwrap();
    assert!(somewhere.status.success() || message.contains("MUNJANG_MODEL"), "{message}");
}

#[test]
fn the_shipped_model_is_the_default() {
    let info = succeeds(munjang().args(["info", "--json"]), b"");
    let info: Value = serde_json::from_str(&info).unwrap();
    let manifest = std::fs::read(repository().join("models/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(info["modelId"], manifest["modelId"]);
    assert!(manifest["bytes"].as_u64().unwrap() <= 20 * 1024 * 1024);
    let same = succeeds(munjang().arg("info").arg("--json").current_dir(fixtures()), b"");
    assert_eq!(serde_json::from_str::<Value>(&same).unwrap(), info, "from a folder below");
}
