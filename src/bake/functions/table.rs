//! All functions, by the files that have them.

use super::{
    Function, cidr, collections, dates, digests, encoding, format, lists, numbers, patterns,
    semver, sets, text,
};

pub(super) const ALL: &[&[Function]] = &[
    cidr::FUNCTIONS,
    collections::FUNCTIONS,
    dates::FUNCTIONS,
    digests::FUNCTIONS,
    encoding::FUNCTIONS,
    format::FUNCTIONS,
    lists::FUNCTIONS,
    numbers::FUNCTIONS,
    patterns::FUNCTIONS,
    semver::FUNCTIONS,
    sets::FUNCTIONS,
    text::FUNCTIONS,
];
