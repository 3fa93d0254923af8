//! Which pairs of texts are worth a score.

use std::collections::HashSet;

use candle_core::Tensor;

use crate::error::Result;
use crate::train::data::{Rows, Target, TokenStore};

/// Sentences whose neighbours are looked for at once.
const QUERIES_AT_ONCE: usize = 256;

/// Pairs of texts of `store`, without order and without repetition.
#[derive(Default)]
pub(super) struct PairList {
    pub(super) pairs: Vec<(u32, u32)>,
    seen: HashSet<(u32, u32)>,
}

impl PairList {
    pub(super) fn add(&mut self, a: usize, b: usize) {
        let (a, b) = (a as u32, b as u32);
        if a != b && self.seen.insert((a.min(b), a.max(b))) {
            self.pairs.push((a, b));
        }
    }
}

/// Pairs that the rows themselves make: two texts of a row, neighbours in a paraphrase set.
pub(super) fn given_pairs(rows: &Rows, store: &TokenStore, list: &mut PairList) {
    let mut last: Option<(u64, usize)> = None;
    for row in &rows.rows {
        let number = |which: usize| store.index(&row.texts[which]);
        match (row.target, row.texts.len()) {
            (Target::None, _) => {}
            (Target::Set(set), 1) => {
                if let Some((_, before)) = last.filter(|(other, _)| *other == set) {
                    list.add(before, number(0));
                }
                last = Some((set, number(0)));
            }
            (_, 2) => list.add(number(0), number(1)),
            _ => {}
        }
    }
}

/// The `count` nearest other rows of each row of `vectors` (`n × hidden`, length 1), nearest first;
/// of equally near ones the earlier.
pub(super) fn nearest(vectors: &Tensor, count: usize) -> Result<Vec<Vec<u32>>> {
    let n = vectors.dim(0)?;
    let transposed = vectors.t()?;
    let mut all = Vec::with_capacity(n);
    for begin in (0..n).step_by(QUERIES_AT_ONCE) {
        let queries = vectors.narrow(0, begin, QUERIES_AT_ONCE.min(n - begin))?;
        for (at, row) in queries.matmul(&transposed)?.to_vec2::<f32>()?.into_iter().enumerate() {
            let mut others: Vec<u32> =
                (0..n as u32).filter(|&other| other as usize != begin + at).collect();
            let by_score =
                |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
            let count = count.min(others.len());
            if count > 0 && count < others.len() {
                others.select_nth_unstable_by(count - 1, by_score);
            }
            others.truncate(count);
            others.sort_by(by_score);
            all.push(others);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn neighbours_come_in_one_order() {
        let vectors = [[1.0f32, 0.0], [0.8, 0.6], [0.6, 0.8], [0.8, -0.6], [-1.0, 0.0]];
        let vectors = Tensor::new(&vectors, &Device::Cpu).unwrap();
        let found = nearest(&vectors, 2).unwrap();
        // Rows 1 and 3 are equally near to row 0.
        assert_eq!(found[0], [1, 3]);
        assert_eq!(found[1], [2, 0]);
        assert_eq!(found[4], [2, 1]);
        assert_eq!(nearest(&vectors, 9).unwrap()[3].len(), 4);
    }
}
