//! The encoder: token ids to sentence embeddings.
//!
//! Sentences are packed one after another without padding; a block of rows goes through all layers
//! together, so that each panel of weights is read once for many tokens. No sum ever crosses from
//! one sentence to another, and every scale belongs to one row or one sentence: an embedding does
//! not depend on what else is in the batch.

mod after_pooling;
#[cfg(not(target_arch = "wasm32"))]
mod manifest;
mod scratch;

use std::sync::Mutex;

use crate::bytes::AlignedBytes;
use crate::config::{ModelConfig, Pooling};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FORMAT_VERSION, ModelFile, Norm, QuantizedLayer};
use crate::kernels::{
    self, AttentionArgs, Kernels, LayerNormArgs, PackedMatrix, QuantizedRows, RowsMut, padded,
};
use crate::tokenizer::Tokenizer;
use scratch::Scratch;

#[cfg(not(target_arch = "wasm32"))]
pub use manifest::Manifest;

/// Tokens that go through the layers together; a longer sentence goes alone.
const GROUP_TOKENS: usize = 3 * BLOCK_ROWS;
/// Rows that go through the matrix products of a layer together: their activations stay in the
/// second-level cache beside the weights' panels.
const BLOCK_ROWS: usize = 96;
/// Texts that one task tokenizes and encodes.
const TEXTS_PER_TASK: usize = 64;

/// What a loaded model is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The model id: 16 hex digits of a hash over the model's content.
    pub model_id: String,
    /// Version of the file format.
    pub format_version: u32,
    /// Size of the model file in bytes.
    pub bytes: usize,
    /// Name of the kernels in use: `scalar`, `simd128`, `relaxed`, `relaxed-dot`, `avx2`, `avx512vnni`,
    /// `amx`.
    pub kernel: &'static str,
    /// Sizes and choices.
    pub config: ModelConfig,
}

/// Embeddings of a batch and what happened to its texts. [`row`](Self::row) and
/// [`rows`](Self::rows) are the embeddings one by one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Encoded {
    /// `n × dimension`, row-major, in input order, each row of length 1.
    pub embeddings: Vec<f32>,
    /// Values of one embedding.
    pub hidden_size: usize,
    /// Tokens of each text before truncation, prefix and special tokens included. Of a text many
    /// times longer than the model takes only the beginning is read, and this is a lower bound;
    /// [`Encoder::count_tokens`] reads everything.
    pub token_counts: Vec<u32>,
    /// For each text whether tokens were cut off.
    pub truncated: Vec<bool>,
}

impl Encoded {
    fn new(hidden_size: usize) -> Self {
        let (embeddings, token_counts, truncated) = Default::default();
        Encoded { embeddings, hidden_size, token_counts, truncated }
    }

    /// How many texts there were.
    pub fn len(&self) -> usize {
        self.token_counts.len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.token_counts.is_empty()
    }

    /// The embedding of text `index`: `hidden_size` values of length 1.
    ///
    /// # Panics
    /// If there are not as many texts.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.embeddings[index * self.hidden_size..(index + 1) * self.hidden_size]
    }

    /// The embeddings in input order, `hidden_size` values each.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.embeddings.chunks_exact(self.hidden_size)
    }
}

/// A sentence encoder: a checked model file, its tokenizer and the kernels of this machine.
///
/// It is immutable and can be shared between threads.
pub struct Encoder {
    file: ModelFile,
    tokenizer: Tokenizer,
    kernels: &'static Kernels,
    scratch: Mutex<Vec<Scratch>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Encoder").field(&self.info()).finish()
    }
}

impl Encoder {
    /// Checks a model file (see [`crate::format`]) and readies it. An [`AlignedBytes`] is used in
    /// place; a slice or vector is copied once.
    ///
    /// # Errors
    /// A kind that starts with `Weights` or `Tokenizer`, or `ConfigInvalid`, naming what was found
    /// and what was expected.
    ///
    /// # The fastest kernels
    /// are chosen for this CPU; [`info`](Self::info) names them. On a CPU with AMX, Linux is asked, once for
    /// the process, to let it use these registers; from then on signal frames are larger, and an
    /// alternative signal stack (`sigaltstack`) that is too small for them is refused. A process that
    /// cannot have that sets the environment variable `MUNJANG_AMX=0` before it loads the first model: the
    /// kernels are then those of AVX-512, and the embeddings the same.
    pub fn from_bytes(bytes: impl Into<AlignedBytes>) -> Result<Self> {
        Self::with_kernels(bytes, kernels::select())
    }

    /// Like [`from_bytes`](Self::from_bytes) with a chosen table of kernels; every table gives the same
    /// bits. For this crate's own benches, tests and fuzz targets.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    #[doc(hidden)]
    pub fn with_kernels(bytes: impl Into<AlignedBytes>, kernels: &'static Kernels) -> Result<Self> {
        let file = ModelFile::parse(bytes.into())?;
        let tokenizer = Self::tokenizer_of(&file)?;
        Ok(Self::from_parts(file, tokenizer, kernels))
    }

    /// The tokenizer in a model file, which it fits.
    pub(crate) fn tokenizer_of(file: &ModelFile) -> Result<Tokenizer> {
        let config = &file.config;
        let tokenizer = Tokenizer::from_bytes(
            file.tokenizer(),
            &config.prefix,
            config.max_position_embeddings,
        )?
        .truncating(config.truncation_side);
        tokenizer.check_vocab_size(config.vocab_size)?;
        Ok(tokenizer)
    }

    /// What [`tokenizer_of`](Self::tokenizer_of) gave, with the file that it is from.
    pub(crate) fn from_parts(
        file: ModelFile,
        tokenizer: Tokenizer,
        kernels: &'static Kernels,
    ) -> Self {
        Encoder { file, tokenizer, kernels, scratch: Mutex::new(Vec::new()) }
    }

    /// What was loaded.
    pub fn info(&self) -> ModelInfo {
        ModelInfo {
            model_id: self.file.model_id.clone(),
            format_version: FORMAT_VERSION,
            bytes: self.file.len(),
            kernel: self.kernels.name,
            config: self.file.config.clone(),
        }
    }

    /// Values of a sentence embedding.
    pub fn dimension(&self) -> usize {
        self.config().dimension()
    }

    /// Sizes and choices of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.file.config
    }

    /// The sentence embedding of `text`: [`dimension`](Self::dimension) values of length 1.
    ///
    /// Any text has one, blank ones too (their special tokens'). Text beyond the model's
    /// `max_position_embeddings` tokens is cut off; [`encode_batch`](Self::encode_batch) reports it.
    ///
    /// # Errors
    /// As [`encode_batch`](Self::encode_batch).
    pub fn encode(&self, text: &str) -> Result<Vec<f32>> {
        Ok(self.encode_batch(&[text])?.embeddings)
    }

    /// The embeddings of many texts, in input order, with a truncation report. Natively the work is
    /// spread over the threads of the current rayon pool.
    ///
    /// # Errors
    /// `TokenizerInvalid` if the tokenizer cannot encode a text, `InputInvalid` if it gives no
    /// token at all, `NonFinite` if the model's weights lead out of the finite numbers.
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Encoded> {
        let parts =
            map_chunks(texts, TEXTS_PER_TASK, |texts, first| self.encode_task(texts, first))?;
        let mut all = Encoded::new(self.dimension());
        for part in parts {
            all.embeddings.extend(part.embeddings);
            all.token_counts.extend(part.token_counts);
            all.truncated.extend(part.truncated);
        }
        Ok(all)
    }

    fn encode_task<S: AsRef<str>>(&self, texts: &[S], first: usize) -> Result<Encoded> {
        let mut ids = Vec::with_capacity(texts.len());
        let mut encoded = Encoded::new(self.dimension());
        for text in texts {
            let encoding = self.tokenizer.encode(text.as_ref())?;
            encoded.token_counts.push(u32::try_from(encoding.token_count).unwrap_or(u32::MAX));
            encoded.truncated.push(encoding.is_truncated());
            ids.push(encoding.ids);
        }
        encoded.embeddings = self.encode_ids_task(&ids, first)?;
        Ok(encoded)
    }

    /// The embeddings of token ids, `n × dimension`, row-major. The caller brings the special
    /// tokens; the model's prefix is not added.
    ///
    /// # Errors
    /// `InputInvalid` if a sentence is empty, longer than `max_position_embeddings` or holds an id
    /// beyond the vocabulary, `NonFinite` if the model's weights lead out of the finite numbers.
    pub fn encode_ids<I: AsRef<[u32]> + Sync>(&self, batch: &[I]) -> Result<Vec<f32>> {
        let parts =
            map_chunks(batch, TEXTS_PER_TASK, |batch, first| self.encode_ids_task(batch, first))?;
        Ok(parts.concat())
    }

    /// The states of every token after each of `layers` (counted from 0), each
    /// `tokens × hidden_size`, sentence after sentence.
    ///
    /// # Errors
    /// As [`encode_ids`](Self::encode_ids); `InputInvalid` for a layer that does not exist.
    #[cfg(feature = "train")]
    pub(crate) fn token_states<I: AsRef<[u32]> + Sync>(
        &self,
        batch: &[I],
        layers: &[usize],
    ) -> Result<Vec<Vec<f32>>> {
        const SENTENCES_PER_TASK: usize = 8;
        let count = self.file.layers.len();
        if let Some(layer) = layers.iter().find(|&&layer| layer >= count) {
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!("states of layer {layer} wanted; the model has {count} layers"),
            ));
        }
        let hidden = self.config().hidden_size;
        let width = padded(hidden);
        let parts = map_chunks(batch, SENTENCES_PER_TASK, |batch, first| {
            self.check_ids(batch, first)?;
            let mut scratch = self.take_scratch();
            let mut states = vec![Vec::new(); layers.len()];
            for (sentence, ids) in batch.iter().enumerate() {
                let tokens = ids.as_ref().len();
                let group = std::slice::from_ref(ids);
                self.embed_group(group, tokens, &mut scratch);
                for (index, layer) in self.file.layers.iter().enumerate() {
                    self.layer(layer, group, tokens, &mut scratch);
                    for (_, states) in
                        layers.iter().zip(&mut states).filter(|(wanted, _)| **wanted == index)
                    {
                        for row in scratch.hidden[..tokens * width].chunks_exact(width) {
                            states.extend_from_slice(&row[..hidden]);
                        }
                    }
                }
                if !all_finite(&scratch.hidden[..tokens * width]) {
                    return Err(not_finite(first + sentence));
                }
            }
            self.keep_scratch(scratch);
            Ok(states)
        })?;
        let mut all = vec![Vec::new(); layers.len()];
        for part in parts {
            all.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
        }
        Ok(all)
    }

    /// Tokens of `text` before truncation, prefix and special tokens included.
    ///
    /// # Errors
    /// `TokenizerInvalid` if the tokenizer cannot encode the text.
    pub fn count_tokens(&self, text: &str) -> Result<usize> {
        self.tokenizer.count_tokens(text)
    }

    /// The ids of `text` as the model sees them: prefix and special tokens included, truncated.
    ///
    /// # Errors
    /// As [`count_tokens`](Self::count_tokens).
    pub fn token_ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode(text)?.ids)
    }

    /// `first` is the number of the first sentence in the caller's batch, for messages.
    fn check_ids<I: AsRef<[u32]>>(&self, batch: &[I], first: usize) -> Result<()> {
        let config = self.config();
        for (i, ids) in batch.iter().enumerate() {
            let ids = ids.as_ref();
            let problem = if ids.is_empty() {
                "has no tokens".to_owned()
            } else if ids.len() > config.max_position_embeddings {
                format!(
                    "has {} tokens; the model takes at most {}",
                    ids.len(),
                    config.max_position_embeddings
                )
            } else if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab_size) {
                format!("has the token id {id}; the model's ids end at {}", config.vocab_size - 1)
            } else {
                continue;
            };
            return Err(Error::new(
                ErrorKind::InputInvalid,
                format!("sentence {} {problem}", first + i),
            ));
        }
        Ok(())
    }

    /// Encodes sentences, cut into groups of at most [`GROUP_TOKENS`] tokens. `first` is the number
    /// of the first sentence in the caller's batch, for messages.
    fn encode_ids_task<I: AsRef<[u32]>>(&self, batch: &[I], first: usize) -> Result<Vec<f32>> {
        self.check_ids(batch, first)?;
        let config = self.config();
        let mut scratch = self.take_scratch();
        let dimension = config.dimension();
        let mut embeddings = vec![0.0; batch.len() * dimension];
        let mut done = 0;
        while done < batch.len() {
            let mut tokens = batch[done].as_ref().len();
            let mut end = done + 1;
            while end < batch.len() && tokens + batch[end].as_ref().len() <= GROUP_TOKENS {
                tokens += batch[end].as_ref().len();
                end += 1;
            }
            let out = &mut embeddings[done * dimension..end * dimension];
            self.encode_group(&batch[done..end], tokens, &mut scratch, out);
            done = end;
        }
        self.keep_scratch(scratch);
        match embeddings.chunks_exact(dimension).position(|row| !row[0].is_finite()) {
            None => Ok(embeddings),
            Some(i) => Err(not_finite(first + i)),
        }
    }

    fn take_scratch(&self) -> Scratch {
        let kept = self.scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        kept.unwrap_or_default()
    }

    fn keep_scratch(&self, scratch: Scratch) {
        self.scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(scratch);
    }

    fn encode_group<I: AsRef<[u32]>>(
        &self,
        batch: &[I],
        tokens: usize,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let width = padded(self.config().hidden_size);
        self.run_group(batch, tokens, scratch);
        let mut row = 0;
        for (ids, out) in batch.iter().zip(out.chunks_exact_mut(self.dimension())) {
            let end = row + ids.as_ref().len();
            self.pool(&scratch.hidden[row * width..end * width], out);
            row = end;
        }
    }

    /// Leaves the last layer's states of a group in `scratch.hidden`.
    fn run_group<I: AsRef<[u32]>>(&self, batch: &[I], tokens: usize, scratch: &mut Scratch) {
        self.embed_group(batch, tokens, scratch);
        for layer in &self.file.layers {
            self.layer(layer, batch, tokens, scratch);
        }
    }

    /// Leaves what the first layer reads in `scratch.hidden`.
    fn embed_group<I: AsRef<[u32]>>(&self, batch: &[I], tokens: usize, scratch: &mut Scratch) {
        let width = padded(self.config().embedding_width());
        scratch.reserve(self.config(), tokens, BLOCK_ROWS.min(tokens));
        let mut row = 0;
        for ids in batch {
            let mut position = 0;
            for &id in ids.as_ref() {
                let out = &mut scratch.hidden[row * width..(row + 1) * width];
                if self.config().pad_token_id == Some(id) {
                    self.embed(id, None, out);
                } else {
                    self.embed(id, Some(position), out);
                    position += 1;
                }
                row += 1;
            }
        }
        let embeddings = &mut scratch.hidden[..tokens * width];
        let norm = self.norm_of(&self.file.embedding_norm, self.config().embedding_width());
        (self.kernels.add_layer_norm)(embeddings, None, norm);
        if let Some(projection) = &self.file.embedding_projection {
            self.project(projection, tokens, scratch);
        }
    }

    /// Word plus position embedding, before layer normalization. `position` is counted over the
    /// tokens that are not the padding token; that has a position of its own, or, in models that
    /// keep none, counts as every other.
    fn embed(&self, id: u32, position: Option<usize>, out: &mut [f32]) {
        let row = |table, row| self.file.row(table, row).expect("ids and lengths were checked");
        let (word, word_scale) = row(&self.file.word_embeddings, id as usize);
        let (place, place_scale) = match (position, &self.file.padding_position) {
            (None, Some(table)) => row(table, 0),
            (position, _) => row(&self.file.position_embeddings, position.unwrap_or(0)),
        };
        for ((out, &word), &place) in out.iter_mut().zip(word).zip(place) {
            *out = word as f32 * word_scale + place as f32 * place_scale;
        }
    }

    /// ELECTRA's linear layer from the embeddings' width to the states'.
    fn project(&self, matrix: &PackedMatrix, tokens: usize, scratch: &mut Scratch) {
        let (from, to) = (matrix.cols(), matrix.rows());
        let Scratch { hidden, quantized, scales, .. } = scratch;
        let mut projected = vec![0.0; tokens * to];
        for at in (0..tokens).step_by(BLOCK_ROWS) {
            let rows = BLOCK_ROWS.min(tokens - at);
            let data = &mut quantized[..rows * from];
            let scales = &mut scales[..rows];
            let x = &mut hidden[at * from..(at + rows) * from];
            (self.kernels.quantize_rows)(x, from, None, RowsMut { data: &mut *data, scales });
            let out = &mut projected[at * to..(at + rows) * to];
            (self.kernels.gemm)(QuantizedRows { data, stride: from, scales }, matrix, out);
        }
        hidden[..tokens * to].copy_from_slice(&projected);
    }

    fn norm<'a>(&'a self, norm: &Norm) -> LayerNormArgs<'a> {
        self.norm_of(norm, self.config().hidden_size)
    }

    fn norm_of<'a>(&'a self, norm: &Norm, columns: usize) -> LayerNormArgs<'a> {
        let (weight, bias) = self.file.norm(norm);
        LayerNormArgs { columns, weight, bias, eps: self.config().layer_norm_eps }
    }

    fn layer<I: AsRef<[u32]>>(
        &self,
        layer: &QuantizedLayer,
        batch: &[I],
        tokens: usize,
        scratch: &mut Scratch,
    ) {
        let config = self.config();
        let width = padded(config.hidden_size);
        let heads = config.num_attention_heads * padded(config.head_size());
        let middle = padded(config.intermediate_size);
        let Scratch { hidden, query_key_value, context, product, quantized, scales, attention } =
            scratch;
        let mut linear = |x: &mut [f32], matrix: &PackedMatrix, activation, out: &mut [f32]| {
            let data = &mut quantized[..x.len()];
            let scales = &mut scales[..x.len() / matrix.cols()];
            (self.kernels.quantize_rows)(
                x,
                matrix.cols(),
                activation,
                RowsMut { data: &mut *data, scales: &mut *scales },
            );
            (self.kernels.gemm)(QuantizedRows { data, stride: matrix.cols(), scales }, matrix, out);
        };

        for from in (0..tokens).step_by(BLOCK_ROWS) {
            let to = tokens.min(from + BLOCK_ROWS);
            let out = &mut query_key_value[from * 3 * heads..to * 3 * heads];
            linear(&mut hidden[from * width..to * width], &layer.query_key_value, None, out);
        }
        let mut row = 0;
        for ids in batch {
            let end = row + ids.as_ref().len();
            let args = AttentionArgs {
                query_key_value: &query_key_value[row * 3 * heads..end * 3 * heads],
                heads: config.num_attention_heads,
                head_size: config.head_size(),
            };
            let context = &mut context[row * heads..end * heads];
            (self.kernels.attention)(args, attention, context);
            row = end;
        }
        for from in (0..tokens).step_by(BLOCK_ROWS) {
            let to = tokens.min(from + BLOCK_ROWS);
            let hidden = &mut hidden[from * width..to * width];
            let context = &mut context[from * heads..to * heads];
            let (product, rest) = product.split_at_mut((to - from) * width);
            linear(context, &layer.attention_output, None, product);
            (self.kernels.add_layer_norm)(hidden, Some(product), self.norm(&layer.attention_norm));

            let expanded = &mut rest[..(to - from) * middle];
            linear(hidden, &layer.intermediate, None, expanded);
            linear(expanded, &layer.output, Some(config.hidden_act), product);
            (self.kernels.add_layer_norm)(hidden, Some(product), self.norm(&layer.output_norm));
        }
    }

    /// Pools the states of one sentence, runs the modules after pooling and scales the result to
    /// length 1. States that are not all finite, and a sum that is zero or not finite, give NaN, which
    /// the caller reports.
    ///
    /// The states of the last layer show whatever went wrong before: a row that once was not finite
    /// is so in its residual, and stays so through every layer normalization. Between two of these,
    /// products cannot leave the finite numbers (see the bounds of values in [`crate::format`]).
    fn pool(&self, states: &[f32], out: &mut [f32]) {
        if !all_finite(states) {
            out.fill(f32::NAN);
            return;
        }
        if self.config().after_pooling.is_empty() {
            self.pool_states(states, out);
            return after_pooling::normalize(out);
        }
        let mut pooled = vec![0.0; self.config().hidden_size];
        self.pool_states(states, &mut pooled);
        after_pooling::run(&self.file, pooled, out);
    }

    fn pool_states(&self, states: &[f32], out: &mut [f32]) {
        let width = padded(self.config().hidden_size);
        out.copy_from_slice(&states[..out.len()]);
        if self.config().pooling == Pooling::Mean {
            for state in states.chunks_exact(width).skip(1) {
                for (sum, &x) in out.iter_mut().zip(state) {
                    *sum += x;
                }
            }
            let tokens = (states.len() / width) as f32;
            out.iter_mut().for_each(|x| *x /= tokens);
        }
    }
}

/// Whether there is neither an infinity nor NaN among `values`: in integers, which the compiler does
/// side by side.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().fold(0, |largest, x| largest.max(x.to_bits() & EXPONENT)) < EXPONENT
}

fn not_finite(sentence: usize) -> Error {
    Error::new(
        ErrorKind::NonFinite,
        format!(
            "the embedding of sentence {sentence} is not a finite direction: the model's weights are \
             damaged"
        ),
    )
}

/// Applies `f` to chunks of `items` (with the number of each chunk's first item), over all threads
/// where there are any, and keeps the order. Of several errors the first in order is returned.
fn map_chunks<T: Sync, R: Send>(
    items: &[T],
    size: usize,
    f: impl Fn(&[T], usize) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    #[cfg(feature = "parallel")]
    if items.len() > size {
        use rayon::prelude::*;
        let results: Vec<Result<R>> =
            items.par_chunks(size).enumerate().map(|(i, chunk)| f(chunk, i * size)).collect();
        return results.into_iter().collect();
    }
    items.chunks(size).enumerate().map(|(i, chunk)| f(chunk, i * size)).collect()
}

#[cfg(test)]
mod tests;
