//! The pieces of a vocabulary as a tree of characters.

use crate::tokenizer::compact::Pieces;

/// No piece ends at this node.
pub(super) const NO_PIECE: u32 = u32::MAX;

/// The pieces as a tree of characters. Nodes are numbered level by level, so that the children of
/// all nodes lie one after another and a node's end where the next one's begin.
pub(super) struct Tree {
    labels: Vec<char>,
    /// First child of each node, and one entry more.
    children: Vec<u32>,
    /// The piece that ends at each node.
    pub(super) pieces: Vec<u32>,
    /// The root's child for each of the first 65,536 characters, 0 for none: a search among the
    /// root's thousands of children would be half of the work.
    roots: Vec<u16>,
}

impl Tree {
    pub(super) const ROOT: usize = 0;

    /// `None` if more than 65,535 characters begin pieces.
    pub(super) fn new(pieces: &Pieces) -> Option<Self> {
        // Nodes as they are met, parents before children, siblings in rising order.
        let mut labels = vec!['\0'];
        let mut ends = vec![NO_PIECE];
        let mut parents = vec![0u32];
        let mut depths = vec![0u8];
        // The way to the last node: how many bytes lead to each node of it.
        let mut open = vec![(0, 0u32)];
        pieces.walk(|piece, known, rest| {
            while open.last().is_some_and(|&(bytes, _)| bytes > known) {
                open.pop();
            }
            let (mut bytes, mut node) = open.last().copied().unwrap_or_default();
            for c in rest.chars() {
                // A piece has at most 255 bytes, so this is at most 255; and a vocabulary at most
                // 2²⁴ bytes.
                depths.push(open.len() as u8);
                parents.push(node);
                node = labels.len() as u32;
                labels.push(c);
                ends.push(NO_PIECE);
                bytes += c.len_utf8();
                open.push((bytes, node));
            }
            ends[node as usize] = piece.id;
        });

        // Level by level now. Within a level they have been met in order already.
        let mut next = [0u32; 257];
        for &depth in &depths {
            next[depth as usize + 1] += 1;
        }
        for depth in 1..next.len() {
            next[depth] += next[depth - 1];
        }
        let mut tree = Tree {
            labels: vec!['\0'; labels.len()],
            children: vec![0; labels.len() + 1],
            pieces: vec![NO_PIECE; labels.len()],
            roots: vec![0; 1 << 16],
        };
        let mut places = vec![0u32; labels.len()];
        for (node, &depth) in depths.iter().enumerate() {
            let place = next[depth as usize];
            next[depth as usize] += 1;
            places[node] = place;
            tree.labels[place as usize] = labels[node];
            tree.pieces[place as usize] = ends[node];
            if node > 0 {
                // How many children the parent has, for now, one place further on.
                tree.children[places[parents[node] as usize] as usize + 1] += 1;
            }
        }
        tree.children[0] = 1;
        for node in 0..labels.len() {
            tree.children[node + 1] += tree.children[node];
        }
        for node in tree.children[0]..tree.children[1] {
            let node_id = u16::try_from(node).ok()?;
            if let Some(root) = tree.roots.get_mut(tree.labels[node as usize] as usize) {
                *root = node_id;
            }
        }
        Some(tree)
    }

    pub(super) fn child(&self, node: usize, c: char) -> Option<usize> {
        if node == Self::ROOT
            && let Some(&child) = self.roots.get(c as usize)
        {
            return (child != 0).then_some(child as usize);
        }
        let (from, to) = (self.children[node] as usize, self.children[node + 1] as usize);
        self.labels[from..to].binary_search(&c).ok().map(|at| from + at)
    }

    /// The id of the piece `text`.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        let mut node = Self::ROOT;
        for c in text.chars() {
            node = self.child(node, c)?;
        }
        Some(self.pieces[node]).filter(|&id| id != NO_PIECE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::compact::Compact;

    fn tree(texts: &[&str]) -> Tree {
        let vocab: Vec<_> = texts.iter().map(|text| (text, 0.0)).collect();
        let json = serde_json::json!({"model": {"type": "Unigram", "vocab": vocab}});
        Tree::new(&Compact::from_json(json.to_string().as_bytes()).unwrap().pieces).unwrap()
    }

    #[test]
    fn tree_finds_what_it_holds() {
        // Neighbours that part inside of a character as well: 가 and 각 share two bytes.
        let texts =
            ["가나다라", "a", "ab", "b", "abc", "가", "각나", "가나", "😀", "😀가", "각", "ｶ"];
        let found = tree(&texts);
        for (id, text) in texts.iter().enumerate() {
            assert_eq!(found.find(text), Some(id as u32), "{text}");
        }
        for text in ["", "c", "abcd", "가나다", "나", "갂", "\u{10fffe}"] {
            assert_eq!(found.find(text), None, "{text}");
        }
        assert_eq!(tree(&[]).find("a"), None);
        assert_eq!(tree(&[]).children, [1, 1]);
    }

    #[test]
    fn tree_of_many_pieces_holds_each_once() {
        let mut texts: Vec<String> = Vec::new();
        for a in ["", "a", "가", "각", "\u{10fffe}"] {
            for b in ["x", "가", "갂", "é"] {
                for c in ["", "가나다".repeat(9).as_str(), "z"] {
                    texts.push(format!("{a}{b}{c}"));
                }
            }
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let found = tree(&texts);
        for (id, text) in texts.iter().enumerate() {
            assert_eq!(found.find(text), Some(id as u32), "{text}");
        }
        let ends = found.pieces.iter().filter(|&&id| id != NO_PIECE).count();
        assert_eq!(ends, texts.len());
        // Children of a node lie in rising order: they are searched by halving.
        for pair in found.children.windows(2) {
            let labels = &found.labels[pair[0] as usize..pair[1] as usize];
            assert!(labels.is_sorted_by(|a, b| a < b), "{labels:?}");
        }
    }
}
