//! Texts that rounding moves most: very short ones, special tokens, pieces at random.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Blank texts, and the first one to three pieces of some of `ids`.
pub(super) fn short_texts(ids: &[&[u32]]) -> Vec<Vec<u32>> {
    const COUNT: usize = 7;
    let cut = |(at, ids): (usize, &&[u32])| {
        let (&last, rest) = ids.split_last()?;
        Some(rest.iter().take(1 + at % 4).copied().chain([last]).collect())
    };
    ids.iter().enumerate().take(COUNT).filter_map(cut).collect()
}

/// Texts of special tokens, which a page's visitor can type: all of them in turn, one of the pieces of
/// some of `ids` between any two, and without.
pub(super) fn special_texts(ids: &[&[u32]], special: &[u32]) -> Vec<Vec<u32>> {
    const COUNT: usize = 3;
    if special.is_empty() {
        return Vec::new();
    }
    let of = |(at, ids): (usize, &&[u32])| {
        let (&last, rest) = ids.split_last()?;
        let (&first, pieces) = rest.split_first()?;
        let mut text = vec![first];
        for i in 0..special.len() {
            text.push(special[(i + at + pieces.len()) % special.len()]);
            if at != 0 {
                text.extend(pieces.get(i));
            }
        }
        text.push(last);
        Some(text)
    };
    ids.iter().enumerate().take(COUNT).filter_map(of).collect()
}

/// Texts of pieces that training data hardly has (other scripts, jamo, symbols): any pieces between the ends
/// of some of `ids`.
pub(super) fn rare_texts(
    ids: &[&[u32]],
    vocabulary: u32,
    random: &mut ChaCha8Rng,
) -> Vec<Vec<u32>> {
    const COUNT: usize = 8;
    let mut of = |ids: &&[u32]| {
        let (&first, &last) = (ids.first()?, ids.last()?);
        let pieces = random.random_range(2..=10);
        let mut text = vec![first];
        text.extend((0..pieces).map(|_| random.random_range(0..vocabulary)));
        text.push(last);
        Some(text)
    };
    ids.iter().take(COUNT).filter_map(&mut of).collect()
}

/// The ids of a `tokenizer.json`'s special tokens, the first few: some reserve hundreds.
pub(super) fn special_ids(tokenizer_json: &[u8]) -> Vec<u32> {
    let json: serde_json::Value = serde_json::from_slice(tokenizer_json).unwrap_or_default();
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let special = added.filter(|token| token["special"] == true);
    special.filter_map(|token| token["id"].as_u64()?.try_into().ok()).take(8).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn special_texts_hold_every_special_token_between_the_ends() {
        let json = br#"{"added_tokens":[{"id":0,"special":true},{"id":7,"special":true},{"id":9,"special":false}]}"#;
        let special = special_ids(json);
        assert_eq!(special, [0, 7]);
        let ids: [&[u32]; 4] = [&[1, 20, 21, 2], &[1, 30, 2], &[1, 2], &[1, 40, 2]];
        let texts = special_texts(&ids, &special);
        assert_eq!(texts, [vec![1, 0, 7, 2], vec![1, 0, 30, 7, 2], vec![1, 0, 7, 2]]);
        assert!(special_texts(&ids, &special_ids(b"not json")).is_empty());
    }

    #[test]
    fn rare_texts_are_of_any_pieces_between_the_ends() {
        let ids: [&[u32]; 3] = [&[1, 20, 21, 2], &[1, 30, 2], &[]];
        let of = |seed| rare_texts(&ids, 50, &mut ChaCha8Rng::seed_from_u64(seed));
        let texts = of(1);
        assert_eq!(texts.len(), 2);
        for text in &texts {
            assert!((4..=12).contains(&text.len()) && text.iter().all(|&id| id < 50));
            assert_eq!((text[0], text[text.len() - 1]), (1, 2));
        }
        assert_eq!(of(1), texts);
        assert_ne!(of(2), texts);
    }
}
