//! WORKDIR: a layer with the missing directories.

use crate::diag::{Diagnostic, Span, codes};
use crate::plan::WorkdirOperation;
use crate::tree::{Accounts, Entry, Layer, LayerItem, Meta, Node, Tree, TreeNode, TreePath};

use crate::executor::BuildError;

/// Returns the layer that makes the directory of `operation`; empty if it exists.
pub(in crate::executor) fn layer(
    operation: &WorkdirOperation,
    below: &Tree,
    accounts: &Accounts,
    span: Span,
    now_s: i64,
) -> Result<Layer, BuildError> {
    let path = below.resolve(operation.path.as_bytes()).map_err(|error| {
        let message = format!("cannot make the directory {}: {error}", operation.path);
        Diagnostic::error(codes::COPY_CONFLICT, span, message)
    })?;
    if below.dir(&path).is_some() {
        return Ok(Layer::default());
    }
    if below.get(&path).is_some() {
        let message =
            format!("cannot make the directory {}: there is a file of that name", operation.path);
        let help = "choose another directory, or remove the file in a RUN before; a COPY makes a \
                    directory of its destination only if that ends with `/`, as in `COPY file /app/`";
        return Err(Diagnostic::error(codes::COPY_CONFLICT, span, message).help(help).into());
    }
    let (uid, gid) = accounts.owner(&operation.user).map_err(|error| {
        let message = format!("cannot make the directory for USER {}: {error}", operation.user);
        Diagnostic::error(codes::BAD_USER, span, message)
    })?;
    let mut entries = Vec::new();
    let mut at = TreePath::root();
    for name in path.names() {
        at = at.join(name);
        let meta = match below.get(&at) {
            Some(TreeNode::Dir(dir)) => dir.meta.clone(),
            Some(TreeNode::Leaf(_)) | None => Meta { uid, gid, ..Meta::root(0o755, now_s) },
        };
        let item = LayerItem::Node(meta, Node::Directory { opaque: false });
        entries.push(Entry { path: at.clone(), item });
    }
    Ok(Layer::new(entries))
}
