//! Properties that hold for any bytes at all. A file here is one fuzz target of `tests/fuzz`; the suite
//! runs the same functions on what `testdata/corpus` keeps.

pub(crate) mod accounts;
pub(crate) mod archive;
pub(crate) mod cache;
pub(crate) mod dockerfile;
pub(crate) mod ignore;
pub(crate) mod load;
pub(crate) mod lockfile;
pub(crate) mod manifest;
pub(crate) mod reference;
pub(crate) mod registries;
pub(crate) mod registry;
pub(crate) mod words;
