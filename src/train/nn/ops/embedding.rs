//! Embedding rows and their sparse gradients.

use std::borrow::Cow;

use rayon::prelude::*;

use super::fake_quant;
use super::vector::{ROW_BLOCK, simd};
use crate::quant::EMBEDDING_MAX;

/// `out[t] = words[ids[t]] + positions[position of t in its sentence]`, `hidden` values a row. With
/// `quantized`, rows of both tables are rounded to 8 bits first, as the model file holds them.
pub fn forward(
    ids: &[u32],
    offsets: &[usize],
    hidden: usize,
    words: &[f32],
    positions: &[f32],
    quantized: bool,
    out: &mut [f32],
) {
    let place = places(offsets);
    let longest = place.iter().max().map_or(0, |place| place + 1);
    let mut positions = Cow::Borrowed(&positions[..longest * hidden]);
    if quantized {
        fake_quant::symmetric(positions.to_mut(), hidden, EMBEDDING_MAX);
    }
    out.par_chunks_mut(ROW_BLOCK * hidden).enumerate().for_each(|(block, out)| {
        simd(|| {
            for (i, out) in out.chunks_exact_mut(hidden).enumerate() {
                let token = block * ROW_BLOCK + i;
                out.copy_from_slice(&words[ids[token] as usize * hidden..][..hidden]);
                if quantized {
                    fake_quant::symmetric_row(out, EMBEDDING_MAX);
                }
                let position = &positions[place[token] * hidden..][..hidden];
                out.iter_mut().zip(position).for_each(|(out, &position)| *out += position);
            }
        })
    });
}

/// The position of each token within its sentence.
pub fn places(offsets: &[usize]) -> Vec<usize> {
    offsets.windows(2).flat_map(|pair| 0..pair[1] - pair[0]).collect()
}

/// The ids that occur, ascending, and for each the tokens where it does.
pub fn occurrences(ids: &[u32]) -> (Vec<u32>, Vec<Vec<u32>>) {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&token| ids[token as usize]);
    let (mut rows, mut tokens): (Vec<u32>, Vec<Vec<u32>>) = (Vec::new(), Vec::new());
    for token in order {
        let id = ids[token as usize];
        if rows.last() != Some(&id) {
            rows.push(id);
            tokens.push(Vec::new());
        }
        if let Some(tokens) = tokens.last_mut() {
            tokens.push(token);
        }
    }
    (rows, tokens)
}

/// `out[i] = Σ dy[t]` over the tokens `t` of group `i`, in order.
pub fn backward(dy: &[f32], hidden: usize, groups: &[Vec<u32>], out: &mut [f32]) {
    assert_eq!(out.len(), groups.len() * hidden);
    out.par_chunks_mut(hidden).zip(groups).with_min_len(8).for_each(|(out, tokens)| {
        out.fill(0.0);
        simd(|| {
            for &token in tokens {
                let dy = &dy[token as usize * hidden..][..hidden];
                out.iter_mut().zip(dy).for_each(|(out, &dy)| *out += dy);
            }
        })
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::noise;
    use super::*;

    #[test]
    fn rows_are_gathered_and_gradients_summed() {
        let (ids, offsets) = ([3, 0, 3, 1, 3], [0, 2, 5]);
        let (words, positions) = (noise(8, 1), noise(6, 2));
        let mut out = vec![0.0; 10];
        forward(&ids, &offsets, 2, &words, &positions, false, &mut out);
        assert_eq!(out[6..8], [words[2] + positions[2], words[3] + positions[3]]);

        let (rows, tokens) = occurrences(&ids);
        assert_eq!((rows.as_slice(), tokens[2].as_slice()), (&[0, 1, 3][..], &[0, 2, 4][..]));
        let dy = noise(10, 3);
        let mut gradient = vec![0.0; 6];
        backward(&dy, 2, &tokens, &mut gradient);
        assert_eq!(gradient[0..4], [dy[2], dy[3], dy[6], dy[7]]);
        assert!((gradient[5] - (dy[1] + dy[5] + dy[9])).abs() < 1e-6);
    }
}
