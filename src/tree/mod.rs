//! A file tree as a value: the contents of a layer, several layers merged, and the result of COPY
//! on two trees. Ownership, modes and links are kept here, because the disk may be unable to
//! represent them.
//!
//! Pure: opens no file. File contents are represented by their hash and their location.

pub mod copy;
pub mod glob;
pub mod mode;
pub mod passwd;
pub mod patterns;

mod between;
mod changes;
mod children;
mod compare;
mod file_in_directory;
mod layer_stats;
mod listing;
mod merged;
mod node;
mod overlay_adjustments;
mod path;

pub use between::layer_between;
pub use changes::{Change, ChangeKind, changes};
pub use children::{Children, ChildrenIter};
pub use compare::{PathPair, pairs};
pub use copy::{CopyError, CopyInput, CopyLayer, CopyRequest, copy, matched_files, select_digest};
pub use file_in_directory::FileInDirectory;
pub use layer_stats::{LayerEffect, LayerStats, WastedPath};
pub use listing::{Entry, Layer, LayerContent, LayerEntries, LayerItem, LayerListing};
pub use merged::{Dir, Leaf, LookupError, Tree, TreeNode, TreeWalk};
pub use mode::{Chmod, ModeError, parse_chmod};
pub use node::{
    CAPABILITY_XATTR, ContentDigest, ContentHash, ContentWriter, Device, File, FileInLayer,
    FileOrigin, Meta, Node, Xattrs, is_kept_xattr,
};
pub use overlay_adjustments::OverlayAdjustments;
pub use passwd::{AccountError, Accounts, ResolvedUser};
pub use path::{PathError, TreePath};
