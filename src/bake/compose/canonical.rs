//! The long form of services: lists of `KEY=VALUE` as maps, `build: DIR` as a map.

use super::yaml::{MergeTag, Node, NodeKind};
use crate::bake::source::BakeError;

/// Members of a service that a build reads.
pub(super) const SERVICE: [&str; 5] = ["image", "build", "environment", "env_file", "extends"];

/// Brings a service to its long form, and drops the members that no build reads.
pub(super) fn service(node: Node) -> Result<Node, BakeError> {
    let at = node.at;
    let tag = node.tag;
    let members = match node.kind {
        NodeKind::Null => Vec::new(),
        NodeKind::Map(members) => members,
        NodeKind::Scalar(_) | NodeKind::List(_) => {
            return Err(BakeError::at(at, "a service must be a map"));
        }
    };
    let kept = members.into_iter().filter(|(name, ..)| SERVICE.contains(&name.as_str()));
    let members = kept.map(|(name, place, value)| {
        let value = match name.as_str() {
            "build" => build(value)?,
            "environment" => pairs(value, '=')?,
            "env_file" => list(value),
            _ => value,
        };
        Ok((name, place, value))
    });
    let kind = NodeKind::Map(members.collect::<Result<_, BakeError>>()?);
    Ok(Node { kind, at, tag })
}

fn build(node: Node) -> Result<Node, BakeError> {
    let (at, tag) = (node.at, node.tag);
    let members = match node.kind {
        NodeKind::Null => return Ok(node),
        NodeKind::Scalar(context) => {
            let context = Node::new(NodeKind::Scalar(context), at);
            let kind = NodeKind::Map(vec![("context".to_owned(), at, context)]);
            return Ok(Node { kind, at, tag });
        }
        NodeKind::Map(members) => members,
        NodeKind::List(_) => return Err(BakeError::at(at, "build must be a directory or a map")),
    };
    let members = members.into_iter().map(|(name, place, value)| {
        let value = match name.as_str() {
            "args" | "labels" | "additional_contexts" => pairs(value, '=')?,
            "ssh" => ssh(value)?,
            "extra_hosts" => hosts(value)?,
            _ => value,
        };
        Ok((name, place, value))
    });
    let kind = NodeKind::Map(members.collect::<Result<_, BakeError>>()?);
    Ok(Node { kind, at, tag })
}

fn list(node: Node) -> Node {
    match node.kind {
        NodeKind::List(_) | NodeKind::Null => node,
        NodeKind::Scalar(_) | NodeKind::Map(_) => {
            let at = node.at;
            Node::new(NodeKind::List(vec![node]), at)
        }
    }
}

/// Makes a map of a list of `KEY=VALUE`; a key alone has the value null.
fn pairs(node: Node, separator: char) -> Result<Node, BakeError> {
    let (at, tag): (_, MergeTag) = (node.at, node.tag);
    let NodeKind::List(items) = node.kind else {
        if node.text().is_some() {
            return Err(BakeError::at(at, "a list or a map is required here"));
        }
        return Ok(node);
    };
    let mut members: Vec<(String, _, Node)> = Vec::new();
    for item in items {
        let Some(text) = item.text() else {
            return Err(BakeError::at(item.at, "KEY=VALUE is required here"));
        };
        let (name, kind) = match text.split_once(separator) {
            Some((name, value)) => (name, NodeKind::Scalar(value.to_owned())),
            None => (text, NodeKind::Null),
        };
        members.retain(|(own, ..)| own != name);
        members.push((name.to_owned(), item.at, Node::new(kind, item.at)));
    }
    Ok(Node { kind: NodeKind::Map(members), at, tag })
}

/// Makes a map of a list of `default` and `id=path`.
fn ssh(node: Node) -> Result<Node, BakeError> {
    let node = if node.text().is_some() { list(node) } else { node };
    pairs(node, '=')
}

/// Makes a map of host names to lists of addresses.
fn hosts(node: Node) -> Result<Node, BakeError> {
    let (at, tag) = (node.at, node.tag);
    let mut members: Vec<(String, _, Node)> = Vec::new();
    let mut add = |name: &str, address: Node| {
        let place = address.at;
        let addresses = match address.items() {
            Some(items) => items.to_vec(),
            None => vec![address],
        };
        match members.iter_mut().find(|(own, ..)| own == name) {
            Some((_, _, Node { kind: NodeKind::List(own), .. })) => own.extend(addresses),
            _ => {
                members.push((name.to_owned(), place, Node::new(NodeKind::List(addresses), place)));
            }
        }
    };
    match node.kind {
        NodeKind::Map(hosts) => hosts.into_iter().for_each(|(name, _, value)| add(&name, value)),
        NodeKind::List(items) => {
            for item in items {
                // IPv6 addresses contain colons, so the first separator counts.
                let pair = item.text().and_then(|text| text.split_once(['=', ':']));
                let Some((name, address)) = pair else {
                    return Err(BakeError::at(item.at, "HOST=ADDRESS is required here"));
                };
                let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
                add(name, Node::new(NodeKind::Scalar(address), item.at));
            }
        }
        NodeKind::Null => return Ok(Node::new(NodeKind::Null, at)),
        NodeKind::Scalar(_) => return Err(BakeError::at(at, "a list or a map is required here")),
    }
    Ok(Node { kind: NodeKind::Map(members), at, tag })
}
