//! What must hold for any bytes: an answer, never a panic; the same one from every table of kernels.

use munjang::Encoder;
use munjang::internals::kernels;
use munjang::search::{SearchOptions, VectorIndex};
use munjang::tokenizer::Tokenizer;

/// Texts that a loaded model or tokenizer is asked for.
const TEXTS: [&str; 5] = [
    "",
    "가나 q: 가",
    "<s>가\u{1}ﬁ 😀\u{fdfa}",
    "\u{1112}\u{1161}\u{11ab} é\n\u{3000}나",
    "가나다 가나다 가나다 가나다",
];

/// Loads a model file in every table. Whether it loaded.
pub fn model_file(file: &[u8]) -> bool {
    // Whether it loads, and then whether it encodes: the bits or the error's code.
    type Answer = Result<Result<Vec<u32>, &'static str>, &'static str>;
    let mut answers = kernels::available().into_iter().map(|table| -> Answer {
        let encoder = Encoder::with_kernels(file, table).map_err(|error| error.code())?;
        for text in TEXTS {
            let _ = encoder.count_tokens(text);
        }
        let bits = encoder.encode_batch(&TEXTS).map(|encoded| bits(&encoded.embeddings));
        Ok(bits.map_err(|error| error.code()))
    });
    let first = answers.next().expect("there is always the scalar table");
    for other in answers {
        assert!(first == other, "two tables of kernels give different answers");
    }
    first.is_ok()
}

/// Loads a tokenizer, compact or a `tokenizer.json`.
pub fn tokenizer(file: &[u8]) -> bool {
    const MAX_TOKENS: usize = 32;
    let Ok(tokenizer) = Tokenizer::from_bytes(file, "q: ", MAX_TOKENS) else { return false };
    for text in TEXTS {
        let counted = tokenizer.count_tokens(text);
        let Ok(encoding) = tokenizer.encode(text) else { continue };
        assert!(encoding.ids.len() <= MAX_TOKENS, "more ids than asked for");
        assert!(
            encoding.ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()),
            "an id beyond the vocabulary"
        );
        assert!(encoding.token_count >= encoding.ids.len());
        if let Ok(counted) = counted {
            assert_eq!(counted, encoding.token_count, "a short text counted in two ways");
        }
    }
    true
}

/// Loads an index file and searches in it.
pub fn index_file(file: &[u8]) -> bool {
    let Ok((index, _)) = VectorIndex::from_bytes(file, None) else { return false };
    let hits = index.search(&vec![0.5; index.dimension()], SearchOptions::default());
    assert!(hits.is_ok_and(|hits| hits.iter().all(|hit| hit.score.is_finite())));
    true
}

/// Encodes the lines of a text with `encoders`, one for each table: alone, in a batch and in every
/// table the bits are the same.
pub fn texts(encoders: &[Encoder], text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.split('\n').collect();
    let batches: Vec<Vec<u32>> = encoders
        .iter()
        .map(|encoder| {
            bits(&encoder.encode_batch(&lines).expect("every text has an embedding").embeddings)
        })
        .collect();
    assert!(batches.windows(2).all(|pair| pair[0] == pair[1]), "two tables differ");
    let Some((encoder, batch)) = encoders.first().zip(batches.first()) else { return false };
    let rows = batch.chunks_exact(encoder.config().hidden_size);
    for (line, row) in lines.iter().zip(rows) {
        let alone = encoder.encode(line).expect("every text has an embedding");
        assert!(bits(&alone) == row, "alone and in a batch differ");
    }
    true
}

/// One encoder for each table, of one model file.
pub fn encoders(file: &[u8]) -> Vec<Encoder> {
    kernels::available()
        .into_iter()
        .map(|table| Encoder::with_kernels(file, table).expect("the file is whole"))
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
