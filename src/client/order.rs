//! What Produce and Fetch have in common: partitions grouped by topic on the way out, found again in the answer, and leader hints.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};

use super::primitives::{Malformed, Reader, put_compact_text};
use super::{ClientError, LeaderHint, TopicId};
use crate::net::HostPort;

/// The partitions of a request, grouped by topic, each known by its place in the caller's list.
#[derive(Debug)]
pub(super) struct Order {
    by_id: bool,
    topics: Vec<Topic>,
    names: HashMap<Arc<str>, usize>,
    ids: HashMap<TopicId, usize>,
    places: HashMap<(usize, i32), usize>,
}

/// One topic of a request.
#[derive(Debug)]
pub(super) struct Topic {
    name: Arc<str>,
    id: TopicId,
    by_id: bool,
    /// Places of its partitions in the caller's list.
    pub(super) items: Vec<usize>,
}

impl Topic {
    /// Writes the topic as the request's version wants it.
    pub(super) fn put_name(&self, out: &mut BytesMut) {
        if self.by_id {
            out.put_slice(&self.id.0);
        } else {
            put_compact_text(out, &self.name);
        }
    }
}

impl Order {
    /// Groups; a partition named twice, or nothing at all, is the caller's mistake.
    pub(super) fn new<'a>(
        partitions: impl Iterator<Item = (&'a Arc<str>, TopicId, i32)>,
        by_id: bool,
    ) -> Result<Self, ClientError> {
        let mut order =
            Self { by_id, topics: Vec::new(), names: HashMap::new(), ids: HashMap::new(), places: HashMap::new() };
        for (at, (name, id, partition)) in partitions.enumerate() {
            let topic = match order.names.get(name) {
                Some(&topic) => topic,
                None => order.add(name, id)?,
            };
            if order.topics[topic].id != id {
                return Err(invalid(format!("topic {name} is given with two topic ids")));
            }
            if order.places.insert((topic, partition), at).is_some() {
                return Err(invalid(format!("partition {name}-{partition} is given twice in one request")));
            }
            order.topics[topic].items.push(at);
        }
        if order.topics.is_empty() {
            return Err(invalid("a request without partitions".to_owned()));
        }
        Ok(order)
    }

    fn add(&mut self, name: &Arc<str>, id: TopicId) -> Result<usize, ClientError> {
        let topic = self.topics.len();
        self.names.insert(Arc::clone(name), topic);
        if self.by_id && self.ids.insert(id, topic).is_some() {
            return Err(invalid(format!("topic {name} is given with the topic id of another")));
        }
        self.topics.push(Topic { name: Arc::clone(name), id, by_id: self.by_id, items: Vec::new() });
        Ok(topic)
    }

    pub(super) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Reads a topic of the answer: one of the request's.
    pub(super) fn read_topic(&self, reader: &mut Reader<'_>) -> Result<usize, Malformed> {
        let found = if self.by_id {
            self.ids.get(&TopicId(reader.uuid()?)).copied()
        } else {
            let name = reader.text(true)?.unwrap_or_default();
            self.names.get(name.as_str()).copied()
        };
        found.ok_or_else(|| reader.malformed("a topic that was not asked for"))
    }

    /// The place of a partition in the caller's list.
    pub(super) fn find(&self, topic: usize, partition: i32) -> Option<usize> {
        self.places.get(&(topic, partition)).copied()
    }
}

fn invalid(detail: String) -> ClientError {
    ClientError::Invalid { detail }
}

/// A `current_leader` structure; `None` where the broker knows no leader.
pub(super) fn read_leader(reader: &mut Reader<'_>) -> Result<Option<LeaderHint>, Malformed> {
    let (node_id, leader_epoch) = (reader.i32()?, reader.i32()?);
    reader.skip_tags()?;
    Ok((node_id >= 0).then_some(LeaderHint { node_id, leader_epoch, address: None }))
}

/// Addresses of the leaders hinted at (`node_endpoints`).
#[derive(Debug, Default)]
pub(super) struct Endpoints(HashMap<i32, HostPort>);

impl Endpoints {
    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        for _ in 0..reader.count(true, 11)? {
            let node_id = reader.i32()?;
            let host = reader.text(true)?.unwrap_or_default();
            let port = reader.i32()?;
            reader.skip_text(true)?;
            reader.skip_tags()?;
            // An address that is none is a hint that helps nobody; metadata will say more.
            if let Some(address) = u16::try_from(port).ok().and_then(|port| HostPort::new(&host, port).ok()) {
                self.0.insert(node_id, address);
            }
        }
        Ok(())
    }

    pub(super) fn complete(&self, hint: &mut Option<LeaderHint>) {
        if let Some(hint) = hint {
            hint.address = self.0.get(&hint.node_id).cloned();
        }
    }
}
