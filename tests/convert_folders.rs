//! Folders in every layout that people have, against what sentence-transformers and transformers
//! compute for them (`fixtures/make_folders.py`), and what is done with what they say.
#![cfg(feature = "cli")]

mod golden_files;
#[path = "golden_files/reference.rs"]
mod reference;

use std::path::{Path, PathBuf};

use golden_files::{Golden, cosine, fixtures, small};
use munjang::config::{Pooling, TruncationSide};
use munjang::convert::{ConvertOptions, Converted, Kind, read_folder};
use munjang::tokenizer::Tokenizer;
use munjang::{Encoder, format};
use serde_json::{Value, json};
use tempfile::TempDir;

const FOLDERS: [&str; 11] = [
    "sts-current",
    "sts-old",
    "dense",
    "electra-small",
    "electra-base",
    "xlmr-pieces",
    "roberta-files",
    "left-in-json",
    "lower-by-class",
    "distilkobert",
    "advice-saved",
];

fn folder(name: &str) -> PathBuf {
    fixtures().join("folders").join(name)
}

fn texts(name: &str) -> Vec<String> {
    let bytes = std::fs::read(fixtures().join("folders/texts.json")).unwrap();
    let mut texts: Vec<String> = serde_json::from_slice(&bytes).unwrap();
    if name == "distilkobert" {
        // Its golden ids are of sentencepiece itself, which does not find special tokens in texts.
        texts.retain(|text| !text.contains('['));
    }
    texts
}

fn convert(path: &Path) -> Converted {
    read_folder(path, &ConvertOptions::default()).unwrap_or_else(|error| panic!("{error:#}"))
}

/// A folder that may be changed.
struct Copy(TempDir);

impl Copy {
    fn of(path: &Path) -> Self {
        let copy = Copy(TempDir::new().unwrap());
        copy_all(path, copy.0.path());
        copy
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(self, file: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
        std::fs::write(self.path(file), content).unwrap();
        self
    }

    fn json(self, file: &str, value: Value) -> Self {
        self.write(file, value.to_string())
    }

    fn edit(self, file: &str, edit: impl FnOnce(&mut Value)) -> Self {
        let mut value = read_json(&self.path(file));
        edit(&mut value);
        self.json(file, value)
    }

    fn without(self, file: &str) -> Self {
        std::fs::remove_file(self.path(file)).unwrap();
        self
    }

    fn convert(&self) -> Converted {
        convert(self.0.path())
    }

    /// Asserts the error's code and that its message names everything in `parts`.
    fn fails(&self, code: &str, parts: &[&str]) {
        self.fails_with(&ConvertOptions::default(), code, parts);
    }

    fn fails_with(&self, options: &ConvertOptions, code: &str, parts: &[&str]) {
        let error = read_folder(self.0.path(), options).expect_err(code);
        let message = format!("{error:#}");
        assert_eq!(error.code(), code, "{message}");
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
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

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A folder of sentence-transformers around a small checkpoint.
fn around(name: &str, modules: &[(&str, &str)]) -> Copy {
    let list: Vec<Value> = modules
        .iter()
        .enumerate()
        .map(|(idx, (kind, path))| {
            json!({"idx": idx, "name": idx.to_string(), "path": path,
                "type": format!("sentence_transformers.models.{kind}")})
        })
        .collect();
    Copy::of(&small(name)).json("modules.json", list.into())
}

fn encode(model: &Converted, text: &str) -> Vec<f32> {
    Encoder::from_bytes(format::write(&model.model).unwrap()).unwrap().encode(text).unwrap()
}

/// The definition of every folder: what the reference libraries compute.
#[test]
fn ids_and_embeddings_are_the_libraries_own() {
    for name in FOLDERS {
        let Converted { model, report } = convert(&folder(name));
        let golden = Golden::read(fixtures().join(format!("folders/{name}.safetensors")));
        let (texts, expected_ids) = (texts(name), golden.ids());
        assert_eq!(texts.len(), expected_ids.len(), "{name}");
        let config = &model.config;
        let tokenizer = Tokenizer::from_bytes(
            &model.tokenizer_json,
            &config.prefix,
            config.max_position_embeddings,
        )
        .unwrap()
        .truncating(config.truncation_side);
        for (text, expected) in texts.iter().zip(&expected_ids) {
            assert_eq!(
                &tokenizer.encode(text).unwrap().ids,
                expected,
                "{name}: {text:?}\n{report}"
            );
        }
        let expected = golden.f32s("embeddings");
        let dimension = config.dimension();
        assert_eq!(expected.len(), dimension * texts.len(), "{name}");
        let encoder = Encoder::from_bytes(format::write(&model).unwrap()).unwrap();
        assert_eq!(encoder.dimension(), dimension);
        let ours = encoder.encode_batch(&texts).unwrap().embeddings;
        let mut lowest = 1.0f64;
        for (row, ids) in expected_ids.iter().enumerate() {
            let expected = &expected[row * dimension..][..dimension];
            for (ours, expected) in reference::embed(&model, ids).iter().zip(expected) {
                assert!((ours - expected).abs() < 1e-4, "{name}: {:?}", texts[row]);
            }
            lowest = lowest.min(cosine(&ours[row * dimension..][..dimension], expected));
        }
        println!("{name}: lowest cosine {lowest:.6}");
        assert!(lowest >= 0.999, "{name}: {lowest}");
    }
}

/// A model written and read again is the same, and so are its bits in every table of kernels.
#[test]
fn every_table_of_kernels_gives_the_same_bits() {
    for name in FOLDERS {
        let bytes = format::write(&convert(&folder(name)).model).unwrap();
        let mut results = munjang::internals::kernels::available().into_iter().map(|kernels| {
            let encoder = Encoder::with_kernels(bytes.as_slice(), kernels).unwrap();
            let embeddings = encoder.encode_batch(&texts(name)).unwrap().embeddings;
            embeddings.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        });
        let first = results.next().unwrap();
        assert!(results.all(|other| other == first), "{name}");
    }
}

/// RoBERTa gives a padding token in a text a position of its own and does not count it.
#[test]
fn padding_tokens_in_a_text_are_not_counted() {
    for name in ["roberta", "xlm-roberta"] {
        let model = convert(&small(name));
        assert_eq!(model.model.config.pad_token_id, Some(1));
        let encoder = Encoder::from_bytes(format::write(&model.model).unwrap()).unwrap();
        for ids in [vec![0, 9, 1, 1, 20, 21, 2], vec![1], vec![0, 1, 2], vec![1, 1, 1, 30]] {
            let ours = encoder.encode_ids(&[&ids]).unwrap();
            let cosine = cosine(&ours, &reference::embed(&model.model, &ids));
            assert!(cosine > 0.99, "{name} {ids:?}: {cosine}");
        }
        // What follows the padding stands where it would stand without, but for attention.
        let mut counted = model.model.clone();
        counted.config.pad_token_id = None;
        counted.additions.padding_position = None;
        let ids = vec![0, 9, 1, 1, 20, 21, 2];
        let (own, other) = (reference::embed(&model.model, &ids), reference::embed(&counted, &ids));
        assert!(cosine(&own, &other) < 0.999, "{name}");
    }
}

#[test]
fn modules_are_walked_wherever_they_are() {
    let pooled = |path: &str, config: Value| {
        around("bert", &[("Transformer", ""), ("Pooling", path)])
            .json(&format!("{path}/config.json"), config)
            .convert()
            .model
            .config
            .pooling
    };
    assert_eq!(pooled("2_Pooling", json!({"pooling_mode_cls_token": true})), Pooling::Cls);
    assert_eq!(
        pooled("a/b", json!({"pooling_mode": "cls", "embedding_dimension": 48})),
        Pooling::Cls
    );
    assert_eq!(pooled("1_Pooling", json!({"pooling_mode": "mean"})), Pooling::Mean);
    assert_eq!(pooled("1_Pooling", json!({"pooling_mode": ["cls"]})), Pooling::Cls);
    assert_eq!(pooled("1_Pooling", json!({})), Pooling::Mean);
    // The new key wins over old ones, as in the library.
    let both = json!({"pooling_mode": "cls", "pooling_mode_mean_tokens": true});
    assert_eq!(pooled("1_Pooling", both), Pooling::Cls);

    let order = |modules: &[(&str, &str)], parts: &[&str]| {
        let mut copy = around("bert", modules);
        for (kind, path) in modules.iter().filter(|(kind, _)| *kind == "Pooling") {
            copy = copy.json(&format!("{path}/config.json"), json!({"pooling_mode": "mean"}));
            let _ = kind;
        }
        copy.fails("checkpoint_unsupported", parts);
    };
    order(&[("Transformer", "")], &["modules.json", "Pooling"]);
    order(&[("Pooling", "1_Pooling"), ("Transformer", "")], &["Pooling"]);
    order(&[("Transformer", ""), ("Normalize", "2"), ("Pooling", "1_P")], &["Normalize", "after"]);
    for kind in
        ["CNN", "LSTM", "WordWeights", "Router", "Asym", "WeightedLayerPooling", "StaticEmbedding"]
    {
        order(&[("Transformer", ""), (kind, "1_Other")], &[kind, "1_Other"]);
    }
    let copy = around("bert", &[("Transformer", "")])
        .json("modules.json", json!([{"type": "custom_st.Transformer", "path": ""}]));
    copy.fails("checkpoint_unsupported", &["custom_st.Transformer"]);
    for path in ["../bert", "/etc", "a/../../b"] {
        around("bert", &[("Transformer", path)]).fails("checkpoint_invalid", &["inside"]);
    }
}

#[test]
fn poolings_that_munjang_does_not_run_are_named_and_can_be_replaced() {
    for (config, name) in [
        (json!({"pooling_mode": "max"}), "max"),
        (
            json!({"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true}),
            "max and mean",
        ),
        (json!({"pooling_mode": ["mean", "lasttoken"]}), "mean and lasttoken"),
        (json!({"pooling_mode_weightedmean_tokens": true}), "weightedmean"),
        (json!({"pooling_mode_mean_sqrt_len_tokens": true}), "mean_sqrt_len_tokens"),
    ] {
        let copy = around("bert", &[("Transformer", ""), ("Pooling", "1_Pooling")])
            .json("1_Pooling/config.json", config);
        copy.fails("checkpoint_unsupported", &[name, "--pooling"]);
        // The advice, followed.
        let options = ConvertOptions { pooling: Some(Pooling::Cls), ..Default::default() };
        let Converted { model, report } = read_folder(copy.0.path(), &options).unwrap();
        assert_eq!(model.config.pooling, Pooling::Cls);
        assert!(report.to_string().contains(&format!("asks for {name}")), "{report}");
    }
    let copy = around("bert", &[("Transformer", ""), ("Pooling", "1_Pooling")])
        .json("1_Pooling/config.json", json!({"pooling_mode": "median"}));
    copy.fails("checkpoint_invalid", &["median", "weightedmean"]);
}

#[test]
fn dense_modules_are_applied_or_refused() {
    let base = || Copy::of(&folder("dense"));
    let converted = base().convert();
    assert_eq!(converted.model.config.dimension(), 20);
    let config = |edit: fn(&mut Value)| {
        let modules = read_json(&folder("dense").join("modules.json"));
        let path = modules[3]["path"].as_str().unwrap().to_owned();
        base().edit(&format!("{path}/config.json"), edit)
    };
    config(|value| value["activation_function"] = "torch.nn.modules.activation.Mish".into())
        .fails("checkpoint_unsupported", &["Mish", "Tanh"]);
    config(|value| value["use_residual"] = true.into())
        .fails("checkpoint_unsupported", &["use_residual"]);
    config(|value| value["module_input_name"] = "token_embeddings".into())
        .fails("checkpoint_unsupported", &["token_embeddings"]);
    config(|value| value["out_features"] = 1_000_000_000.into())
        .fails("checkpoint_invalid", &["out_features", "1000000000"]);
    config(|value| value["in_features"] = 31.into())
        .fails("checkpoint_invalid", &["linear.weight", "31"]);
    // Sigmoid, ReLU and GELU, and no word about it: tanh by default.
    let mut seen = Vec::new();
    for activation in ["Sigmoid", "ReLU", "GELU", "Tanh", ""] {
        let modules = read_json(&folder("dense").join("modules.json"));
        let path = format!("{}/config.json", modules[3]["path"].as_str().unwrap());
        let copy = base().edit(&path, |value| {
            if activation.is_empty() {
                value.as_object_mut().unwrap().remove("activation_function");
            } else {
                value["activation_function"] =
                    format!("torch.nn.modules.activation.{activation}").into();
            }
        });
        let converted = copy.convert();
        let ids = [2, 30, 31, 3];
        let encoder = Encoder::from_bytes(format::write(&converted.model).unwrap()).unwrap();
        let ours = encoder.encode_ids(&[ids]).unwrap();
        assert!(cosine(&ours, &reference::embed(&converted.model, &ids)) > 0.999, "{activation}");
        seen.push(ours);
    }
    assert_eq!(seen[3], seen[4]);
    assert!((0..3).all(|i| cosine(&seen[i], &seen[3]) < 0.9999));
}

#[test]
fn limits_of_tokens_are_taken_over() {
    let limit = |copy: Copy| copy.convert().model.config.max_position_embeddings;
    let st = |config: Value| {
        around("bert", &[("Transformer", ""), ("Pooling", "1_Pooling")])
            .json("1_Pooling/config.json", json!({"pooling_mode": "mean"}))
            .json("sentence_bert_config.json", config)
    };
    let tokenizer = |length: Value| json!({"tokenizer_class": "BertTokenizer", "do_lower_case": false, "model_max_length": length});
    assert_eq!(limit(Copy::of(&small("bert"))), 64);
    assert_eq!(limit(st(json!({"max_seq_length": 16}))), 16);
    assert_eq!(limit(st(json!({"max_seq_length": null}))), 64);
    assert_eq!(limit(st(json!({"max_seq_length": 512}))), 64);
    assert_eq!(limit(st(json!({"processing_kwargs": {"text": {"max_length": 12}}}))), 12);
    let plain =
        |length: Value| Copy::of(&small("bert")).json("tokenizer_config.json", tokenizer(length));
    assert_eq!(limit(plain(json!(24))), 24);
    assert_eq!(limit(plain(json!(1e30))), 64);
    assert_eq!(limit(plain(json!(1000000000000000019884624838656u128 as f64))), 64);
    // sentence-transformers' own limit replaces the tokenizer's.
    let both =
        st(json!({"max_seq_length": 32})).json("tokenizer_config.json", tokenizer(json!(24)));
    assert_eq!(limit(both), 32);
    // Two for <s> and <pad>'s row before the first.
    assert_eq!(limit(Copy::of(&small("roberta"))), 130);
    plain(json!(0)).fails("checkpoint_invalid", &["model_max_length", "0"]);
    plain(json!("many")).fails("checkpoint_invalid", &["model_max_length"]);
    let options = ConvertOptions { max_tokens: Some(20), ..Default::default() };
    let wider = read_folder(plain(json!(12)).0.path(), &options).unwrap();
    assert_eq!(wider.model.config.max_position_embeddings, 20);
}

/// More positions than munjang runs: the advice, followed, gives a right model.
#[test]
fn too_many_positions_are_cut_as_advised() {
    let copy = Copy::of(&small("bert")).edit("config.json", |config| {
        config["max_position_embeddings"] = 2000.into();
    });
    copy.fails("config_invalid", &["max_position_embeddings is 2000", "--max-tokens"]);
    let weights = std::fs::read(copy.path("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let mut rows = Vec::new();
    let positions = "embeddings.position_embeddings.weight";
    let longer = tensors.tensor(positions).unwrap();
    while rows.len() < 2000 * 48 * 4 {
        rows.extend_from_slice(longer.data());
    }
    rows.truncate(2000 * 48 * 4);
    let view = |name: &str| {
        let tensor = tensors.tensor(name).unwrap();
        let (shape, data) = match name == positions {
            true => (vec![2000, 48], rows.as_slice()),
            false => (tensor.shape().to_vec(), tensor.data()),
        };
        safetensors::tensor::TensorView::new(tensor.dtype(), shape, data).unwrap()
    };
    let views: Vec<_> = tensors.names().into_iter().map(|name| (name, view(name))).collect();
    let copy = copy.write("model.safetensors", safetensors::serialize(views, None).unwrap());
    let options = ConvertOptions { max_tokens: Some(64), ..Default::default() };
    let cut = read_folder(copy.0.path(), &options).unwrap();
    let text = "오늘은 날씨가 좋아서 공원에 갔다.";
    assert_eq!(encode(&cut, text), encode(&convert(&small("bert")), text));
}

#[test]
fn prompts_become_prefixes() {
    let prefix = |options: ConvertOptions| {
        read_folder(&folder("sts-current"), &options).map(|found| found.model.config.prefix)
    };
    let named = |name: &str| ConvertOptions { prompt: Some(name.into()), ..Default::default() };
    let given = |text: &str| ConvertOptions { prefix: Some(text.into()), ..Default::default() };
    assert_eq!(prefix(ConvertOptions::default()).unwrap(), "문장: ");
    assert_eq!(prefix(named("query")).unwrap(), "질문: ");
    assert_eq!(prefix(named("document")).unwrap(), "");
    assert_eq!(prefix(given("")).unwrap(), "");
    assert_eq!(prefix(given("- ")).unwrap(), "- ");
    let error = prefix(named("passage")).unwrap_err();
    assert_eq!(error.code(), "input_invalid");
    assert!(error.to_string().contains("\"query\"") && error.to_string().contains("passage"));
    let both = ConvertOptions { prefix: Some("x".into()), ..named("query") };
    assert_eq!(prefix(both).unwrap_err().code(), "input_invalid");
    let prompts = convert(&folder("sts-current")).model.config.prompts;
    assert_eq!(prompts.len(), 2);
    assert_eq!(prompts["query"], "질문: ");

    // Prompts that pooling leaves out.
    let copy = Copy::of(&folder("sts-current")).edit("1_Pooling/config.json", |config| {
        config["include_prompt"] = false.into();
    });
    copy.fails("checkpoint_unsupported", &["include_prompt", "--prefix \"\""]);
    let plain = read_folder(copy.0.path(), &given("")).unwrap();
    assert_eq!(plain.model.config.prefix, "");
    let copy =
        Copy::of(&folder("sts-current")).edit("config_sentence_transformers.json", |config| {
            config["default_prompt_name"] = "other".into();
        });
    copy.fails("checkpoint_invalid", &["default_prompt_name", "other", "query"]);
    let copy =
        Copy::of(&folder("sts-current")).edit("config_sentence_transformers.json", |config| {
            config["model_type"] = "SparseEncoder".into();
        });
    copy.fails("checkpoint_unsupported", &["SparseEncoder"]);
}

#[test]
fn cut_on_the_left_the_end_of_a_text_counts() {
    let long = "오늘은 날씨가 좋아서 공원에 갔다. ".repeat(40);
    let text = |end: &str| format!("{long}{end}");
    for name in ["xlmr-pieces", "left-in-json"] {
        let converted = convert(&folder(name));
        assert_eq!(converted.model.config.truncation_side, TruncationSide::Left);
        assert!(converted.report.to_string().contains("left"), "{}", converted.report);
        let (a, b) =
            (encode(&converted, &text("비가 온다.")), encode(&converted, &text("책을 샀다.")));
        assert!(cosine(&a, &b) < 0.999);
        let other = encode(&converted, &format!("전혀 다른 시작 {}", text("비가 온다.")));
        assert_eq!(a, other);
    }
    let copy = Copy::of(&small("bert")).json(
        "tokenizer_config.json",
        json!({"truncation_side": "middle", "do_lower_case": false}),
    );
    copy.fails("checkpoint_invalid", &["truncation_side", "middle"]);
}

#[test]
fn tokenizer_settings_are_obeyed_as_the_class_says() {
    let ids = |copy: &Copy, text: &str| {
        let model = copy.convert().model;
        Tokenizer::from_bytes(&model.tokenizer_json, "", 64).unwrap().encode(text).unwrap().ids
    };
    let with = |config: Value| Copy::of(&small("bert")).json("tokenizer_config.json", config);
    let as_it_stands = ids(&Copy::of(&small("bert")), "Oi 서울");
    // By transformers 5: do_lower_case of a BertTokenizer replaces what tokenizer.json says.
    let lowered = ids(
        &with(
            json!({"tokenizer_class": "BertTokenizer", "do_lower_case": true, "strip_accents": false}),
        ),
        "Oi 서울",
    );
    assert_ne!(lowered, as_it_stands);
    assert_eq!(
        ids(
            &with(json!({"tokenizer_class": "BertTokenizerFast", "do_lower_case": false})),
            "Oi 서울"
        ),
        as_it_stands
    );
    for class in ["PreTrainedTokenizerFast", "TokenizersBackend", "KoBertTokenizer"] {
        let copy = with(json!({"tokenizer_class": class, "do_lower_case": true}));
        assert_eq!(ids(&copy, "Oi 서울"), as_it_stands, "{class}");
    }
    // A class that munjang does not know is not passed over.
    let copy = with(json!({"tokenizer_class": "T5Tokenizer"}));
    assert!(copy.convert().report.to_string().contains("T5Tokenizer"));
    let strict = ConvertOptions { strict: true, ..Default::default() };
    copy.fails_with(&strict, "checkpoint_unsupported", &["--strict", "T5Tokenizer"]);
    // Special tokens around a text, where tokenizer.json has none.
    let copy = with(json!({"tokenizer_class": "BertTokenizer", "do_lower_case": false}))
        .edit("tokenizer.json", |json| json["post_processor"] = Value::Null);
    assert_eq!(ids(&copy, "Oi 서울"), as_it_stands);
    // Another first token, by name; and one found in texts that tokenizer.json does not list.
    let copy = with(
        json!({"tokenizer_class": "BertTokenizer", "do_lower_case": false, "cls_token": "[MASK]",
        "added_tokens_decoder": {"9": {"content": "@", "special": true}}}),
    );
    let special = ids(&copy, "Oi 서울");
    assert_eq!((special[0], &special[1..]), (4, &as_it_stands[1..]));
    with(json!({"split_special_tokens": true}))
        .fails("checkpoint_unsupported", &["split_special_tokens"]);
    // do_lower_case of sentence-transformers comes before the tokenizer's own.
    let copy = around("bert", &[("Transformer", ""), ("Pooling", "1_Pooling")])
        .json("1_Pooling/config.json", json!({"pooling_mode": "mean"}))
        .json("sentence_bert_config.json", json!({"do_lower_case": true}));
    assert_eq!(ids(&copy, "Oi 서울"), ids(&copy, "oi 서울"));
}

/// KoBERT's vocabulary is told from WordPiece's, and its advice does not lead to unknown tokens.
#[test]
fn pieces_in_vocab_txt_are_taken_for_what_they_are() {
    let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n▁오늘\n은\n▁비\n가\n▁옵\n니다\n.\n";
    let copy = Copy::of(&small("bert")).without("tokenizer.json").write("vocab.txt", vocab);
    copy.fails("checkpoint_invalid", &["vocab.txt", "sentencepiece", ".model"]);
    let copy = copy.write("tokenizer_78b3253a26.model", "\n");
    copy.fails("checkpoint_invalid", &["tokenizer_78b3253a26.model", "sentencepiece"]);
    // What AutoTokenizer makes of that folder.
    let pieces: serde_json::Map<String, Value> =
        vocab.lines().enumerate().map(|(id, piece)| (piece.to_owned(), id.into())).collect();
    let copy = copy.json(
        "tokenizer.json",
        json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [], "normalizer": {"type": "BertNormalizer", "clean_text": true,
        "handle_chinese_chars": true, "strip_accents": null, "lowercase": false},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": pieces}}),
    );
    copy.fails(
        "checkpoint_invalid",
        &["WordPiece tokenizer over the pieces", "vocab.txt and its .model"],
    );
    // The advice, followed: DistilKoBERT's own files.
    let kobert = Copy::of(&folder("distilkobert"));
    let (a, b) = ("서울에서 기차를 탔다.", "밖에 비가 내린다.");
    let converted = kobert.convert();
    assert!(cosine(&encode(&converted, a), &encode(&converted, b)) < 0.999);
    // A .model of another vocabulary.
    let mut lines = std::fs::read_to_string(kobert.path("vocab.txt")).unwrap();
    lines.push_str("▁없는조각\n");
    let kobert = kobert.write("vocab.txt", lines);
    kobert.fails("checkpoint_invalid", &["do not belong together", "▁없는조각"]);
    // Korean that a tokenizer does not know is told, and strict conversions refuse it.
    let copy = Copy::of(&small("bert"))
        .without("tokenizer.json")
        .write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##c\n");
    let report = copy.convert().report;
    assert!(
        report.of(Kind::Doubtful).any(|finding| finding.what.contains("do_lower_case")),
        "{report}"
    );
    let strict = ConvertOptions { strict: true, ..Default::default() };
    copy.fails_with(&strict, "checkpoint_unsupported", &["unknown"]);
}

/// The class of most faults: something in the folder that nothing looks at. Every key of every file of
/// settings, and every file, is either read or told.
#[test]
fn nothing_in_a_folder_is_passed_over() {
    let strict = ConvertOptions { strict: true, ..Default::default() };
    for name in FOLDERS {
        let mut settings = Vec::new();
        let mut folders = vec![(folder(name), String::new())];
        while let Some((path, inside)) = folders.pop() {
            for entry in std::fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                let file = format!("{inside}{}", entry.file_name().to_str().unwrap());
                if entry.path().is_dir() {
                    folders.push((entry.path(), format!("{file}/")));
                } else if file.ends_with(".json") {
                    settings.push(file);
                }
            }
        }
        for file in &settings {
            let is_settings = !file.ends_with("tokenizer.json")
                && !file.ends_with("modules.json")
                && !file.ends_with(".index.json")
                && !file.ends_with("vocab.json");
            if is_settings {
                let copy =
                    Copy::of(&folder(name)).edit(file, |value| value["surprise"] = json!({"a": 1}));
                let report = copy.convert().report;
                let told = report
                    .of(Kind::NotUsed)
                    .any(|finding| finding.file == *file && finding.what.contains("surprise"));
                assert!(told, "{name}/{file}:\n{report}");
                copy.fails_with(&strict, "checkpoint_unsupported", &["surprise", file]);
            }
            // And every file of settings that is there is named.
            let report = convert(&folder(name)).report;
            assert!(
                report.findings.iter().any(|finding| finding.file.contains(file.as_str())),
                "{name}/{file}:\n{report}"
            );
        }
        let copy = Copy::of(&folder(name)).json("3_Surprise/config.json", json!({}));
        let report = copy.convert().report;
        assert!(
            report.of(Kind::NotUsed).any(|finding| finding.file == "3_Surprise/config.json"),
            "{report}"
        );
        copy.fails_with(&strict, "checkpoint_unsupported", &["3_Surprise"]);
    }
    let clean =
        ["sts-current", "dense", "electra-small", "xlmr-pieces", "roberta-files", "distilkobert"];
    for name in clean {
        read_folder(&folder(name), &strict).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    Copy::of(&small("bert"))
        .json("adapter_config.json", json!({}))
        .fails("checkpoint_unsupported", &["adapter", "merge"]);
}

#[test]
fn settings_that_change_the_encoder_are_refused_by_name() {
    let st = |config: Value| {
        around("bert", &[("Transformer", ""), ("Pooling", "1_Pooling")])
            .json("1_Pooling/config.json", json!({"pooling_mode": "mean"}))
            .json("sentence_bert_config.json", config)
    };
    for (config, part) in [
        (json!({"transformer_task": "fill-mask"}), "fill-mask"),
        (json!({"module_output_name": "scores"}), "scores"),
        (json!({"tokenizer_name_or_path": "other/one"}), "other/one"),
        (json!({"tokenizer_args": {"add_prefix_space": true}}), "add_prefix_space"),
        (json!({"processing_kwargs": {"text": {"truncation": false}}}), "truncation"),
        (
            json!({"processing_kwargs": {"text": {"add_special_tokens": false}}}),
            "add_special_tokens",
        ),
        (json!({"modality_config": {"text": {"method": "other"}}}), "method"),
    ] {
        st(config).fails("checkpoint_unsupported", &[part]);
    }
    st(json!({"model_args": {"attn_implementation": "sdpa", "torch_dtype": "float16"}})).convert();
    let config = |key: &str, value: Value| {
        Copy::of(&small("bert")).edit("config.json", |config| config[key] = value)
    };
    for (key, value) in [
        ("quantization_config", json!({"bits": 4})),
        ("pruned_heads", json!({"0": [1]})),
        ("is_encoder_decoder", json!(true)),
        ("position_embedding_type", json!("relative_key")),
    ] {
        config(key, value).fails("checkpoint_unsupported", &[key]);
    }
    config("pruned_heads", json!({})).convert();
    let copy = Copy::of(&small("bert")).edit("tokenizer.json", |json| {
        json["post_processor"]["single"][0]["SpecialToken"]["type_id"] = 1.into();
    });
    copy.fails("checkpoint_unsupported", &["post_processor", "type"]);
}

/// Whatever a damaged pickle says, it is an error and nothing worse.
#[test]
fn damaged_pickles_are_errors() {
    for name in ["electra-small", "sts-old", "distilkobert"] {
        let inner = if name == "sts-old" { "0_Transformer/" } else { "" };
        let file = format!("{inner}pytorch_model.bin");
        let whole = std::fs::read(folder(name).join(&file)).unwrap();
        for len in [0, 1, 3, 30, 100, 1000, whole.len() / 2, whole.len() - 1] {
            let copy = Copy::of(&folder(name)).write(&file, &whole[..len]);
            copy.fails("checkpoint_invalid", &["pytorch_model.bin", &format!("({len} bytes)")]);
        }
        // Bytes of the program turned over: an error or other weights, never a panic.
        let step = 37;
        for at in (0..whole.len().min(6000)).step_by(step) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let copy = Copy::of(&folder(name)).write(&file, damaged);
            let _ = read_folder(copy.0.path(), &ConvertOptions::default());
        }
    }
    let copy = Copy::of(&folder("distilkobert"))
        .write("pytorch_model.bin", "version https://git-lfs.github.com/spec/v1\n");
    copy.fails("checkpoint_invalid", &["Git LFS"]);
}

/// Safetensors and pickles of the same weights are the same model.
#[test]
fn the_form_of_the_weights_does_not_matter() {
    let saved = convert(&folder("advice-saved"));
    let files = convert(&folder("electra-small"));
    assert_eq!(saved.model.layers, files.model.layers);
    assert_eq!(saved.model.additions, files.model.additions);
    let text = "오늘은 Oi 서울를 봤다.";
    assert_eq!(encode(&saved, text), encode(&files, text));
}
