//! Vectors of one length in one precision, numbered in order, and the scores of a query against them.

use std::borrow::Cow;

use super::dot::dot;
use super::scan::{self, ALIGN, PLANES};
use crate::error::{Error, ErrorKind, Result};

/// Largest dimension: sums of that many products of 8 and 12 bits stay within 31 bits.
pub const MAX_DIMENSION: usize = 4096;

/// Rows that are allocated and scored at a time.
pub(super) const BLOCK: usize = 1024;

/// Vectors whose squared length is that near to 1 are kept as they are, so that scores of an encoder's
/// embeddings are those of [`dot`].
const UNIT: f32 = 1e-5;

/// How an index keeps its vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// 8 bits a value and a scale for each vector.
    Int8,
    /// 32-bit floats: scores are [`dot`] itself.
    Float32,
    /// The sign of each value and a factor for each vector: an estimate of the cosine.
    Binary,
}

impl Precision {
    /// The name in files, on the command line and in JavaScript.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Int8 => "int8",
            Precision::Float32 => "float32",
            Precision::Binary => "binary",
        }
    }

    /// The precision called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::InputInvalid`] if there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        [Precision::Int8, Precision::Float32, Precision::Binary]
            .into_iter()
            .find(|precision| precision.name() == name)
            .ok_or_else(|| {
                invalid(format!(
                    "precision is {name:?}; expected \"int8\", \"float32\" or \"binary\""
                ))
            })
    }
}

/// [`BLOCK`] rows side by side. An absent vector has the factor NaN, so its score is NaN and never ranks.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    /// A row's score is the sum of its products times its factor times the query's.
    factors: Vec<f32>,
    codes: Vec<i8>,
    floats: Vec<f32>,
}

/// A query as the rows' precision wants it.
#[derive(Clone, Debug)]
pub(super) enum Query {
    /// 12 bits in 16, and their scale.
    Int8(Vec<i16>, f32),
    Float32(Vec<f32>),
    /// 4 bits in planes, the sum of all values, and their scale.
    Binary(Vec<i8>, i32, f32),
}

#[derive(Clone, Debug)]
pub(super) struct Vectors {
    precision: Precision,
    dimension: usize,
    len: usize,
    blocks: Vec<Block>,
}

impl Vectors {
    pub fn new(dimension: usize, precision: Precision) -> Result<Self> {
        if !(1..=MAX_DIMENSION).contains(&dimension) {
            return Err(invalid(format!(
                "dimension is {dimension}; expected 1 to {MAX_DIMENSION}"
            )));
        }
        Ok(Vectors { precision, dimension, len: 0, blocks: Vec::new() })
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn dimension(&self) -> usize {
        self.dimension
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of a row's codes in memory.
    fn code_bytes(&self) -> usize {
        match self.precision {
            Precision::Int8 => self.dimension.next_multiple_of(ALIGN),
            Precision::Float32 => 0,
            Precision::Binary => self.dimension.div_ceil(8).next_multiple_of(ALIGN),
        }
    }

    fn floats(&self) -> usize {
        if self.precision == Precision::Float32 { self.dimension } else { 0 }
    }

    /// Bytes held.
    pub fn byte_len(&self) -> usize {
        let of = |block: &Block| {
            4 * (block.factors.capacity() + block.floats.capacity()) + block.codes.capacity()
        };
        self.blocks.iter().map(of).sum()
    }

    /// A row without a vector.
    pub fn push_absent(&mut self) {
        let (codes, floats) = (self.code_bytes(), self.floats());
        if self.len.is_multiple_of(BLOCK) {
            let mut block = Block::default();
            // The first one grows with its content; a small index stays small.
            if !self.blocks.is_empty() {
                block.factors.reserve_exact(BLOCK);
                block.codes.reserve_exact(BLOCK * codes);
                block.floats.reserve_exact(BLOCK * floats);
            }
            self.blocks.push(block);
        }
        let block = self.blocks.last_mut().expect("one was just pushed");
        block.factors.push(f32::NAN);
        block.codes.resize(block.codes.len() + codes, 0);
        block.floats.resize(block.floats.len() + floats, 0.0);
        self.len += 1;
    }

    /// Forgets the last `count` rows.
    pub fn pop(&mut self, count: usize) {
        let (codes, floats) = (self.code_bytes(), self.floats());
        self.len -= count;
        self.blocks.truncate(self.len.div_ceil(BLOCK));
        if let Some(block) = self.blocks.last_mut() {
            let rows = self.len - (self.len - 1) / BLOCK * BLOCK;
            block.factors.truncate(rows);
            block.codes.truncate(rows * codes);
            block.floats.truncate(rows * floats);
        }
    }

    pub fn has(&self, row: usize) -> bool {
        !self.factor(row).is_nan()
    }

    fn factor(&self, row: usize) -> f32 {
        self.blocks[row / BLOCK].factors[row % BLOCK]
    }

    /// Takes the vector of `row` away.
    pub fn clear(&mut self, row: usize) {
        let (codes, floats) = (self.code_bytes(), self.floats());
        let (block, at) = (&mut self.blocks[row / BLOCK], row % BLOCK);
        block.factors[at] = f32::NAN;
        block.codes[at * codes..][..codes].fill(0);
        block.floats[at * floats..][..floats].fill(0.0);
    }

    /// Gives `row` a vector that [`unit`] made.
    pub fn set(&mut self, row: usize, unit: &[f32]) {
        let (codes, floats) = (self.code_bytes(), self.floats());
        let (block, at) = (&mut self.blocks[row / BLOCK], row % BLOCK);
        block.factors[at] = match self.precision {
            Precision::Int8 => quantize_i8(unit, &mut block.codes[at * codes..][..codes]),
            Precision::Binary => take_signs(unit, &mut block.codes[at * codes..][..codes]),
            Precision::Float32 => {
                block.floats[at * floats..][..floats].copy_from_slice(unit);
                1.0
            }
        };
    }

    /// Keeps the rows for which `keep` holds, in their order.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let (codes, floats) = (self.code_bytes(), self.floats());
        let mut to = 0;
        for from in (0..self.len).filter(|&row| keep(row)) {
            if from != to {
                let source = from % BLOCK;
                let (left, right) = self.blocks.split_at_mut(from / BLOCK);
                if to / BLOCK == from / BLOCK {
                    let block = &mut right[0];
                    let target = to % BLOCK;
                    block.factors[target] = block.factors[source];
                    block.codes.copy_within(source * codes..(source + 1) * codes, target * codes);
                    block
                        .floats
                        .copy_within(source * floats..(source + 1) * floats, target * floats);
                } else {
                    let (block, target) = (&mut left[to / BLOCK], to % BLOCK);
                    block.factors[target] = right[0].factors[source];
                    block.codes[target * codes..][..codes]
                        .copy_from_slice(&right[0].codes[source * codes..][..codes]);
                    block.floats[target * floats..][..floats]
                        .copy_from_slice(&right[0].floats[source * floats..][..floats]);
                }
            }
            to += 1;
        }
        self.pop(self.len - to);
    }

    /// The form in which `unit`, made by [`unit`], is compared with these rows.
    pub fn query(&self, unit: &[f32]) -> Query {
        match self.precision {
            Precision::Float32 => Query::Float32(unit.to_vec()),
            Precision::Int8 => {
                let (codes, scale) = quantize::<2047>(unit);
                let mut query: Vec<i16> = codes.map(|code| code as i16).collect();
                query.resize(self.code_bytes(), 0);
                Query::Int8(query, scale)
            }
            Precision::Binary => {
                let (codes, scale) = quantize::<7>(unit);
                let mut planes = vec![0i8; self.code_bytes() * PLANES];
                let mut sum = 0;
                for (i, code) in codes.enumerate() {
                    let code = code as i8;
                    sum += i32::from(code);
                    for plane in 0..PLANES {
                        let byte = &mut planes[(i / 128 * PLANES + plane) * 16 + i % 128 / 8];
                        *byte |= (code >> plane & 1) << (i % 8);
                    }
                }
                Query::Binary(planes, sum, scale)
            }
        }
    }

    /// The number of blocks for [`score_block`](Self::score_block).
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The cosines of `query` with the rows of one block; NaN for absent vectors.
    pub fn score_block<'a>(
        &self,
        block: usize,
        query: &Query,
        out: &'a mut [f32; BLOCK],
    ) -> &'a [f32] {
        let block = &self.blocks[block];
        let out = &mut out[..block.factors.len()];
        let rows = out.iter_mut().zip(&block.factors);
        match query {
            Query::Int8(query, scale) => {
                for ((out, factor), row) in rows.zip(block.codes.chunks_exact(query.len())) {
                    *out = scan::dot_i8(row, query) as f32 * factor * scale;
                }
            }
            Query::Binary(planes, sum, scale) => {
                for ((out, factor), row) in
                    rows.zip(block.codes.chunks_exact(planes.len() / PLANES))
                {
                    // Values under a one count +, the others −.
                    *out = (2 * scan::dot_signs(row, planes) - sum) as f32 * factor * scale;
                }
            }
            Query::Float32(query) => {
                for ((out, factor), row) in rows.zip(block.floats.chunks_exact(query.len())) {
                    *out = dot(row, query) * factor;
                }
            }
        }
        out
    }

    /// The cosine of `query` with one row.
    pub fn score(&self, row: usize, query: &Query) -> f32 {
        let (codes, floats) = (self.code_bytes(), self.floats());
        let (block, at) = (&self.blocks[row / BLOCK], row % BLOCK);
        let (factor, code) = (block.factors[at], &block.codes[at * codes..][..codes]);
        match query {
            Query::Int8(query, scale) => scan::dot_i8(code, query) as f32 * factor * scale,
            Query::Binary(planes, sum, scale) => {
                (2 * scan::dot_signs(code, planes) - sum) as f32 * factor * scale
            }
            Query::Float32(query) => dot(&block.floats[at * floats..][..floats], query) * factor,
        }
    }

    /// Bytes of one row in [`export`](Self::export).
    pub fn exported_bytes(&self) -> usize {
        match self.precision {
            Precision::Int8 => self.dimension + 4,
            Precision::Float32 => 4 * self.dimension,
            Precision::Binary => self.code_bytes() + 4,
        }
    }

    /// Appends a row as it is kept: its factor (not for floats) and its codes, little-endian. An absent
    /// vector is NaN and zeros.
    pub fn export(&self, row: usize, out: &mut Vec<u8>) {
        let (codes, floats) = (self.code_bytes(), self.floats());
        let (block, at) = (&self.blocks[row / BLOCK], row % BLOCK);
        if self.precision == Precision::Float32 {
            let absent = block.factors[at].is_nan();
            let values = block.floats[at * floats..][..floats].iter();
            out.extend(values.flat_map(|&x| if absent { f32::NAN } else { x }.to_le_bytes()));
        } else {
            out.extend(block.factors[at].to_le_bytes());
            let kept = self.exported_bytes() - 4;
            out.extend(block.codes[at * codes..][..kept].iter().map(|&code| code as u8));
        }
    }

    /// Why `bytes` is no row that [`export`](Self::export) can have written; `None` if it is one.
    pub fn fault(&self, bytes: &[u8]) -> Option<String> {
        if self.precision == Precision::Float32 {
            let values: Vec<f32> = floats(bytes).collect();
            if values.iter().all(|value| value.is_nan()) {
                return None;
            }
            if values.iter().all(|value| value.is_finite())
                && (dot(&values, &values) - 1.0).abs() <= 4.0 * UNIT
            {
                return None;
            }
            return Some("its values are not a vector of length 1".into());
        }
        let (factor, codes) = bytes.split_at(4);
        let factor = floats(factor).next().unwrap_or(f32::NAN);
        if factor.is_nan() {
            return codes
                .iter()
                .any(|&code| code != 0)
                .then(|| "it has values but no scale".into());
        }
        if !(factor > 0.0 && factor <= 1.001) {
            return Some(format!("its scale is {factor}; expected a number above 0, at most 1"));
        }
        let stray = match self.precision {
            Precision::Int8 => codes.contains(&0x80),
            // What pads a row is zero.
            _ => (self.dimension..8 * codes.len()).any(|bit| codes[bit / 8] >> (bit % 8) & 1 == 1),
        };
        stray.then(|| "it has values that no vector gives".into())
    }

    /// Gives `row` what [`export`](Self::export) wrote; [`fault`](Self::fault) has found nothing.
    pub fn import(&mut self, row: usize, bytes: &[u8]) {
        let (codes, width) = (self.code_bytes(), self.floats());
        let (block, at) = (&mut self.blocks[row / BLOCK], row % BLOCK);
        if self.precision == Precision::Float32 {
            let target = &mut block.floats[at * width..][..width];
            for (target, value) in target.iter_mut().zip(floats(bytes)) {
                *target = if value.is_nan() { 0.0 } else { value };
            }
            let absent = floats(bytes).next().is_some_and(f32::is_nan);
            block.factors[at] = if absent { f32::NAN } else { 1.0 };
        } else {
            let (factor, stored) = bytes.split_at(4);
            let factor = floats(factor).next().unwrap_or(f32::NAN);
            block.factors[at] = if factor.is_nan() { f32::NAN } else { factor };
            for (target, &code) in block.codes[at * codes..][..codes].iter_mut().zip(stored) {
                *target = code as i8;
            }
        }
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value))
}

/// `vector` with length 1; `what` names it in errors.
///
/// # Errors
/// [`ErrorKind::InputInvalid`] if it has another dimension, values that are not finite, or no direction.
pub(super) fn unit<'a>(
    vector: &'a [f32],
    dimension: usize,
    what: impl Fn() -> String,
) -> Result<Cow<'a, [f32]>> {
    if vector.len() != dimension {
        return Err(invalid(format!(
            "{} has {} values; the index holds vectors of {dimension}",
            what(),
            vector.len()
        )));
    }
    let largest = largest(vector);
    if !largest.is_finite() {
        let at = vector.iter().position(|value| !value.is_finite()).unwrap_or(0);
        return Err(invalid(format!(
            "{} holds {} at {at}; expected finite numbers",
            what(),
            vector[at]
        )));
    }
    if largest == 0.0 {
        return Err(invalid(format!("{} is all zeros and has no direction to compare", what())));
    }
    if (dot(vector, vector) - 1.0).abs() <= UNIT {
        return Ok(Cow::Borrowed(vector));
    }
    // Scaled first, so that squares neither overflow nor vanish.
    let mut scaled: Vec<f32> = vector.iter().map(|value| value / largest).collect();
    let length = dot(&scaled, &scaled).sqrt();
    scaled.iter_mut().for_each(|value| *value /= length);
    Ok(Cow::Owned(scaled))
}

/// The largest magnitude; infinite or NaN if any value is. In lanes, so that it takes SIMD.
fn largest(vector: &[f32]) -> f32 {
    let (chunks, rest) = vector.as_chunks::<16>();
    let mut lanes = [0u32; 16];
    // Without their signs, bits of floats order as their magnitudes do, NaN above infinity.
    let mut take =
        |lane: usize, value: f32| lanes[lane] = lanes[lane].max(value.to_bits() & 0x7fff_ffff);
    for chunk in chunks {
        for (lane, &value) in chunk.iter().enumerate() {
            take(lane, value);
        }
    }
    rest.iter().enumerate().for_each(|(lane, &value)| take(lane, value));
    f32::from_bits(lanes.into_iter().max().unwrap_or(0))
}

/// Adding and subtracting this rounds to the nearest integer, ties to even.
const MAGIC: f32 = 1.5 * (1u32 << 23) as f32;

/// `unit` in steps of its largest magnitude / `MAX`, and that step.
fn quantize<const MAX: i32>(unit: &[f32]) -> (impl Iterator<Item = i32>, f32) {
    let largest = largest(unit);
    let inverse = MAX as f32 / largest;
    let codes = unit.iter().map(move |value| {
        // Within ±MAX: a quotient just above it rounds to it.
        (value * inverse + MAGIC - MAGIC) as i32
    });
    (codes, largest / MAX as f32)
}

fn quantize_i8(unit: &[f32], out: &mut [i8]) -> f32 {
    let (codes, scale) = quantize::<127>(unit);
    for (out, code) in out.iter_mut().zip(codes) {
        *out = code as i8;
    }
    scale
}

/// Signs as bits, and the factor by which sums of the query's values under them become cosines: a vector is
/// taken for its signs times a length such that its cosine with itself is 1.
fn take_signs(unit: &[f32], out: &mut [i8]) -> f32 {
    out.fill(0);
    let mut norm = 0.0f32;
    for (i, &value) in unit.iter().enumerate() {
        out[i / 8] |= i8::from(value > 0.0) << (i % 8);
        norm += value.abs();
    }
    1.0 / norm
}

pub(super) fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InputInvalid, message)
}
