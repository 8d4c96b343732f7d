//! Text for people: what a terminal or a log may be shown, tables, templates, standard output.

pub(super) mod go_template;
pub(super) mod line_diff;
pub(super) mod reasons;
pub(super) mod redact;
pub(super) mod stderr;
pub(super) mod stdout;
pub(super) mod table;
pub(super) mod template;
pub(super) mod text;
