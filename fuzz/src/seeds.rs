//! Whole files, of which mutations are made.

use munjang::config::{Activation, ModelConfig, Pooling};
use munjang::format;
use munjang::search::{Precision, VectorIndex};
use munjang::tokenizer::compact;
use munjang::weights::{Additions, FloatModel, Layer, LayerNorm, Linear, Matrix};

use super::mutate::Random;

/// A Unigram tokenizer as the shipped one is arranged.
pub fn unigram() -> Vec<u8> {
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<s>"), special(11, "<s>가")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": "[\\x{1}\\x{7F}]"}, "content": ""},
            {"type": "NFKC"},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Strip", "strip_left": true, "strip_right": true}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
            "split": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
            "split": true},
        "model": {"type": "Unigram", "unk_id": 3, "byte_fallback": false, "vocab": [
            ["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -3.4635426998138428],
            ["가", -4.0], ["나", -4.0], ["가나", -5.0], ["▁가", -4.5], ["q", -5.0], [":", -5.0],
            ["<s>가", -9.0]]}
    })
    .to_string()
    .into_bytes()
}

/// Tokenizers of every kind, compact ones included.
pub fn tokenizers() -> Vec<Vec<u8>> {
    let word_piece = serde_json::json!({
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "가": 3, "##나": 4, "q": 5}}
    });
    let bpe = serde_json::json!({
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true},
        "post_processor": {"type": "RobertaProcessing", "sep": ["q", 0], "cls": ["q", 0],
            "trim_offsets": true, "add_prefix_space": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "vocab": {"q": 0, "ê": 1, "°": 2, "ê°": 3}, "merges": ["ê °"]}
    });
    let unigram = unigram();
    let stored = compact(&unigram).into_owned();
    vec![unigram, stored, word_piece.to_string().into_bytes(), bpe.to_string().into_bytes()]
}

fn config(random: &mut Random) -> ModelConfig {
    let heads = random.pick(&[1, 2, 3]);
    ModelConfig {
        model_type: "bert".into(),
        vocab_size: 12,
        hidden_size: heads * random.pick(&[4, 12, 16, 17]),
        num_hidden_layers: 1 + random.below(2),
        num_attention_heads: heads,
        intermediate_size: random.pick(&[1, 30, 48, 100]),
        max_position_embeddings: random.pick(&[4, 8, 40]),
        layer_norm_eps: random.pick(&[1e-12, 1e-5, 1.0]),
        hidden_act: random.pick(&[Activation::Gelu, Activation::GeluTanh, Activation::Relu]),
        pooling: random.pick(&[Pooling::Mean, Pooling::Cls]),
        prefix: random.pick(&["", "q: "]).into(),
        prompts: Default::default(),
        truncation_side: Default::default(),
        pad_token_id: random.pick(&[None, Some(0)]),
        embedding_size: None,
        after_pooling: Vec::new(),
    }
}

/// Sizes of weights, some of which no embedding survives.
pub const WEIGHTS: [f32; 7] = [1.0, 1.0, 1e-3, 100.0, 9e3, 1e-30, 0.0];

/// A small random model of any shape, with weights of about `size`.
pub fn model(random: &mut Random, size: f32) -> Vec<u8> {
    let config = config(random);
    let (hidden, middle) = (config.hidden_size, config.intermediate_size);
    let mut floats = |len: usize| (0..len).map(|_| random.float() * size).collect::<Vec<f32>>();
    let mut matrix = |rows, cols| Matrix { rows, cols, data: floats(rows * cols) };
    let (words, positions) =
        (matrix(config.vocab_size, hidden), matrix(config.max_position_embeddings, hidden));
    let padding_position = config.pad_token_id.map(|_| matrix(1, hidden).data);
    let mut linear = |rows, cols| {
        let weight = matrix(rows, cols);
        let bias = matrix(1, rows).data;
        Linear { weight, bias }
    };
    let norm = |linear: Linear| LayerNorm { weight: linear.bias.clone(), bias: linear.bias };
    let embedding_norm = norm(linear(hidden, 1));
    let layers = (0..config.num_hidden_layers)
        .map(|_| Layer {
            query: linear(hidden, hidden),
            key: linear(hidden, hidden),
            value: linear(hidden, hidden),
            attention_output: linear(hidden, hidden),
            attention_norm: norm(linear(hidden, 1)),
            intermediate: linear(middle, hidden),
            output: linear(hidden, middle),
            output_norm: norm(linear(hidden, 1)),
        })
        .collect();
    let model = FloatModel {
        tokenizer_json: unigram(),
        word_embeddings: words,
        position_embeddings: positions,
        embedding_norm,
        layers,
        config,
        additions: Additions { padding_position, ..Additions::default() },
    };
    format::write(&model).expect("a model of allowed sizes is written")
}

/// An index file of each precision.
pub fn index_files() -> Vec<Vec<u8>> {
    [Precision::Float32, Precision::Int8, Precision::Binary]
        .into_iter()
        .map(|precision| {
            let mut index = VectorIndex::new(16, precision, false, Some("0123456789abcdef"))
                .expect("sizes are allowed");
            for row in 0..3 {
                let vector: Vec<f32> = (0..16).map(|at| ((row * at) as f32).cos()).collect();
                index.add(&vector).expect("whole rows of finite numbers");
            }
            index.to_bytes("[1,\"b\",3]")
        })
        .collect()
}
