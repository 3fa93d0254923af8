//! The pieces of a vocabulary as a tree of characters.

use crate::tokenizer::compact::Piece;

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

    /// From pieces in rising byte order; `None` if more than 65,535 characters begin pieces.
    pub(super) fn new(pieces: &[Piece]) -> Option<Self> {
        let mut tree = Tree {
            labels: vec!['\0'],
            children: Vec::new(),
            pieces: vec![NO_PIECE],
            roots: vec![0; 1 << 16],
        };
        // Of each node of the level: its pieces, and how many of their bytes lead to it.
        let mut level = vec![(0..pieces.len(), 0)];
        while !level.is_empty() {
            let mut next = Vec::new();
            for (range, depth) in level {
                tree.children.push(u32::try_from(tree.labels.len()).ok()?);
                let mut from = range.start;
                while from < range.end {
                    let Some(c) = pieces[from].text[depth..].chars().next() else {
                        // The piece that ends at this node itself; it sorts before its extensions.
                        from += 1;
                        continue;
                    };
                    let same = pieces[from..range.end]
                        .iter()
                        .take_while(|piece| piece.text[depth..].starts_with(c))
                        .count();
                    let below = depth + c.len_utf8();
                    let ends = pieces[from].text.len() == below;
                    tree.labels.push(c);
                    tree.pieces.push(if ends { pieces[from].id } else { NO_PIECE });
                    next.push((from..from + same, below));
                    from += same;
                }
            }
            level = next;
        }
        tree.children.push(u32::try_from(tree.labels.len()).ok()?);
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

    #[test]
    fn tree_finds_what_it_holds() {
        let texts = ["a", "ab", "abc", "b", "가", "가나", "가나다라", "😀", "😀가"];
        let pieces: Vec<Piece> = texts
            .iter()
            .enumerate()
            .map(|(id, &text)| Piece { text: text.into(), score: 0.0, id: id as u32 })
            .collect();
        let tree = Tree::new(&pieces).unwrap();
        for (id, text) in texts.iter().enumerate() {
            assert_eq!(tree.find(text), Some(id as u32), "{text}");
        }
        for text in ["", "c", "abcd", "가나다", "나", "\u{10fffe}"] {
            assert_eq!(tree.find(text), None, "{text}");
        }
        assert_eq!(Tree::new(&[]).unwrap().find("a"), None);
    }
}
