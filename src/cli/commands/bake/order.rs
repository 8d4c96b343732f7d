//! The order of targets, and waiting for those that are contexts of others.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};

use crate::oci::Digest;
use crate::pool;

/// Returns the positions of targets, each after those that it links to. `links` has the positions that each
/// target needs; there are no cycles.
pub(super) fn dependencies_first(links: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(links.len());
    let mut is_placed = vec![false; links.len()];
    for target in 0..links.len() {
        place(target, links, &mut is_placed, &mut order);
    }
    order
}

fn place(target: usize, links: &[Vec<usize>], is_placed: &mut [bool], order: &mut Vec<usize>) {
    match is_placed.get_mut(target) {
        Some(placed) if !*placed => *placed = true,
        _ => return,
    }
    for needed in links.get(target).into_iter().flatten() {
        place(*needed, links, is_placed, order);
    }
    order.push(target);
}

/// The manifests or indexes of the targets that have ended; `None` for those that failed.
#[derive(Debug, Default)]
pub(super) struct EndedTargets {
    tops: Mutex<BTreeMap<usize, Option<Digest>>>,
    changed: Condvar,
}

impl EndedTargets {
    /// Notes the end of a target.
    pub(super) fn note(&self, target: usize, top: Option<Digest>) {
        pool::lock(&self.tops).insert(target, top);
        self.changed.notify_all();
    }

    /// Waits for a target, which must have been started. Returns `None` if it failed.
    pub(super) fn wait(&self, target: usize) -> Option<Digest> {
        let mut tops = pool::lock(&self.tops);
        loop {
            if let Some(top) = tops.get(&target) {
                return *top;
            }
            tops = pool::wait(&self.changed, tops);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_targets_come_first() {
        for (links, want) in [
            (vec![vec![], vec![], vec![]], [0, 1, 2]),
            (vec![vec![1], vec![2], vec![]], [2, 1, 0]),
            (vec![vec![2], vec![], vec![]], [2, 0, 1]),
        ] {
            assert_eq!(dependencies_first(&links), want);
        }
    }
}
