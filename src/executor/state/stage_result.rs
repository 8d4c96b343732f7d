//! The result of a stage: its layers and its history.

use std::sync::Arc;

use crate::executor::built::MadeBy;
use crate::executor::stack::Stack;
use crate::plan::HistoryLine;

/// The layers and the history of a finished stage.
#[derive(Debug, Clone)]
pub(in crate::executor) struct StageResult {
    pub(in crate::executor) number: usize,
    pub(in crate::executor) stack: Stack,
    pub(in crate::executor) history: Arc<Vec<StageHistory>>,
}

/// One entry of a stage's history, and its layer.
#[derive(Debug, Clone)]
pub(in crate::executor) struct StageHistory {
    pub(in crate::executor) line: HistoryLine,
    pub(in crate::executor) layer: Option<StageLayer>,
}

/// The layer on top of a stack, and the instruction that made it.
#[derive(Debug, Clone)]
pub(in crate::executor) struct StageLayer {
    pub(in crate::executor) stack: Stack,
    pub(in crate::executor) made_by: Arc<MadeBy>,
}
