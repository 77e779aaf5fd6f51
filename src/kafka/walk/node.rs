//! A node of a cluster as responses write it: id, host, port, and what stands around them.

use super::super::primitives::{Cursor, Malformed};

/// What one element of a list of nodes is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Node id, host, port, rack where `rack`, tagged fields: brokers of Metadata, endpoints everywhere.
    Node {
        /// Compact strings and tagged fields.
        flexible: bool,
        /// With a rack (Metadata from version 1).
        rack: bool,
    },
    /// A broker of DescribeCluster: as a node with rack, and whether it is fenced (from version 2).
    ClusterBroker {
        /// With the fenced flag.
        fenced: bool,
    },
    /// A coordinator of FindCoordinator from version 4: its key before, error code and message behind.
    Coordinator,
}

impl Layout {
    /// Whether strings are compact and tagged fields follow.
    #[must_use]
    pub const fn flexible(self) -> bool {
        match self {
            Self::Node { flexible, .. } => flexible,
            Self::ClusterBroker { .. } | Self::Coordinator => true,
        }
    }
}

/// One node, with the bytes around its address as they stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node<'a> {
    /// Bytes before the node id (a coordinator's key), mostly none.
    pub before: &'a [u8],
    /// The node's id; below zero for no node.
    pub node_id: i32,
    /// The host, as bytes.
    pub host: &'a [u8],
    /// The port; a broker may send any INT32.
    pub port: i32,
    /// Bytes behind the port: rack, flags, tagged fields.
    pub after: &'a [u8],
}

impl<'a> Node<'a> {
    /// Reads one node.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn read(cursor: &mut Cursor<'a>, layout: Layout) -> Result<Self, Malformed> {
        let flexible = layout.flexible();
        let start = cursor.position();
        if layout == Layout::Coordinator {
            cursor.text(true, "coordinator key")?;
        }
        let before = cursor.since(start);
        let node_id = cursor.i32("node id")?;
        let host = cursor.text(flexible, "host")?.unwrap_or_default();
        let port = cursor.i32("port")?;
        let start = cursor.position();
        match layout {
            Layout::Node { rack, .. } => {
                if rack {
                    cursor.text(flexible, "rack")?;
                }
            }
            Layout::ClusterBroker { fenced } => {
                cursor.text(true, "rack")?;
                if fenced {
                    cursor.i8("fenced")?;
                }
            }
            Layout::Coordinator => {
                cursor.i16("error code")?;
                cursor.text(true, "error message")?;
            }
        }
        cursor.skip_tags(flexible)?;
        Ok(Self { before, node_id, host, port, after: cursor.since(start) })
    }
}

/// A list of nodes inside a body, read one by one.
#[derive(Debug, Clone)]
pub struct NodeList<'a> {
    /// Bytes before the list's count.
    pub before: &'a [u8],
    /// Nodes announced; `None` for a null list.
    pub count: Option<usize>,
    layout: Layout,
    left: usize,
    cursor: Cursor<'a>,
}

impl<'a> NodeList<'a> {
    /// Reads the count of a list that begins at the cursor's position.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn read(mut cursor: Cursor<'a>, layout: Layout) -> Result<Self, Malformed> {
        let before = cursor.since(0);
        let count = cursor.count(layout.flexible(), "nodes")?;
        Ok(Self { before, count, layout, left: count.unwrap_or(0), cursor })
    }

    /// What its nodes look like.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The next node; `None` after the last.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn next_node(&mut self) -> Result<Option<Node<'a>>, Malformed> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        Node::read(&mut self.cursor, self.layout).map(Some)
    }

    /// What follows the nodes read so far.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.cursor.rest()
    }
}
