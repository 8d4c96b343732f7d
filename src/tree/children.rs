//! The children of a directory, sorted by name, in chunks. A context may have a million files; a
//! map that allocates a name, a node and a leaf for each takes three times the memory.

use std::sync::Arc;

use super::TreeNode;

/// Maximum number of files in a chunk: small enough to shift for each file inserted in between, and
/// to copy when one file of a shared tree changes.
const CHUNK_LEN: usize = 128;

/// The files of a directory in byte order of their names. Cloning is cheap: unchanged chunks are
/// shared.
#[derive(Debug, Clone, Default)]
pub struct Children {
    /// Chunks in order; none is empty.
    chunks: Vec<Arc<Chunk>>,
}

/// An iterator over the names and files of a directory, in order.
#[derive(Debug, Clone)]
pub struct ChildrenIter<'a> {
    /// The remaining chunks; the first contains the next file.
    chunks: &'a [Arc<Chunk>],
    at: usize,
}

/// A run of consecutive files.
#[derive(Debug, Clone, Default)]
struct Chunk {
    /// The names, concatenated.
    names: Vec<u8>,
    /// The end of each name in `names`.
    ends: Vec<usize>,
    nodes: Vec<TreeNode>,
}

impl Children {
    /// Returns an empty directory.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// Returns whether the directory is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Returns the file called `name`.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&TreeNode> {
        self.get_named(name).map(|(_, node)| node)
    }

    /// Returns the file called `name`, with the stored name.
    #[must_use]
    pub fn get_named(&self, name: &[u8]) -> Option<(&[u8], &TreeNode)> {
        let chunk = self.chunks.get(self.chunk_index(name))?;
        chunk.at(chunk.find(name).ok()?)
    }

    /// Returns the file called `name`, mutably.
    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut TreeNode> {
        let at = self.chunk_index(name);
        let chunk = self.chunks.get_mut(at)?;
        let found = chunk.find(name).ok()?;
        Arc::make_mut(chunk).nodes.get_mut(found)
    }

    /// Inserts `node` as `name`, and replaces an existing file.
    pub fn insert(&mut self, name: &[u8], node: TreeNode) {
        // A name that sorts last is appended to the last chunk.
        let at = self.chunk_index(name).min(self.chunks.len().saturating_sub(1));
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(Chunk::of(name, node)));
            return;
        };
        let place = chunk.find(name);
        if let (Err(place), true) = (place, chunk.nodes.len() >= CHUNK_LEN) {
            // Listings are inserted in ascending order, which fills every chunk but the last.
            if place == chunk.nodes.len() {
                self.chunks.insert(at + 1, Arc::new(Chunk::of(name, node)));
                return;
            }
            let rest = Arc::make_mut(chunk).split();
            self.chunks.insert(at + 1, Arc::new(rest));
            return self.insert(name, node);
        }
        Arc::make_mut(chunk).put(place, name, node);
    }

    /// Removes the file called `name`, if it exists.
    pub fn remove(&mut self, name: &[u8]) {
        let at = self.chunk_index(name);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        let Ok(found) = chunk.find(name) else { return };
        Arc::make_mut(chunk).remove(found);
        if chunk.nodes.is_empty() {
            self.chunks.remove(at);
        }
    }

    /// Iterates over names and files, in order.
    #[must_use]
    pub const fn iter(&self) -> ChildrenIter<'_> {
        ChildrenIter { chunks: self.chunks.as_slice(), at: 0 }
    }

    /// Releases unused capacity.
    pub fn shrink(&mut self) {
        self.chunks.shrink_to_fit();
        // The others are full, or were split and may fill up again.
        if let Some(last) = self.chunks.last_mut().and_then(Arc::get_mut) {
            last.names.shrink_to_fit();
            last.ends.shrink_to_fit();
            last.nodes.shrink_to_fit();
        }
    }

    /// Returns the index of the chunk that `name` is in, or would be inserted into.
    fn chunk_index(&self, name: &[u8]) -> usize {
        self.chunks.partition_point(|chunk| chunk.last_name().is_some_and(|last| last < name))
    }
}

impl Chunk {
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

    /// Returns the index of `name`, or the index at which to insert it.
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

    /// Inserts `node` at the index that [`Chunk::find`] returned.
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

    /// Splits off and returns the second half.
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
            let (chunk, rest) = self.chunks.split_first()?;
            if let Some(found) = chunk.at(self.at) {
                self.at += 1;
                return Some(found);
            }
            (self.chunks, self.at) = (rest, 0);
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
        fn children_behave_like_a_map(
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
    fn change_does_not_affect_clones() {
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
