//! Produce, with record batches as they are.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes};
use kafka_protocol::messages::ApiKey;

use super::connection::Connection;
use super::order::{Endpoints, Order, read_leader};
use super::primitives::{Malformed, Reader, put_compact_len};
use super::{ClientError, KafkaError, LeaderHint, TopicId, rpc};

/// Whose word counts as written. Zero is not offered: a write without an answer has no place here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// The leader's.
    Leader,
    /// That of all in-sync replicas.
    All,
}

/// One record batch for one partition.
#[derive(Debug, Clone)]
pub struct PartitionBatch {
    /// Topic name.
    pub topic: Arc<str>,
    /// Topic id, or [`TopicId::NONE`]. With ids for all batches and a broker of 4.1 or newer the topic is meant by id, so a topic
    /// deleted and created again is not written to by mistake.
    pub topic_id: TopicId,
    /// Partition index.
    pub partition: i32,
    /// The batch's header, as it shall stand in the target.
    pub header: [u8; 61],
    /// The batch after its header. Never copied on its way to the socket.
    pub payload: Bytes,
}

/// What became of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceOutcome {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition index.
    pub partition: i32,
    /// Why it was not written.
    pub error: Option<KafkaError>,
    /// Offset of the batch's first record; -1 with most errors.
    pub base_offset: i64,
    /// The broker's clock, in ms since 1970, where the topic stamps at append; else -1.
    pub log_append_time: i64,
    /// First offset still in the log; -1 where unknown.
    pub log_start_offset: i64,
    /// Records that spoiled the batch, at most [`MAX_RECORD_ERRORS`].
    pub record_errors: Vec<RecordError>,
    /// The broker's own words.
    pub message: Option<String>,
    /// The leader to go to, from a broker that is not.
    pub leader: Option<LeaderHint>,
}

/// One record that a broker refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Index of the record in its batch.
    pub index: i32,
    /// Why.
    pub message: Option<String>,
}

/// Record errors kept of one answer for one partition.
pub const MAX_RECORD_ERRORS: usize = 100;

impl Connection {
    /// Produces one batch for each of some partitions.
    ///
    /// `timeout_ms` is the broker's deadline for `acks`; the connection's request timeout is added to it. Outcomes stand in the order of `batches`.
    ///
    /// # Errors
    /// Any [`ClientError`] that concerns the whole request; what concerns one partition is in its outcome. [`ClientError::Invalid`] when a
    /// partition is named twice (a broker would keep one of the two and answer once) or nothing is given.
    pub async fn produce(
        &self,
        acks: Acks,
        timeout_ms: i32,
        batches: Vec<PartitionBatch>,
    ) -> Result<Vec<ProduceOutcome>, ClientError> {
        let highest = self.needed(ApiKey::Produce)?;
        let by_id = batches.iter().all(|batch| batch.topic_id.is_some());
        let version = if by_id { highest } else { highest.min(LAST_BY_NAME) };
        let order = Order::new(
            batches.iter().map(|batch| (&batch.topic, batch.topic_id, batch.partition)),
            version > LAST_BY_NAME,
        )?;
        let correlation = self.shared.correlations.next();
        let chunks = encode(version, correlation, &self.shared.client_id, acks, timeout_ms, &order, &batches)
            .map_err(|error| ClientError::Invalid { detail: format!("Produce v{version}: {error}") })?;
        let targets = batches.into_iter().map(|batch| (batch.topic, batch.partition)).collect();
        let answer = self.exchange(ApiKey::Produce, correlation, chunks, self.timeout_with(timeout_ms)).await?;
        let (outcomes, throttle) = decode(version, &answer, &order, targets)
            .map_err(|error| self.misbehaved(format!("Produce v{version}: {error}")))?;
        self.throttle(throttle);
        Ok(outcomes)
    }
}

/// The last version that names topics by name.
const LAST_BY_NAME: i16 = 12;
/// A batch's header.
const HEADER: usize = 61;

/// Chunks of the frame: what stands before a batch together with its header, then its payload as it is, and so on.
fn encode(
    version: i16,
    correlation: i32,
    client_id: &str,
    acks: Acks,
    timeout_ms: i32,
    order: &Order,
    batches: &[PartitionBatch],
) -> anyhow::Result<Vec<Bytes>> {
    // Where each payload belongs: after so many bytes of the rest.
    let mut payloads = Vec::with_capacity(batches.len());
    let mut rest = rpc::frame(ApiKey::Produce, version, true, correlation, client_id, |out| {
        out.put_u8(0); // no transactional id
        out.put_i16(match acks {
            Acks::Leader => 1,
            Acks::All => -1,
        });
        out.put_i32(timeout_ms);
        put_compact_len(out, order.topics().len());
        for topic in order.topics() {
            topic.put_name(out);
            put_compact_len(out, topic.items.len());
            for &at in &topic.items {
                let batch = &batches[at];
                out.put_i32(batch.partition);
                put_compact_len(out, HEADER + batch.payload.len());
                out.put_slice(&batch.header);
                payloads.push((out.len(), batch.payload.clone()));
                out.put_u8(0);
            }
            out.put_u8(0);
        }
        out.put_u8(0);
        Ok(payloads.iter().map(|(_, payload)| payload.len()).sum())
    })?
    .freeze();
    let mut chunks = Vec::with_capacity(2 * payloads.len() + 1);
    let mut taken = 0;
    for (end, payload) in payloads {
        chunks.push(rest.split_to(end - taken));
        chunks.push(payload);
        taken = end;
    }
    chunks.push(rest);
    Ok(chunks)
}

/// Outcomes in the order of the request, and the throttle time.
fn decode(
    version: i16,
    answer: &[u8],
    order: &Order,
    targets: Vec<(Arc<str>, i32)>,
) -> Result<(Vec<ProduceOutcome>, i32), Malformed> {
    let mut reader = Reader::new(answer);
    reader.skip_tags()?;
    let mut outcomes: Vec<Option<ProduceOutcome>> = targets.iter().map(|_| None).collect();
    for _ in 0..reader.count(true, 3)? {
        let topic = order.read_topic(&mut reader)?;
        for _ in 0..reader.count(true, 33)? {
            let index = reader.i32()?;
            let at = order.find(topic, index).filter(|&at| outcomes[at].is_none());
            let at = at.ok_or_else(|| reader.malformed("a partition that was not asked for, or twice"))?;
            outcomes[at] = Some(read_outcome(&mut reader, Arc::clone(&targets[at].0), index)?);
        }
        reader.skip_tags()?;
    }
    let throttle = reader.i32()?;
    let mut endpoints = Endpoints::default();
    reader.tags(
        |tag, inside| if tag == 0 && version >= 10 { endpoints.read(inside).map(|()| true) } else { Ok(false) },
    )?;
    reader.end()?;
    let mut answered = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let mut outcome = outcome.ok_or_else(|| reader.malformed("no answer for a partition that was asked for"))?;
        endpoints.complete(&mut outcome.leader);
        answered.push(outcome);
    }
    Ok((answered, throttle))
}

fn read_outcome(reader: &mut Reader<'_>, topic: Arc<str>, partition: i32) -> Result<ProduceOutcome, Malformed> {
    let error = KafkaError::from_code(reader.i16()?);
    let (base_offset, log_append_time, log_start_offset) = (reader.i64()?, reader.i64()?, reader.i64()?);
    let mut record_errors = Vec::new();
    for _ in 0..reader.count(true, 6)? {
        let record = RecordError { index: reader.i32()?, message: reader.text(true)? };
        reader.skip_tags()?;
        if record_errors.len() < MAX_RECORD_ERRORS {
            record_errors.push(record);
        }
    }
    let message = reader.text(true)?;
    let mut leader = None;
    reader.tags(
        |tag, inside| if tag == 0 { read_leader(inside).map(|hint| leader = hint).map(|()| true) } else { Ok(false) },
    )?;
    Ok(ProduceOutcome {
        topic,
        partition,
        error,
        base_offset,
        log_append_time,
        log_start_offset,
        record_errors,
        message,
        leader,
    })
}

/// Arbitrary bytes as the answer to batches of three partitions; for fuzzing. Panics never.
pub(super) fn fuzz(version: i16, answer: &[u8]) {
    let targets: Vec<(Arc<str>, i32)> = [("a", 1), ("b", 0), ("a", 0)].map(|(topic, n)| (topic.into(), n)).into();
    let names = targets.iter().map(|(topic, n)| (topic, TopicId([topic.as_bytes()[0]; 16]), *n));
    let order = Order::new(names, version > LAST_BY_NAME).expect("an order");
    if let Ok((outcomes, _)) = decode(version, answer, &order, targets.clone()) {
        assert_eq!(outcomes.len(), targets.len(), "one outcome for each partition");
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf as _, BytesMut};
    use kafka_protocol::messages::produce_response::{
        BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{BrokerId, ProduceRequest, ProduceResponse, RequestHeader, TopicName};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    use super::*;

    fn batch(topic: &str, partition: i32, fill: u8) -> PartitionBatch {
        let id = TopicId([topic.as_bytes()[0]; 16]);
        PartitionBatch {
            topic: topic.into(),
            topic_id: id,
            partition,
            header: [fill; 61],
            payload: vec![fill; 100].into(),
        }
    }

    fn order(batches: &[PartitionBatch], version: i16) -> Result<Order, ClientError> {
        Order::new(batches.iter().map(|one| (&one.topic, one.topic_id, one.partition)), version > LAST_BY_NAME)
    }

    #[test]
    fn requests_are_what_a_broker_reads_and_payloads_are_not_copied() {
        let batches = [batch("a", 1, 1), batch("b", 0, 2), batch("a", 0, 3)];
        for version in 9..=13 {
            let order = order(&batches, version).expect("an order");
            let chunks = encode(version, 7, "test", Acks::All, 1500, &order, &batches).expect("a request");
            for one in &batches {
                assert!(chunks.iter().any(|chunk| chunk.as_ptr() == one.payload.as_ptr()), "copied");
            }
            let mut frame = Bytes::from(chunks.concat());
            assert_eq!(frame.get_i32() as usize, frame.len());
            let header = RequestHeader::decode(&mut frame, 2).expect("a header");
            assert_eq!((header.request_api_version, header.correlation_id), (version, 7));
            let request = ProduceRequest::decode(&mut frame, version).expect("a request");
            assert_eq!(frame.len(), 0);
            assert_eq!((request.acks, request.timeout_ms, request.transactional_id), (-1, 1500, None));
            let seen: Vec<_> = request
                .topic_data
                .iter()
                .flat_map(|topic| topic.partition_data.iter().map(move |one| (topic, one)))
                .map(|(topic, one)| {
                    let name = if version > 12 { topic.topic_id.as_bytes()[0] } else { topic.name.as_bytes()[0] };
                    let records = one.records.as_ref().expect("records");
                    assert_eq!(records.len(), 161);
                    (name, one.index, records[0], records[160])
                })
                .collect();
            assert_eq!(seen, [(b'a', 1, 1, 1), (b'a', 0, 3, 3), (b'b', 0, 2, 2)]);
        }
    }

    fn answer(version: i16) -> Bytes {
        let spoiled = BatchIndexAndErrorMessage::default()
            .with_batch_index(4)
            .with_batch_index_error_message(Some(StrBytes::from_static_str("null key")));
        let refused = PartitionProduceResponse::default()
            .with_index(0)
            .with_error_code(6)
            .with_base_offset(-1)
            .with_record_errors(vec![spoiled])
            .with_error_message(Some(StrBytes::from_static_str("moved")));
        let refused = if version < 10 {
            refused
        } else {
            refused.with_current_leader(LeaderIdAndEpoch::default().with_leader_id(BrokerId(3)).with_leader_epoch(9))
        };
        let written =
            PartitionProduceResponse::default().with_index(1).with_base_offset(41).with_log_append_time_ms(-1);
        let topic = |name: &'static str, partitions| {
            let topic = TopicProduceResponse::default().with_partition_responses(partitions);
            if version > 12 {
                topic.with_topic_id(format!("{:02x}", name.as_bytes()[0]).repeat(16).parse().expect("a uuid"))
            } else {
                topic.with_name(TopicName(StrBytes::from_static_str(name)))
            }
        };
        let end = NodeEndpoint::default()
            .with_node_id(BrokerId(3))
            .with_host(StrBytes::from_static_str("b3"))
            .with_port(9092);
        let answer = ProduceResponse::default()
            .with_responses(vec![topic("a", vec![refused, written.clone()]), topic("b", vec![written.with_index(0)])])
            .with_throttle_time_ms(12);
        let answer = if version < 10 { answer } else { answer.with_node_endpoints(vec![end]) };
        let mut out = BytesMut::new();
        out.put_u8(0);
        answer.encode(&mut out, version).expect("an answer");
        out.freeze()
    }

    #[test]
    fn outcomes_stand_in_the_order_of_the_batches() {
        let batches = [batch("a", 1, 1), batch("b", 0, 2), batch("a", 0, 3)];
        let targets: Vec<_> = batches.iter().map(|one| (Arc::clone(&one.topic), one.partition)).collect();
        for version in 9..=13 {
            let order = order(&batches, version).expect("an order");
            let (outcomes, throttle) = decode(version, &answer(version), &order, targets.clone()).expect("an answer");
            assert_eq!(throttle, 12);
            let places: Vec<_> = outcomes.iter().map(|one| (&*one.topic, one.partition, one.base_offset)).collect();
            assert_eq!(places, [("a", 1, 41), ("b", 0, 41), ("a", 0, -1)]);
            let refused = &outcomes[2];
            assert_eq!(refused.error, Some(KafkaError::NOT_LEADER_OR_FOLLOWER));
            assert_eq!(refused.record_errors, [RecordError { index: 4, message: Some("null key".into()) }]);
            assert_eq!(refused.message.as_deref(), Some("moved"));
            let address = Some("b3:9092".parse().expect("a target"));
            let hint = (version >= 10).then_some(LeaderHint { node_id: 3, leader_epoch: 9, address });
            assert_eq!(refused.leader, hint);
        }
    }

    #[test]
    fn answers_that_are_cut_changed_or_about_something_else_never_panic() {
        let batches = [batch("a", 1, 1), batch("b", 0, 2), batch("a", 0, 3)];
        let targets: Vec<_> = batches.iter().map(|one| (Arc::clone(&one.topic), one.partition)).collect();
        for version in [9, 12, 13] {
            let order = order(&batches, version).expect("an order");
            let whole = answer(version);
            for end in 0..whole.len() {
                assert!(decode(version, &whole[..end], &order, targets.clone()).is_err(), "v{version} cut at {end}");
            }
            for at in 0..whole.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = whole.to_vec();
                    changed[at] = value;
                    let _ = decode(version, &changed, &order, targets.clone());
                }
            }
        }
        // A partition missing from the answer is as bad as one too many.
        let one = &batches[..1];
        let order = order(one, 12).expect("an order");
        assert!(decode(12, &answer(12), &order, targets[..1].to_vec()).is_err());
    }

    #[test]
    fn a_partition_given_twice_is_the_callers_mistake() {
        let error = order(&[batch("a", 1, 1), batch("a", 1, 2)], 12).expect_err("an error");
        assert_eq!(error.to_string(), "partition a-1 is given twice in one request");
        assert!(order(&[], 12).is_err());
    }
}
