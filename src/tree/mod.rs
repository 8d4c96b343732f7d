//! A file tree as a value: what a layer holds, several layers merged, and what COPY makes of two
//! trees. Ownership, modes and links live here, not on the disk, which may be unable to hold them.
//!
//! Pure: it opens nothing. File contents are named by hash and by where they can be read.

pub mod copy;
pub mod glob;
pub mod mode;
pub mod passwd;
pub mod patterns;

mod merged;
mod node;
mod path;

pub use copy::{CopyError, CopyInput, CopyRequest, copy, files_meant, select_digest};
pub use merged::{Dir, LookupError, Tree, TreeNode};
pub use mode::{Chmod, ModeError, parse_chmod};
pub use node::{
    ContentDigest, ContentHash, ContentWriter, Device, Entry, File, FileOrigin, Item, Layer,
    LayerListing, Meta, Node, Xattrs,
};
pub use passwd::{AccountError, Accounts, ResolvedUser};
pub use path::{PathError, TreePath};
