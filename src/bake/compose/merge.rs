//! Merging of trees: of several files, and of a service with the one that it extends.

use super::yaml::{MergeTag, Node, NodeKind};

/// Merges `over` into `base`: maps grow, lists are appended, other values are replaced.
pub(super) fn merge(base: Node, over: Node) -> Node {
    match over.tag {
        MergeTag::Override => return over,
        MergeTag::Reset => return Node { kind: NodeKind::Null, ..over },
        MergeTag::None => {}
    }
    let at = over.at;
    let kind = match (base.kind, over.kind) {
        (base, NodeKind::Null) => base,
        (NodeKind::Map(mut base), NodeKind::Map(over)) => {
            for (name, place, value) in over {
                let found = base.iter().position(|(own, ..)| *own == name);
                match found.map(|position| base.remove(position)) {
                    Some((_, _, earlier)) => {
                        let reset = value.tag == MergeTag::Reset;
                        let merged = merge(earlier, value);
                        if !reset {
                            base.push((name, place, merged));
                        }
                    }
                    None if value.tag == MergeTag::Reset => {}
                    None => base.push((name, place, value)),
                }
            }
            NodeKind::Map(base)
        }
        (NodeKind::List(mut base), NodeKind::List(over)) => {
            base.extend(over);
            NodeKind::List(base)
        }
        (_, over) => over,
    };
    Node::new(kind, at)
}
