//! What is wrong with data or recipe, or leaks from an evaluation set, and what is said of it.

use std::fs;

use crate::recipe::{Place, RECIPE};

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
    let dry = place.out("dry");
    let output = place.command(&recipe).arg("--out").arg(&dry).arg("--dry-run").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with("lines ")).unwrap();
    let counts: Vec<&str> = line.split_whitespace().collect();
    assert!(said.contains("in passages") && counts[4] == "1", "{said}");
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
fn a_dry_run_counts_and_writes_nothing() {
    let place = Place::new();
    let recipe = place.recipe("tiny.toml", RECIPE);
    let dry = place.out("dry");
    let output = place.command(&recipe).arg("--out").arg(&dry).arg("--dry-run").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("teacher:") && text.contains("student_sts") && text.contains("about"),
        "{text}"
    );
    assert!(!dry.exists());
}
