//! Fetch, with record batches as they are.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes};
use kafka_protocol::messages::ApiKey;

use super::connection::Connection;
use super::order::{Endpoints, Order, read_leader};
use super::primitives::{Malformed, Reader, put_compact_len, put_compact_text};
use super::{ClientError, KafkaError, LeaderHint, TopicId, rpc};

/// What becomes of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Everything up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset, with the list of aborted transactions.
    ReadCommitted,
}

/// What to fetch from one broker. Sessions are not used: each request says all.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// How long the broker may wait for `min_bytes`, in ms. Added to the connection's request timeout.
    pub max_wait_ms: i32,
    /// The answer is sent at once when this much is there.
    pub min_bytes: i32,
    /// The answer's bound, in bytes of records (one batch may pass it). At most [`MAX_FETCH_BYTES`].
    pub max_bytes: i32,
    /// What becomes of transactions.
    pub isolation: Isolation,
    /// What to fetch; each partition once.
    pub partitions: Vec<FetchPartition>,
}

/// One partition to fetch from.
#[derive(Debug, Clone)]
pub struct FetchPartition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Topic id, or [`TopicId::NONE`]. Brokers of 3.1 and newer are asked by id where all partitions have one.
    pub topic_id: TopicId,
    /// Partition index.
    pub partition: i32,
    /// First offset wanted.
    pub offset: i64,
    /// The leader's epoch as known from metadata, so that a stale leader refuses; -1 for no check.
    pub leader_epoch: i32,
    /// Bound for this partition, in bytes (its first batch may pass it).
    pub max_bytes: i32,
}

/// What one partition answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPartition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition index.
    pub partition: i32,
    /// Why there are no records.
    pub error: Option<KafkaError>,
    /// Offset after the last replicated record; -1 with most errors.
    pub high_watermark: i64,
    /// Offset after the last record of a decided transaction; -1 where unknown.
    pub last_stable_offset: i64,
    /// First offset still in the log; -1 where unknown.
    pub log_start_offset: i64,
    /// Aborted transactions that touch these records, by first offset as the broker ordered them (read_committed only).
    pub aborted_transactions: Vec<AbortedTransaction>,
    /// Whole batches and perhaps a cut one at the end; a slice of the answer's buffer. The first may begin before the offset asked for.
    pub records: Bytes,
    /// The leader to go to, from a broker that is not.
    pub leader: Option<LeaderHint>,
}

/// One aborted transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer id.
    pub producer_id: i64,
    /// Its first offset in the partition.
    pub first_offset: i64,
}

/// Bound of [`FetchRequest::max_bytes`], so that an answer with one oversized batch stays below the frame cap.
pub const MAX_FETCH_BYTES: i32 = 64 << 20;

impl Connection {
    /// Fetches. Answers stand in the order of the request's partitions, one for each.
    ///
    /// # Errors
    /// Any [`ClientError`] that concerns the whole request; what concerns one partition is in its answer. [`ClientError::Invalid`] when a
    /// partition is named twice or a bound is passed.
    pub async fn fetch(&self, request: FetchRequest) -> Result<Vec<FetchedPartition>, ClientError> {
        let highest = self.needed(ApiKey::Fetch)?;
        if !(0..=MAX_FETCH_BYTES).contains(&request.max_bytes) {
            let detail = format!("max_bytes of {}, outside 0 to {MAX_FETCH_BYTES}", request.max_bytes);
            return Err(ClientError::Invalid { detail });
        }
        let by_id = request.partitions.iter().all(|one| one.topic_id.is_some());
        let version = if by_id { highest } else { highest.min(LAST_BY_NAME) };
        let asked = request.partitions.iter().map(|one| (&one.topic, one.topic_id, one.partition));
        let order = Order::new(asked, version > LAST_BY_NAME)?;
        let correlation = self.shared.correlations.next();
        let frame = encode(version, correlation, &self.shared.client_id, &order, &request)
            .map_err(|error| ClientError::Invalid { detail: format!("Fetch v{version}: {error}") })?;
        let timeout = self.timeout_with(request.max_wait_ms);
        let answer = self.exchange(ApiKey::Fetch, correlation, vec![frame], timeout).await?;
        let misbehaved = |error: Malformed| self.misbehaved(format!("Fetch v{version}: {error}"));
        let (fetched, throttle) = decode(version, &answer, &order, &request.partitions).map_err(misbehaved)?;
        self.throttle(throttle);
        fetched.map_err(|error| ClientError::Kafka { api: ApiKey::Fetch, error, message: None })
    }
}

/// The last version that names topics by name.
const LAST_BY_NAME: i16 = 12;

fn encode(
    version: i16,
    correlation: i32,
    client_id: &str,
    order: &Order,
    request: &FetchRequest,
) -> anyhow::Result<Bytes> {
    let frame = rpc::frame(ApiKey::Fetch, version, true, correlation, client_id, |out| {
        if version <= 14 {
            out.put_i32(-1); // a consumer, no replica
        }
        out.put_i32(request.max_wait_ms);
        out.put_i32(request.min_bytes);
        out.put_i32(request.max_bytes);
        out.put_i8(match request.isolation {
            Isolation::ReadUncommitted => 0,
            Isolation::ReadCommitted => 1,
        });
        out.put_i32(0); // no session,
        out.put_i32(-1); // and none wanted
        put_compact_len(out, order.topics().len());
        for topic in order.topics() {
            topic.put_name(out);
            put_compact_len(out, topic.items.len());
            for &at in &topic.items {
                let one = &request.partitions[at];
                out.put_i32(one.partition);
                out.put_i32(one.leader_epoch);
                out.put_i64(one.offset);
                out.put_i32(-1); // no last fetched epoch: truncation is seen by offsets
                out.put_i64(-1); // no log of our own
                out.put_i32(one.max_bytes);
                out.put_u8(0);
            }
            out.put_u8(0);
        }
        put_compact_len(out, 0); // nothing forgotten
        put_compact_text(out, ""); // no rack
        out.put_u8(0);
        Ok(0)
    })?;
    Ok(frame.freeze())
}

/// One answer for each partition asked for, or the error of the whole, and the throttle time.
type Fetched = (Result<Vec<FetchedPartition>, KafkaError>, i32);

fn decode(version: i16, answer: &Bytes, order: &Order, asked: &[FetchPartition]) -> Result<Fetched, Malformed> {
    let mut reader = Reader::new(answer);
    reader.skip_tags()?;
    let throttle = reader.i32()?;
    let error = KafkaError::from_code(reader.i16()?);
    let _session = reader.i32()?;
    let mut fetched: Vec<Option<FetchedPartition>> = asked.iter().map(|_| None).collect();
    for _ in 0..reader.count(true, 3)? {
        let topic = order.read_topic(&mut reader)?;
        for _ in 0..reader.count(true, 37)? {
            let index = reader.i32()?;
            let at = order.find(topic, index).filter(|&at| fetched[at].is_none());
            let at = at.ok_or_else(|| reader.malformed("a partition that was not asked for, or twice"))?;
            fetched[at] = Some(read_partition(&mut reader, answer, &asked[at])?);
        }
        reader.skip_tags()?;
    }
    let mut endpoints = Endpoints::default();
    reader.tags(
        |tag, inside| if tag == 0 && version >= 16 { endpoints.read(inside).map(|()| true) } else { Ok(false) },
    )?;
    reader.end()?;
    if let Some(error) = error {
        return Ok((Err(error), throttle));
    }
    let mut answered = Vec::with_capacity(fetched.len());
    for one in fetched {
        let mut one = one.ok_or_else(|| reader.malformed("no answer for a partition that was asked for"))?;
        endpoints.complete(&mut one.leader);
        answered.push(one);
    }
    Ok((Ok(answered), throttle))
}

fn read_partition(
    reader: &mut Reader<'_>,
    answer: &Bytes,
    asked: &FetchPartition,
) -> Result<FetchedPartition, Malformed> {
    let error = KafkaError::from_code(reader.i16()?);
    let (high_watermark, last_stable_offset, log_start_offset) = (reader.i64()?, reader.i64()?, reader.i64()?);
    let count = reader.count(true, 17)?;
    let mut aborted_transactions = Vec::with_capacity(count);
    for _ in 0..count {
        aborted_transactions.push(AbortedTransaction { producer_id: reader.i64()?, first_offset: reader.i64()? });
        reader.skip_tags()?;
    }
    let _preferred_replica = reader.i32()?;
    let records = reader.blob(true)?.map_or_else(Bytes::new, |records| answer.slice_ref(records));
    let mut leader = None;
    reader.tags(
        |tag, inside| if tag == 1 { read_leader(inside).map(|hint| leader = hint).map(|()| true) } else { Ok(false) },
    )?;
    Ok(FetchedPartition {
        topic: Arc::clone(&asked.topic),
        partition: asked.partition,
        error,
        high_watermark,
        last_stable_offset,
        log_start_offset,
        aborted_transactions,
        records,
        leader,
    })
}

/// Arbitrary bytes as the answer to a request for three partitions; for fuzzing. Panics never.
pub(super) fn fuzz(version: i16, answer: &Bytes) {
    let one = |topic: &str, partition| FetchPartition {
        topic: topic.into(),
        topic_id: TopicId([topic.as_bytes()[0]; 16]),
        partition,
        offset: 0,
        leader_epoch: -1,
        max_bytes: 1,
    };
    let asked = [one("a", 1), one("b", 0), one("a", 0)];
    let names = asked.iter().map(|one| (&one.topic, one.topic_id, one.partition));
    let order = Order::new(names, version > LAST_BY_NAME).expect("an order");
    if let Ok((Ok(fetched), _)) = decode(version, answer, &order, &asked) {
        assert_eq!(fetched.len(), asked.len(), "one answer for each partition");
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf as _, BytesMut};
    use kafka_protocol::messages::fetch_response::{
        AbortedTransaction as Aborted, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
    };
    use kafka_protocol::messages::{self, BrokerId, FetchResponse, ProducerId, RequestHeader, TopicName};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

    use super::*;

    fn wanted() -> FetchRequest {
        let one = |topic: &str, partition, offset| FetchPartition {
            topic: topic.into(),
            topic_id: TopicId([topic.as_bytes()[0]; 16]),
            partition,
            offset,
            leader_epoch: 5,
            max_bytes: 1000,
        };
        FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 1 << 20,
            isolation: Isolation::ReadCommitted,
            partitions: vec![one("a", 1, 10), one("b", 0, 20), one("a", 0, 30)],
        }
    }

    fn order(request: &FetchRequest, version: i16) -> Order {
        let asked = request.partitions.iter().map(|one| (&one.topic, one.topic_id, one.partition));
        Order::new(asked, version > LAST_BY_NAME).expect("an order")
    }

    #[test]
    fn requests_are_what_a_broker_reads() {
        let request = wanted();
        for version in 12..=17 {
            let mut frame = encode(version, 7, "test", &order(&request, version), &request).expect("a request");
            assert_eq!(frame.get_i32() as usize, frame.len());
            let header = RequestHeader::decode(&mut frame, 2).expect("a header");
            assert_eq!((header.request_api_version, header.correlation_id), (version, 7));
            let read = messages::FetchRequest::decode(&mut frame, version).expect("a request");
            assert_eq!(frame.len(), 0);
            assert_eq!((read.max_wait_ms, read.min_bytes, read.max_bytes, read.isolation_level), (500, 1, 1 << 20, 1));
            assert_eq!((read.replica_id.0, read.session_id, read.session_epoch), (-1, 0, -1));
            let seen: Vec<_> = read
                .topics
                .iter()
                .flat_map(|topic| topic.partitions.iter().map(move |one| (topic, one)))
                .map(|(topic, one)| {
                    let name = if version > 12 { topic.topic_id.as_bytes()[0] } else { topic.topic.as_bytes()[0] };
                    (name, one.partition, one.fetch_offset, one.current_leader_epoch, one.partition_max_bytes)
                })
                .collect();
            assert_eq!(seen, [(b'a', 1, 10, 5, 1000), (b'a', 0, 30, 5, 1000), (b'b', 0, 20, 5, 1000)]);
        }
    }

    fn answer(version: i16, error: i16) -> Bytes {
        let aborted = Aborted::default().with_producer_id(ProducerId(77)).with_first_offset(11);
        let full = PartitionData::default()
            .with_partition_index(1)
            .with_high_watermark(100)
            .with_last_stable_offset(90)
            .with_log_start_offset(3)
            .with_aborted_transactions(Some(vec![aborted]))
            .with_records(Some(Bytes::from_static(b"records of a-1")));
        let moved = PartitionData::default()
            .with_partition_index(0)
            .with_error_code(6)
            .with_high_watermark(-1)
            .with_current_leader(LeaderIdAndEpoch::default().with_leader_id(BrokerId(3)).with_leader_epoch(9));
        let empty = PartitionData::default().with_partition_index(0).with_aborted_transactions(None);
        let topic = |name: &'static str, partitions| {
            let topic = FetchableTopicResponse::default().with_partitions(partitions);
            if version > 12 {
                topic.with_topic_id(format!("{:02x}", name.as_bytes()[0]).repeat(16).parse().expect("a uuid"))
            } else {
                topic.with_topic(TopicName(StrBytes::from_static_str(name)))
            }
        };
        let end = NodeEndpoint::default()
            .with_node_id(BrokerId(3))
            .with_host(StrBytes::from_static_str("b3"))
            .with_port(9092);
        let answer = FetchResponse::default()
            .with_throttle_time_ms(12)
            .with_error_code(error)
            .with_responses(vec![topic("a", vec![moved, full]), topic("b", vec![empty])]);
        let answer = if version < 16 { answer } else { answer.with_node_endpoints(vec![end]) };
        let mut out = BytesMut::new();
        out.put_u8(0);
        answer.encode(&mut out, version).expect("an answer");
        out.freeze()
    }

    #[test]
    fn answers_stand_in_the_order_of_the_request_and_records_are_slices() {
        let request = wanted();
        for version in 12..=17 {
            let frame = answer(version, 0);
            let (fetched, throttle) =
                decode(version, &frame, &order(&request, version), &request.partitions).expect("an answer");
            let fetched = fetched.expect("no error");
            assert_eq!(throttle, 12);
            assert_eq!(
                (&*fetched[0].topic, fetched[0].partition, &fetched[0].records[..]),
                ("a", 1, &b"records of a-1"[..])
            );
            assert!(frame.as_ptr_range().contains(&fetched[0].records.as_ptr()), "copied");
            assert_eq!(fetched[0].aborted_transactions, [AbortedTransaction { producer_id: 77, first_offset: 11 }]);
            let marks = (fetched[0].high_watermark, fetched[0].last_stable_offset, fetched[0].log_start_offset);
            assert_eq!(marks, (100, 90, 3));
            assert_eq!((&*fetched[1].topic, fetched[1].records.len()), ("b", 0));
            assert_eq!(fetched[2].error, Some(KafkaError::NOT_LEADER_OR_FOLLOWER));
            let address = (version >= 16).then(|| "b3:9092".parse().expect("a target"));
            assert_eq!(fetched[2].leader, Some(LeaderHint { node_id: 3, leader_epoch: 9, address }));
        }
        let (refused, _) = decode(17, &answer(17, 100), &order(&request, 17), &request.partitions).expect("an answer");
        assert_eq!(refused, Err(KafkaError::UNKNOWN_TOPIC_ID));
    }

    #[test]
    fn answers_that_are_cut_or_changed_never_panic() {
        let request = wanted();
        for version in [12, 13, 16] {
            let (order, whole) = (order(&request, version), answer(version, 0));
            for end in 0..whole.len() {
                assert!(
                    decode(version, &whole.slice(..end), &order, &request.partitions).is_err(),
                    "v{version} cut at {end}"
                );
            }
            for at in 0..whole.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = whole.to_vec();
                    changed[at] = value;
                    let _ = decode(version, &changed.into(), &order, &request.partitions);
                }
            }
        }
    }
}
