//! A file tree as a value: what a layer holds, several layers merged, and what COPY makes of two
//! trees. Ownership, modes and links live here, not on the disk, which may be unable to hold them.
//!
//! Pure: it opens nothing. File contents are named by hash and by where they can be read.

pub mod copy;
pub mod glob;
pub mod mode;
pub mod passwd;
pub mod patterns;

mod changes;
mod children;
mod compare;
mod fitting;
mod layer_stats;
mod listing;
mod merged;
mod node;
mod path;
mod place;

pub use changes::{Change, ChangeKind, changes};
pub use children::{Children, ChildrenIter};
pub use compare::{Pair, pairs};
pub use copy::{CopyError, CopyInput, CopyRequest, Placed, copy, files_meant, select_digest};
pub use fitting::Fitting;
pub use layer_stats::{LayerEffect, Survey, Wasted};
pub use listing::{Entry, Item, Layer, LayerContent, LayerEntries, LayerListing};
pub use merged::{Dir, Leaf, LookupError, Tree, TreeNode, TreeWalk};
pub use mode::{Chmod, ModeError, parse_chmod};
pub use node::{
    CAPABILITY_XATTR, ContentDigest, ContentHash, ContentWriter, Device, File, FileOrigin,
    LayerPlace, Meta, Node, Xattrs, is_kept_xattr,
};
pub use passwd::{AccountError, Accounts, ResolvedUser};
pub use path::{PathError, TreePath};
pub use place::DirectoryPlace;
