//! The file system that the layers of an image make together. Pure; only names are held, no content.
//!
//! Whiteouts hide what lower layers hold, and nothing of their own layer (OCI image specification, "Representing
//! changes").

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::archive::{Entry, Kind};
use super::path;

/// Where a file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the layer, lowest first.
    pub layer: usize,
    /// Number of the entry in that layer.
    pub entry: usize,
    pub size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    File(Place),
    Directory,
    /// A symbolic link, with its target as written. Hard links to it share the target: it may be long, and they many.
    Link(Arc<[u8]>),
    /// What it is, in words.
    Other(&'static str),
}

/// By normal path. Folders that only the paths of their content mention are not listed.
pub type Nodes = BTreeMap<Vec<u8>, Node>;

/// One layer, by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    nodes: Nodes,
    /// Other names of files that this layer does not hold, by their own path.
    links_below: BTreeMap<Vec<u8>, Vec<u8>>,
    hidden: BTreeSet<Vec<u8>>,
    /// Folders whose lower content is hidden.
    opaque: BTreeSet<Vec<u8>>,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS's own files begin so.
const AUFS: &[u8] = b".wh..wh.";

impl Layer {
    /// Takes one entry in; later ones replace earlier ones of that name.
    pub fn add(&mut self, layer: usize, entry: Entry) -> Result<(), &'static str> {
        let base = path::base_name(&entry.path);
        let folder = || entry.path[..entry.path.len() - base.len()].strip_suffix(b"/").unwrap_or_default().to_vec();
        if base == OPAQUE {
            self.opaque.insert(folder());
        } else if base.starts_with(AUFS) {
            // Its bookkeeping; says nothing about files.
        } else if let Some(name) = base.strip_prefix(WHITEOUT) {
            if [b"".as_slice(), b".", b".."].contains(&name) {
                return Err("a whiteout of nothing");
            }
            let folder = folder();
            self.hidden.insert(if folder.is_empty() { name.to_vec() } else { [&folder, name].join(&b'/') });
        } else if !entry.path.is_empty() {
            self.add_node(layer, entry);
        }
        Ok(())
    }

    fn add_node(&mut self, layer: usize, Entry { number, path, kind, size }: Entry) {
        let node = match kind {
            Kind::File => Node::File(Place { layer, entry: number, size }),
            Kind::Directory => Node::Directory,
            Kind::Symlink(target) => Node::Link(target.into()),
            Kind::Other(what) => Node::Other(what),
            Kind::HardLink(target) => match self.nodes.get(&target) {
                Some(node) => node.clone(),
                None => {
                    self.links_below.insert(path.clone(), target);
                    Node::Other("a hard link to a file that is not there")
                }
            },
        };
        put(&mut self.nodes, path, node);
    }
}

/// Puts a node in its place: what was there goes, and so does a file where a folder is needed.
fn put(nodes: &mut Nodes, path: Vec<u8>, node: Node) {
    for ancestor in path::ancestors(&path) {
        if nodes.get(ancestor).is_some_and(|node| *node != Node::Directory) {
            nodes.remove(ancestor);
        }
    }
    if node != Node::Directory {
        remove_below(nodes, &path);
    }
    nodes.insert(path, node);
}

/// Removes the content of a folder.
fn remove_below(nodes: &mut Nodes, folder: &[u8]) {
    if folder.is_empty() {
        nodes.clear();
        return;
    }
    let doomed: Vec<Vec<u8>> = below(nodes, folder).map(|(path, _)| path.clone()).collect();
    for path in doomed {
        nodes.remove(&path);
    }
}

/// The content of a folder that is not the root.
fn below<'a>(nodes: &'a Nodes, folder: &[u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a Node)> {
    let first = [folder, b"/"].concat();
    // '0' is the character after '/'.
    let end = [folder, b"0"].concat();
    nodes.range::<Vec<u8>, _>((Bound::Excluded(first), Bound::Excluded(end)))
}

/// Layers upon one another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: Nodes,
}

/// Why a path leads to no file, in words that follow the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    Absent,
    Not(String),
}

/// Symbolic links that are followed for one path; as in Linux.
const HOPS: usize = 40;

impl Tree {
    /// Puts a layer on top.
    pub fn lay(&mut self, layer: Layer) {
        let mut links = Vec::new();
        for (path, target) in layer.links_below {
            // Only if nothing of this layer has taken its name since.
            let is_link = matches!(layer.nodes.get(&path), Some(Node::Other(_)));
            if let (true, Some(node)) = (is_link, self.nodes.get(&target)) {
                links.push((path, node.clone()));
            }
        }
        for folder in &layer.opaque {
            remove_below(&mut self.nodes, folder);
        }
        for path in &layer.hidden {
            remove_below(&mut self.nodes, path);
            self.nodes.remove(path);
        }
        for (path, node) in layer.nodes.into_iter().chain(links) {
            put(&mut self.nodes, path, node);
        }
    }

    /// All files, by path.
    pub fn files(&self) -> impl Iterator<Item = (&[u8], Place)> {
        self.nodes.iter().filter_map(|(path, node)| match node {
            Node::File(place) => Some((path.as_slice(), *place)),
            _ => None,
        })
    }

    /// Follows symbolic links, which never lead out of the root.
    pub fn find(&self, wanted: &[u8]) -> Result<Place, Lost> {
        let mut hops = 0;
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut left: VecDeque<Vec<u8>> = path::parts(wanted).map(<[u8]>::to_vec).collect();
        while let Some(part) = left.pop_front() {
            if part == b".." {
                at.pop().ok_or_else(|| Lost::Not("leads out of the image".to_owned()))?;
                continue;
            }
            at.push(part);
            match self.nodes.get(&at.join(&b'/')) {
                Some(Node::File(place)) if left.is_empty() => return Ok(*place),
                Some(Node::File(_)) => return Err(Lost::Absent),
                Some(Node::Other(what)) => return Err(Lost::Not(format!("is {what}"))),
                Some(Node::Directory) => {}
                None if below(&self.nodes, &at.join(&b'/')).next().is_some() => {}
                None => return Err(Lost::Absent),
                Some(Node::Link(target)) => {
                    hops += 1;
                    if hops > HOPS {
                        return Err(Lost::Not("is a symbolic link in a circle".to_owned()));
                    }
                    at.pop();
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    for part in path::parts(target).rev() {
                        left.push_front(part.to_vec());
                    }
                }
            }
        }
        Err(Lost::Not("is a folder".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_hard_links_to_a_long_symlink_hold_its_target_once() {
        let entry = |number, path: &str, kind| Entry { number, path: path.as_bytes().to_vec(), kind, size: 0 };
        let (mut lower, mut upper) = (Layer::default(), Layer::default());
        lower.add(0, entry(0, "long", Kind::Symlink(vec![b'x'; 4096]))).unwrap();
        for number in 0..3 {
            let name = format!("{number}");
            lower.add(0, entry(number + 1, &name, Kind::HardLink(b"long".to_vec()))).unwrap();
            // Of a file that a lower layer holds.
            upper.add(1, entry(number, &format!("upper{number}"), Kind::HardLink(name.into_bytes()))).unwrap();
        }
        let mut tree = Tree::default();
        tree.lay(lower);
        tree.lay(upper);
        let targets: Vec<_> = tree
            .nodes
            .values()
            .map(|node| match node {
                Node::Link(target) => target.as_ptr(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(targets, vec![targets[0]; 7]);
    }
}
