//! Joining meaning and words.

use std::collections::HashMap;
use std::hash::Hash;

/// The weight of meaning against words where nobody says.
pub const DEFAULT_SEMANTIC: f32 = 0.4;

/// The constant of reciprocal rank fusion in its authors' paper.
pub const RRF_K: f32 = 60.0;

/// `semantic · cosine + (1 − semantic) · lexical`, where `lexical` is a BM25 score divided by its bound.
/// What is absent leaves the other half alone; with neither there is no score.
pub fn fused_score(semantic: f32, cosine: Option<f32>, lexical: Option<f32>) -> Option<f32> {
    match (cosine, lexical) {
        (Some(cosine), Some(lexical)) => Some(semantic * cosine + (1.0 - semantic) * lexical),
        (Some(cosine), None) => Some(cosine),
        (None, lexical) => lexical,
    }
}

/// Reciprocal rank fusion: `Σ 1 / (k + rank)` over the rankings that have an item, best first; equal scores
/// in order of first appearance (Cormack, Clarke and Büttcher, 2009). For joining a ranking whose scores say
/// nothing; where both halves have scores, [`fused_score`] ranks better.
pub fn reciprocal_rank_fusion<T: Clone + Eq + Hash>(rankings: &[&[T]], k: f32) -> Vec<(T, f32)> {
    let mut places: HashMap<&T, usize> = HashMap::new();
    let mut fused: Vec<(T, f32)> = Vec::new();
    for ranking in rankings {
        for (at, item) in ranking.iter().enumerate() {
            let place = *places.entry(item).or_insert_with(|| {
                fused.push((item.clone(), 0.0));
                fused.len() - 1
            });
            fused[place].1 += 1.0 / (k + 1.0 + at as f32);
        }
    }
    fused.sort_by(|a, b| b.1.total_cmp(&a.1));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_half_leaves_the_other() {
        assert_eq!(fused_score(0.5, Some(0.5), Some(0.25)), Some(0.375));
        assert_eq!(fused_score(0.5, Some(0.5), None), Some(0.5));
        assert_eq!(fused_score(0.5, None, Some(0.25)), Some(0.25));
        assert_eq!(fused_score(0.5, None, None), None);
    }

    #[test]
    fn ranks_are_joined() {
        let fused = reciprocal_rank_fusion(&[&["a", "b", "c"], &["c", "d"]], RRF_K);
        let names: Vec<&str> = fused.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["c", "a", "b", "d"]);
        assert_eq!(fused[0].1, 1.0 / 63.0 + 1.0 / 61.0);
    }
}
