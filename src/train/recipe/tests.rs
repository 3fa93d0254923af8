use super::*;

const SMALL: &str = r#"
name = "x"
seed = 1
[data.sts]
file = "sts/train.tsv"
kind = "sts"
license = "CC0"
[[stage]]
name = "tune"
kind = "sts"
data = ["sts"]
steps = 3
"#;

fn message(text: &str) -> String {
    let error = Recipe::parse(text, "r.toml").unwrap_err();
    assert!(error.in_file());
    error.to_string()
}

#[test]
fn committed_recipes_are_valid() {
    for name in ["ko-small", "klue-roberta-large"] {
        let file = format!("{}/recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!Recipe::parse(&text, &file).unwrap().name.is_empty());
    }
}

#[test]
fn defaults_fill_in() {
    let recipe = Recipe::parse(SMALL, "r.toml").unwrap();
    let training = recipe.stages[0].training().unwrap();
    assert_eq!((training.batch, training.steps, recipe.max_tokens), (32, 3, 128));
    assert_eq!(recipe.stage("tune").unwrap(), 0);
    let error = recipe.stage("no").unwrap_err();
    assert!(!error.in_file() && error.to_string().contains("tune"));
}

#[test]
fn a_recipe_survives_its_own_spelling() {
    let file = format!("{}/recipes/ko-small.toml", env!("CARGO_MANIFEST_DIR"));
    let recipe = Recipe::parse(&std::fs::read_to_string(&file).unwrap(), &file).unwrap();
    let again = Recipe::parse(&toml::to_string(&recipe).unwrap(), &file).unwrap();
    for (one, other) in recipe.stages.iter().zip(&again.stages) {
        assert_eq!(recipe.settings(one), again.settings(other));
        let json = |stage: &Stage| serde_json::to_string(stage).unwrap();
        assert_eq!(json(one), json(other));
    }
    assert_eq!(recipe.stages.len(), again.stages.len());
    assert_eq!((recipe.seed, recipe.evaluate.len()), (again.seed, again.evaluate.len()));
}

#[test]
fn mistakes_are_named() {
    assert!(
        message(&SMALL.replace("steps = 3", "step = 3"))
            .starts_with("r.toml:12: unknown field `step`")
    );
    assert!(message(&SMALL.replace("steps = 3", "steps = \"3\"")).starts_with("r.toml:12: "));
    assert!(
        message(&SMALL.replace("kind = \"sts\"\ndata", "kind = \"st\"\ndata"))
            .starts_with("r.toml:10: unknown variant `st`, expected one of `prune_vocabulary`")
    );
    assert!(message(&SMALL.replace("CC0", "**not stated**")).contains("no stated licence"));
    assert!(message(&SMALL.replace("sts/train.tsv", "sts/dev.tsv")).contains("dev or test"));
    assert!(message(&SMALL.replace("[\"sts\"]", "[\"nli\"]")).contains("no [data.nli]"));
    let missing = message(&SMALL.replace("steps = 3", ""));
    assert!(missing.starts_with("r.toml:8: stage \"tune\": steps = N is missing"), "{missing}");
    let with = |line: &str| message(&SMALL.replace("steps = 3", &format!("steps = 3\n{line}")));
    assert!(with("dimensions = [128, 64]").contains("expected rising"));
    assert!(with("precision = \"bf16\"\nquantize_bits = 7").contains("precision = \"f32\""));
    assert!(with("pairs_weight = 1.0").contains("data of kind \"pairs\""));
    assert!(with("rounding_weight = 1.0").contains("with quantize_bits"));
    assert!(with("pairs_tokens = 200").contains("with pairs_weight"));
    assert!(with("pairs_teacher_weight = 1.0").contains("stages with pairs_weight"));
    let distill = SMALL.replace("kind = \"sts\"\ndata", "kind = \"distill\"\ndata");
    let distill = message(&(distill + "middle_weight = 1.0\n"));
    assert!(distill.starts_with("r.toml:8: stage \"tune\": middle_weight"), "{distill}");
    let lines = "license = \"CC0\"\nrunning_text = true";
    assert!(message(&SMALL.replacen("license = \"CC0\"", lines, 1)).contains("kind \"sentences\""));
    let labels = SMALL.replace("kind = \"sts\"\ndata", "kind = \"label_pairs\"\ndata");
    assert!(message(&labels.replace("steps = 3", "")).contains("no such cross_encoder stage"));
    let weighted = SMALL.replace("license", "weight = 0.5\nlicense");
    let weighted = weighted.replace("steps = 3", "steps = 3\nloss = \"cosent\"");
    assert!(message(&weighted).contains("use loss = \"mse\""));
    let made = SMALL.replace("file = \"sts/train.tsv\"", "made_by = \"label\"");
    assert!(message(&made).contains("a label_pairs stage \"label\" before"));
    let nothing = SMALL.replace("file = \"sts/train.tsv\"\n", "");
    assert!(message(&nothing).contains("one of file and made_by"));
    assert!(message(&SMALL.replace("seed = 1", "seed = \"a\"")).starts_with("r.toml:3:"));
    assert!(message("name = \"x\"\nseed = 1\n").contains("there is no [[stage]]"));
}

/// An option of another kind would do nothing; it is refused where it stands.
#[test]
fn options_of_other_kinds_are_refused() {
    let with = |line: &str| message(&SMALL.replace("steps = 3", &format!("steps = 3\n{line}")));
    for option in ["middle_weight = 1.0", "teacher_share = 0.5", "vocabulary = 7", "layers = [0]"] {
        let name = option.split(' ').next().unwrap();
        let said = with(option);
        assert!(said.starts_with(&format!("r.toml:13: unknown field `{name}`")), "{said}");
        assert!(said.contains("expected one of `loss`"), "{said}");
    }
    let export = SMALL.replace("kind = \"sts\"\ndata = [\"sts\"]", "kind = \"export\"");
    assert!(message(&export).contains("unknown field `steps`, expected `model`"));
}
