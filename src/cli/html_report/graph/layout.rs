//! Places for boxes that need each other: a column a depth, arrows from left to right. An arrow that
//! passes columns has a place in each of them, so that it crosses no box.

use std::fmt::Write as _;

use crate::cli::html_report::html::real;

/// Between columns, and between boxes in one.
const COLUMN_GAP: f64 = 64.0;
const BOX_GAP: f64 = 20.0;
/// What an arrow takes of a column that it passes.
const LANE: f64 = 10.0;
/// Around all.
const MARGIN: f64 = 8.0;
/// So often the order within columns is improved.
const N_SWEEPS: usize = 4;

/// A box that needs a place.
#[derive(Debug)]
pub(crate) struct Size<'a> {
    pub(crate) height: f64,
    /// Boxes before it.
    pub(crate) needs: &'a [usize],
}

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// Left upper corners, in the order of the boxes.
    pub(crate) boxes: Vec<(f64, f64)>,
    pub(crate) edges: Vec<Edge>,
}

/// An arrow.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// From the box at the left through the columns between; the last is the corner of the other box.
    points: Vec<(f64, f64)>,
}

impl Edge {
    /// As SVG has paths, ending so far below the upper corner of its box.
    pub(crate) fn path(&self, below: f64) -> String {
        let mut path = String::new();
        let mut last = (0.0, 0.0);
        for (at, (x, y)) in self.points.iter().copied().enumerate() {
            let is_end = at + 1 == self.points.len();
            let y = if is_end { y + below } else { y };
            let bend = (x - last.0) / 2.0;
            // Writing to a string does not fail.
            let _written = match at {
                0 => write!(path, "M{x} {y}"),
                // Through a column it goes straight.
                _ if at % 2 == 0 => write!(path, "H{x}"),
                _ => write!(path, "C{} {} {} {y} {x} {y}", last.0 + bend, last.1, x - bend),
            };
            last = (x, y);
        }
        path
    }
}

/// A box, or the place of an arrow in a column.
#[derive(Debug)]
struct Node {
    column: usize,
    height: f64,
    y: f64,
    before: Vec<usize>,
    after: Vec<usize>,
}

#[derive(Debug, Default)]
struct Grid {
    nodes: Vec<Node>,
    columns: Vec<Vec<usize>>,
}

impl Layout {
    /// Places boxes of this width; each needs only such as come before it.
    pub(crate) fn of(sizes: &[Size<'_>], width: f64) -> Self {
        let mut grid = Grid::default();
        for size in sizes {
            let depths = size.needs.iter().filter_map(|need| grid.nodes.get(*need));
            let column = depths.map(|node| node.column + 1).max().unwrap_or(0);
            grid.add(column, size.height);
        }
        let mut chains = Vec::new();
        for (to, size) in sizes.iter().enumerate() {
            for from in size.needs.iter().filter(|from| **from < to) {
                chains.push((*from, to, grid.connect(*from, to)));
            }
        }
        grid.order();
        let height = grid.place();
        let x = |node: &Node| MARGIN + real(node.column) * (width + COLUMN_GAP);
        let place = |at: usize| grid.nodes.get(at).map_or((0.0, 0.0), |node| (x(node), node.y));
        let edges = chains.into_iter().map(|(from, to, through)| {
            let middle = grid.nodes.get(from).map_or(0.0, |node| node.height / 2.0);
            let (left, y) = place(from);
            let mut points = vec![(left + width, y + middle)];
            for lane in through {
                let (x, y) = place(lane);
                points.extend([(x, y + LANE / 2.0), (x + width, y + LANE / 2.0)]);
            }
            points.push(place(to));
            Edge { from, to, points }
        });
        let edges = edges.collect();
        let boxes = (0..sizes.len()).map(place).collect();
        let n_columns = real(grid.columns.len());
        let width = 2.0 * MARGIN + n_columns * width + (n_columns - 1.0).max(0.0) * COLUMN_GAP;
        Self { width, height, boxes, edges }
    }
}

impl Grid {
    fn add(&mut self, column: usize, height: f64) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node { column, height, y: 0.0, before: Vec::new(), after: Vec::new() });
        if self.columns.len() <= column {
            self.columns.resize_with(column + 1, Vec::new);
        }
        if let Some(column) = self.columns.get_mut(column) {
            column.push(at);
        }
        at
    }

    /// Connects two boxes; gives the places in the columns between.
    fn connect(&mut self, from: usize, to: usize) -> Vec<usize> {
        let column = |at: usize| self.nodes.get(at).map_or(0, |node| node.column);
        let between = column(from) + 1..column(to);
        let through: Vec<usize> = between.map(|column| self.add(column, LANE)).collect();
        let mut last = from;
        for next in through.iter().copied().chain([to]) {
            if let Some(node) = self.nodes.get_mut(last) {
                node.after.push(next);
            }
            if let Some(node) = self.nodes.get_mut(next) {
                node.before.push(last);
            }
            last = next;
        }
        through
    }

    /// Puts what is connected beside each other: each where its neighbours are on average.
    fn order(&mut self) {
        for sweep in 0..N_SWEEPS {
            let is_forward = sweep % 2 == 0;
            let n_columns = self.columns.len();
            for at in 0..n_columns {
                let at = if is_forward { at } else { n_columns - 1 - at };
                let place = self.places();
                let Some(column) = self.columns.get_mut(at) else { continue };
                let mean = |node: &usize| {
                    let own = place.get(*node).copied().unwrap_or(0.0);
                    let Some(node) = self.nodes.get(*node) else { return own };
                    let neighbours = if is_forward { &node.before } else { &node.after };
                    let sum: f64 = neighbours.iter().filter_map(|node| place.get(*node)).sum();
                    if neighbours.is_empty() { own } else { sum / real(neighbours.len()) }
                };
                column.sort_by(|a, b| mean(a).total_cmp(&mean(b)));
            }
        }
    }

    /// The place of each in its column, as a part of the column's length.
    fn places(&self) -> Vec<f64> {
        let mut places = vec![0.0; self.nodes.len()];
        for column in &self.columns {
            for (at, node) in column.iter().enumerate() {
                if let Some(place) = places.get_mut(*node) {
                    *place = (real(at) + 0.5) / real(column.len());
                }
            }
        }
        places
    }

    /// Gives each its height on the page, columns in the middle; gives the height of all.
    fn place(&mut self) -> f64 {
        let nodes = &mut self.nodes;
        let height = |column: &Vec<usize>, nodes: &[Node]| {
            let heights: f64 =
                column.iter().filter_map(|at| nodes.get(*at)).map(|n| n.height).sum();
            heights + real(column.len().saturating_sub(1)) * BOX_GAP
        };
        let most = self.columns.iter().map(|column| height(column, nodes)).fold(0.0, f64::max);
        for column in &self.columns {
            let mut y = MARGIN + (most - height(column, nodes)) / 2.0;
            for at in column {
                if let Some(node) = nodes.get_mut(*at) {
                    node.y = y;
                    y += node.height + BOX_GAP;
                }
            }
        }
        most + 2.0 * MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_go_to_the_right_and_past_boxes() {
        let size = |needs| Size { height: 100.0, needs };
        let sizes = [size(&[]), size(&[0]), size(&[]), size(&[0, 1, 2])];
        let layout = Layout::of(&sizes, 200.0);
        let columns: Vec<f64> = layout.boxes.iter().map(|(x, _)| *x).collect();
        assert_eq!(columns, [8.0, 272.0, 8.0, 536.0]);
        assert_eq!((layout.width, layout.height), (744.0, 236.0));
        let ends: Vec<_> = layout.edges.iter().map(|edge| (edge.from, edge.to)).collect();
        assert_eq!(ends, [(0, 1), (0, 3), (1, 3), (2, 3)]);
        // What is passed is above or below the arrow.
        let (_, top) = layout.boxes[1];
        for edge in [&layout.edges[1], &layout.edges[3]] {
            let (_, y) = edge.points[1];
            assert!(y < top || y > top + 100.0, "{layout:?}");
            assert_eq!(edge.points.len(), 4);
        }
        assert!(layout.edges[1].path(10.0).starts_with("M208 58C"), "{layout:?}");
    }

    #[test]
    fn places_that_are_not_before_are_not_believed() {
        let sizes = [Size { height: 10.0, needs: &[0, 7] }, Size { height: 10.0, needs: &[9] }];
        assert!(Layout::of(&sizes, 10.0).edges.is_empty());
    }
}
