//! What a directory holds, by name: a sorted list in pieces, because a context may have a million
//! files, and a map with a name, a node and a leaf of its own for each takes three times as much.

use std::sync::Arc;

use super::TreeNode;

/// A piece holds no more files than this: small enough to be moved around for every file that is
/// put between two others, and to be copied when one file of a shared tree changes.
const PIECE_LEN: usize = 128;

/// The files of a directory in byte order of their names. Cloning is cheap: unchanged pieces are
/// shared.
#[derive(Debug, Clone, Default)]
pub struct Children {
    /// None of them is empty.
    pieces: Vec<Arc<Piece>>,
}

/// Names and files of a directory, in order.
#[derive(Debug, Clone)]
pub struct ChildrenIter<'a> {
    /// The first of them holds the next file.
    pieces: &'a [Arc<Piece>],
    at: usize,
}

/// Some neighbours.
#[derive(Debug, Clone, Default)]
struct Piece {
    /// One after the other.
    names: Vec<u8>,
    /// Where each name ends.
    ends: Vec<usize>,
    nodes: Vec<TreeNode>,
}

impl Children {
    /// No files.
    #[must_use]
    pub const fn new() -> Self {
        Self { pieces: Vec::new() }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The file called `name`.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&TreeNode> {
        self.get_named(name).map(|(_, node)| node)
    }

    /// The file called `name`, with the name as it is kept here.
    #[must_use]
    pub fn get_named(&self, name: &[u8]) -> Option<(&[u8], &TreeNode)> {
        let piece = self.pieces.get(self.piece_of(name))?;
        piece.at(piece.find(name).ok()?)
    }

    /// The file called `name`, for change.
    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut TreeNode> {
        let at = self.piece_of(name);
        let piece = self.pieces.get_mut(at)?;
        let found = piece.find(name).ok()?;
        Arc::make_mut(piece).nodes.get_mut(found)
    }

    /// Puts `node` under `name`, in place of what was there.
    pub fn insert(&mut self, name: &[u8], node: TreeNode) {
        // A name behind all others goes to the end of the last piece.
        let at = self.piece_of(name).min(self.pieces.len().saturating_sub(1));
        let Some(piece) = self.pieces.get_mut(at) else {
            self.pieces.push(Arc::new(Piece::of(name, node)));
            return;
        };
        let place = piece.find(name);
        if let (Err(place), true) = (place, piece.nodes.len() >= PIECE_LEN) {
            // In ascending order, as listings are, every piece but the last becomes full.
            if place == piece.nodes.len() {
                self.pieces.insert(at + 1, Arc::new(Piece::of(name, node)));
                return;
            }
            let rest = Arc::make_mut(piece).split();
            self.pieces.insert(at + 1, Arc::new(rest));
            return self.insert(name, node);
        }
        Arc::make_mut(piece).put(place, name, node);
    }

    /// Removes the file called `name`; that there is none is fine.
    pub fn remove(&mut self, name: &[u8]) {
        let at = self.piece_of(name);
        let Some(piece) = self.pieces.get_mut(at) else { return };
        let Ok(found) = piece.find(name) else { return };
        Arc::make_mut(piece).remove(found);
        if piece.nodes.is_empty() {
            self.pieces.remove(at);
        }
    }

    /// Names and files, in order.
    #[must_use]
    pub const fn iter(&self) -> ChildrenIter<'_> {
        ChildrenIter { pieces: self.pieces.as_slice(), at: 0 }
    }

    /// Gives back the space that was kept for more files.
    pub fn shrink(&mut self) {
        self.pieces.shrink_to_fit();
        // The others are full, or have been split and may be filled again.
        if let Some(last) = self.pieces.last_mut().and_then(Arc::get_mut) {
            last.names.shrink_to_fit();
            last.ends.shrink_to_fit();
            last.nodes.shrink_to_fit();
        }
    }

    /// The number of the piece that `name` is in, if it is anywhere.
    fn piece_of(&self, name: &[u8]) -> usize {
        self.pieces.partition_point(|piece| piece.last_name().is_some_and(|last| last < name))
    }
}

impl Piece {
    fn of(name: &[u8], node: TreeNode) -> Self {
        Self { names: name.to_vec(), ends: vec![name.len()], nodes: vec![node] }
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }

    fn name(&self, at: usize) -> Option<&[u8]> {
        self.names.get(self.start(at)..*self.ends.get(at)?)
    }

    fn last_name(&self) -> Option<&[u8]> {
        self.name(self.ends.len().checked_sub(1)?)
    }

    fn at(&self, at: usize) -> Option<(&[u8], &TreeNode)> {
        Some((self.name(at)?, self.nodes.get(at)?))
    }

    /// Where `name` is, or where it would have to be put.
    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.name(middle).unwrap_or_default().cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Puts `node` where [`Piece::find`] said.
    fn put(&mut self, place: Result<usize, usize>, name: &[u8], node: TreeNode) {
        match place {
            Ok(at) => {
                if let Some(slot) = self.nodes.get_mut(at) {
                    *slot = node;
                }
            }
            Err(at) => {
                let start = self.start(at);
                self.names.splice(start..start, name.iter().copied());
                self.ends.insert(at, start);
                self.ends.iter_mut().skip(at).for_each(|end| *end += name.len());
                self.nodes.insert(at, node);
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.start(at + 1));
        self.names.drain(start..end);
        self.ends.remove(at);
        self.ends.iter_mut().skip(at).for_each(|other| *other -= end - start);
        self.nodes.remove(at);
    }

    /// Takes the second half off.
    fn split(&mut self) -> Self {
        let at = self.nodes.len() / 2;
        let start = self.start(at);
        let names = self.names.split_off(start);
        let ends = self.ends.split_off(at).into_iter().map(|end| end - start).collect();
        Self { names, ends, nodes: self.nodes.split_off(at) }
    }
}

impl<'a> Iterator for ChildrenIter<'a> {
    type Item = (&'a [u8], &'a TreeNode);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (piece, rest) = self.pieces.split_first()?;
            if let Some(found) = piece.at(self.at) {
                self.at += 1;
                return Some(found);
            }
            (self.pieces, self.at) = (rest, 0);
        }
    }
}

impl<'a> FromIterator<(&'a [u8], TreeNode)> for Children {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], TreeNode)>>(files: I) -> Self {
        let mut children = Self::new();
        files.into_iter().for_each(|(name, node)| children.insert(name, node));
        children.shrink();
        children
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::tree::{Leaf, Meta, Node};

    fn node(mode: u32) -> TreeNode {
        TreeNode::Leaf(Leaf::new(Meta::root(mode, 0), Node::Fifo))
    }

    fn show(children: &Children) -> Vec<(Vec<u8>, u32)> {
        children.iter().map(|(name, node)| (name.to_vec(), node.meta().mode)).collect()
    }

    proptest! {
        #[test]
        fn children_are_what_a_map_would_be(
            steps in prop::collection::vec((0..600_u32, any::<bool>()), 0..1500)
        ) {
            let mut children = Children::new();
            let mut map = BTreeMap::new();
            for (number, (name, is_put)) in (0..).zip(steps) {
                let name = format!("{}", name * 7919 % 1000).into_bytes();
                if is_put || number % 3 == 0 {
                    children.insert(&name, node(number));
                    map.insert(name, number);
                } else {
                    children.remove(&name);
                    map.remove(&name);
                }
            }
            prop_assert_eq!(show(&children), map.clone().into_iter().collect::<Vec<_>>());
            for name in (0..1000).map(|name| format!("{name}").into_bytes()) {
                let found = children.get(&name).map(|node| node.meta().mode);
                prop_assert_eq!(found, map.get(&name).copied());
            }
        }
    }

    #[test]
    fn a_change_leaves_clones_as_they_are() {
        let names: Vec<String> = (1000..1300).map(|name| name.to_string()).collect();
        let before: Children = names.iter().map(|name| (name.as_bytes(), node(1))).collect();
        let mut after = before.clone();
        after.insert(b"1150", node(2));
        after.remove(b"1299");
        *after.get_mut(b"1000").unwrap() = node(3);
        assert_eq!(
            show(&before),
            names.iter().map(|n| (n.clone().into_bytes(), 1)).collect::<Vec<_>>()
        );
        let modes: Vec<u32> = ["1000", "1001", "1150"]
            .iter()
            .map(|name| after.get(name.as_bytes()).unwrap().meta().mode)
            .collect();
        assert_eq!(modes, [3, 1, 2]);
        assert!(after.get(b"1299").is_none());
    }
}
