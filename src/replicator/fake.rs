//! A cluster in memory that answers as brokers do, with faults on demand: what Produce checks, what it remembers of producers, what
//! Fetch gives. Only what a flow can see is modelled.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use super::cluster::{Answer, Cluster, Outcomes, ProducerState};
use crate::client::{
    AbortedTransaction, Acl, AlterConfig, ClientError, Commit, CommitOutcome, Committed, ConfigEntry, ConfigSource,
    FetchRequest, FetchedPartition, GroupOffsets, Groups, Isolation, KafkaError, ListedGroup, NewTopic, PartitionBatch,
    PartitionOffset, PartitionView, Position, ProduceOutcome, TopicConfigs, TopicId, TopicView,
};
use crate::kafka::batch::{Codec, Limits, Patch, RawBatch, Record, decode, encode_one, is_dense, split};

/// A cluster in memory.
pub(super) struct Fake {
    name: &'static str,
    state: Mutex<State>,
}

/// Commits of one group, by topic and partition.
#[derive(Default)]
pub(super) struct FakeGroup {
    /// Its kind, as brokers name it.
    pub(super) kind: &'static str,
    /// It has members, so that nobody else commits for it.
    pub(super) active: bool,
    pub(super) commits: BTreeMap<(String, i32), i64>,
    /// Partitions that an open transaction commits.
    pub(super) unstable: BTreeSet<(String, i32)>,
}

pub(super) struct State {
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) groups: BTreeMap<String, FakeGroup>,
    /// What commits from outside are answered.
    pub(super) commit_error: Option<KafkaError>,
    next_id: u8,
    next_pid: i64,
    random: u64,
    /// In 1,000 requests so many fail, half of produces after they took effect.
    pub(super) faults: u64,
    /// Bytes of keys of filled records; without any, small batches are tiny and merged.
    pub(super) key_bytes: usize,
    pub(super) cluster_id: String,
    /// ACLs of topics; `None` without an authorizer.
    pub(super) acls: Option<BTreeSet<Acl>>,
    /// Produces of records are not answered, for as long as this lasts.
    pub(super) silent: bool,
    /// Nobody gets an answer.
    pub(super) down: bool,
    /// Nobody gets in.
    pub(super) locked: bool,
    /// Brokers before 2.8 do not tell of producers.
    pub(super) tells_producers: bool,
    /// A producer's time is up just after its leader was asked for it.
    pub(super) forgets_what_it_told: bool,
    /// Produces of records wait here instead of being taken, and are not answered: they are on their way for as long as the test says.
    pub(super) under_way: Option<Vec<(i32, PartitionBatch)>>,
    /// What the next produces answer, by order of requests.
    pub(super) next_errors: Vec<KafkaError>,
    /// The same for produces into topics of a flow's own.
    pub(super) next_own_errors: Vec<KafkaError>,
    pub(super) produce_requests: u64,
    /// Bytes in the largest fetch answer.
    pub(super) largest_answer: usize,
}

#[derive(Default)]
pub(super) struct Topic {
    pub(super) id: [u8; 16],
    pub(super) configs: BTreeMap<String, String>,
    pub(super) partitions: Vec<Log>,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) leader: i32,
    pub(super) epoch: i32,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) batches: Vec<RawBatch>,
    pub(super) aborted: Vec<AbortedTransaction>,
    pub(super) producers: HashMap<i64, Producer>,
}

pub(super) struct Producer {
    epoch: i16,
    last: i32,
    last_timestamp: i64,
    /// First and last sequence and base offset of the newest five.
    newest: Vec<(i32, i32, i64)>,
}

impl Fake {
    pub(super) fn new(name: &'static str, seed: u64) -> Arc<Self> {
        let state = State {
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            commit_error: None,
            next_id: 1,
            next_pid: 1_000,
            random: seed | 1,
            faults: 0,
            key_bytes: 0,
            cluster_id: format!("{name}-id"),
            acls: None,
            silent: false,
            down: false,
            locked: false,
            tells_producers: true,
            forgets_what_it_told: false,
            under_way: None,
            next_errors: Vec::new(),
            next_own_errors: Vec::new(),
            produce_requests: 0,
            largest_answer: 0,
        };
        Arc::new(Self { name, state: Mutex::new(state) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics under the lock")
    }

    /// Creates a topic, its partitions led by brokers 1 to 3.
    pub(super) fn create(&self, name: &str, partitions: usize) {
        self.state().create(name, partitions, BTreeMap::new());
    }

    /// Appends batches of records `from..to` to a partition, `each` to a batch; each record's value is its number.
    pub(super) fn fill(&self, topic: &str, partition: usize, numbers: std::ops::Range<i64>, each: i64, codec: Codec) {
        let key = vec![7; self.state().key_bytes];
        let mut at = numbers.start;
        while at < numbers.end {
            let next = (at + each).min(numbers.end);
            let records: Vec<_> = (at..next)
                .map(|n| Record::new(0, 1_000 + n, Some(&key), Some(n.to_string().as_bytes()), &[]))
                .collect();
            let bytes = encode_one(&records, codec, Patch::NO_PRODUCER).to_bytes();
            self.state().log(topic, partition).append(bytes);
            at = next;
        }
    }

    /// Appends bytes of one batch as they are; `change` may spoil the header before its checksum is written again.
    pub(super) fn append(&self, topic: &str, partition: usize, records: &[Record], change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = encode_one(records, Codec::None, Patch::NO_PRODUCER).to_bytes();
        change(&mut bytes);
        let crc = crate::kafka::batch::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        self.state().log(topic, partition).append(bytes);
    }

    /// All values of a partition that readers see, in order.
    pub(super) fn values(&self, topic: &str, partition: usize) -> Vec<String> {
        let mut state = self.state();
        let mut values = Vec::new();
        for batch in &state.log(topic, partition).batches {
            for record in decode(batch, Limits::default()).expect("stored batches are whole") {
                values.push(String::from_utf8_lossy(&record.value().unwrap_or_default()).into_owned());
            }
        }
        values
    }

    /// Commits as a member of a group does.
    pub(super) fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let mut state = self.state();
        let group = state.groups.entry(group.to_owned()).or_default();
        group.commits.insert((topic.to_owned(), partition), offset);
    }

    /// A group's commit.
    pub(super) fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        self.state().groups.get(group)?.commits.get(&(topic.to_owned(), partition)).copied()
    }

    /// Takes what was under way, whoever sent it; nothing waits from here on.
    pub(super) fn land(&self) {
        let mut state = self.state();
        for (node, batch) in state.under_way.take().into_iter().flatten() {
            let _ = state.produce(node, &batch);
        }
    }

    /// Moves the leader of a partition.
    pub(super) fn lead(&self, topic: &str, partition: usize, node: i32) {
        let mut state = self.state();
        let log = state.log(topic, partition);
        log.leader = node;
        log.epoch += 1;
    }

    fn fail<T>(&self, effect: impl FnOnce(&mut State) -> T) -> Result<T, ClientError> {
        let mut state = self.state();
        let broker = || "b1:9092".parse().expect("a target");
        if state.locked {
            let (cluster, detail) = (self.name.to_owned(), "invalid".to_owned());
            return Err(ClientError::Authentication { cluster, broker: broker(), mechanism: "PLAIN", detail });
        }
        let gone = ClientError::Disconnected { broker: broker(), cause: "the test cut it".to_owned() };
        let dice = state.dice();
        if state.down || (dice % 1_000 < state.faults && dice.is_multiple_of(2)) {
            return Err(gone);
        }
        let answer = effect(&mut state);
        if dice % 1_000 < state.faults { Err(gone) } else { Ok(answer) }
    }
}

impl State {
    fn dice(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }

    pub(super) fn log(&mut self, topic: &str, partition: usize) -> &mut Log {
        &mut self.topics.get_mut(topic).expect("the topic").partitions[partition]
    }

    fn create(&mut self, name: &str, partitions: usize, configs: BTreeMap<String, String>) {
        let log = |index: usize| Log { leader: index as i32 % 3 + 1, ..Log::default() };
        let topic = Topic { id: [self.next_id; 16], configs, partitions: (0..partitions).map(log).collect() };
        self.next_id += 1;
        self.topics.insert(name.to_owned(), topic);
    }

    fn view(&self, name: &str) -> TopicView {
        let Some(topic) = self.topics.get(name) else {
            let error = Some(KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
            return TopicView {
                name: name.to_owned(),
                topic_id: TopicId::NONE,
                internal: false,
                error,
                partitions: vec![],
            };
        };
        let partitions = topic.partitions.iter().enumerate().map(|(index, log)| PartitionView {
            index: index as i32,
            leader: Some(log.leader),
            leader_epoch: log.epoch,
            replicas: vec![log.leader],
            error: None,
        });
        let partitions = partitions.collect();
        TopicView { name: name.to_owned(), topic_id: TopicId(topic.id), internal: false, error: None, partitions }
    }

    fn configs(&self, name: &str) -> Vec<ConfigEntry> {
        let topic = &self.topics[name];
        let entry = |name: &str, value: &str, source| ConfigEntry {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            source,
            is_default: source == ConfigSource::Default,
            read_only: false,
            sensitive: false,
        };
        let defaults =
            [("max.message.bytes", "1048588"), ("compression.type", "producer"), ("cleanup.policy", "delete")];
        let defaults = defaults.into_iter().filter(|(name, _)| !topic.configs.contains_key(*name));
        let own = topic.configs.iter().map(|(name, value)| entry(name, value, ConfigSource::Topic));
        own.chain(defaults.map(|(name, value)| entry(name, value, ConfigSource::Default))).collect()
    }

    fn commit_group(&mut self, group: String, commits: &[Commit]) -> Vec<CommitOutcome> {
        let topics = &self.topics;
        let active = self.groups.get(&group).is_some_and(|group| group.active);
        let mut taken = Vec::new();
        let outcomes = commits.iter().map(|one| {
            let there = topics.get(&one.topic).is_some_and(|topic| topic.partitions.len() as i32 > one.partition);
            let outcome = match self.commit_error {
                Some(error) => Err(error),
                None if active => Err(KafkaError::from_code(25).expect("an error")),
                None if !there => Err(KafkaError::UNKNOWN_TOPIC_OR_PARTITION),
                None => {
                    taken.push(((one.topic.clone(), one.partition), one.offset));
                    Ok(())
                }
            };
            (one.topic.clone(), one.partition, outcome)
        });
        let outcomes = outcomes.collect();
        if !taken.is_empty() {
            self.groups.entry(group).or_default().commits.extend(taken);
        }
        outcomes
    }

    fn produce(&mut self, node: i32, batch: &PartitionBatch) -> Result<i64, KafkaError> {
        let topic = self.topics.get_mut(&*batch.topic).ok_or(KafkaError::UNKNOWN_TOPIC_OR_PARTITION)?;
        if batch.topic_id.is_some() && batch.topic_id.0 != topic.id {
            return Err(KafkaError::UNKNOWN_TOPIC_ID);
        }
        let max = topic.configs.get("max.message.bytes").map_or(1_048_588, |max| max.parse().expect("a number"));
        let log = topic.partitions.get_mut(batch.partition as usize).ok_or(KafkaError::UNKNOWN_TOPIC_OR_PARTITION)?;
        if log.leader != node {
            return Err(KafkaError::NOT_LEADER_OR_FOLLOWER);
        }
        let bytes = [&batch.header[..], &batch.payload].concat();
        let raw = split(Bytes::from(bytes.clone())).next().expect("one batch").expect("well formed");
        if raw.verify().is_err() {
            return Err(KafkaError::CORRUPT_MESSAGE);
        }
        let header = raw.header().ok_or(KafkaError::INVALID_RECORD)?;
        if bytes.len() > max {
            return Err(KafkaError::MESSAGE_TOO_LARGE);
        }
        // Brokers look at the deltas of compressed batches alone; here a lie is a failed test.
        assert!(is_dense(&raw, Limits::default()).expect("readable"), "a batch whose deltas lie was produced");
        if header.base_offset != 0 || header.is_control() || header.is_transactional() || header.attributes & !7 != 0 {
            return Err(KafkaError::INVALID_RECORD);
        }
        let first = header.base_sequence;
        let last = super::lane::later(first, u64::from(header.count.unsigned_abs()) - 1);
        if header.producer_id >= 0 {
            if let Some(known) = log.producers.get(&header.producer_id) {
                if header.producer_epoch != known.epoch {
                    return Err(KafkaError::INVALID_PRODUCER_EPOCH);
                }
                if let Some(old) = known.newest.iter().find(|one| (one.0, one.1) == (first, last)) {
                    return Ok(old.2);
                }
                if first != super::lane::later(known.last, 1) {
                    return Err(KafkaError::OUT_OF_ORDER_SEQUENCE_NUMBER);
                }
            }
            let base = log.end;
            let producer = log.producers.entry(header.producer_id).or_insert(Producer {
                epoch: header.producer_epoch,
                last,
                last_timestamp: -1,
                newest: Vec::new(),
            });
            (producer.last, producer.last_timestamp) = (last, header.max_timestamp);
            producer.newest.push((first, last, base));
            if producer.newest.len() > 5 {
                producer.newest.remove(0);
            }
        }
        let base = log.end;
        log.append(bytes);
        Ok(base)
    }

    fn fetch(&mut self, node: i32, request: &FetchRequest) -> Vec<FetchedPartition> {
        let mut left = request.max_bytes as usize;
        let mut out = Vec::new();
        for asked in &request.partitions {
            let mut answer = FetchedPartition {
                topic: Arc::clone(&asked.topic),
                partition: asked.partition,
                error: None,
                high_watermark: -1,
                last_stable_offset: -1,
                log_start_offset: -1,
                aborted_transactions: Vec::new(),
                records: Bytes::new(),
                leader: None,
            };
            let result = self.read(node, asked, &mut left, request.isolation, &mut answer);
            answer.error = result.err();
            out.push(answer);
        }
        let bytes = out.iter().map(|answer| answer.records.len()).sum();
        self.largest_answer = self.largest_answer.max(bytes);
        out
    }

    fn read(
        &mut self,
        node: i32,
        asked: &crate::client::FetchPartition,
        left: &mut usize,
        isolation: Isolation,
        answer: &mut FetchedPartition,
    ) -> Result<(), KafkaError> {
        let topic = self.topics.get(&*asked.topic).ok_or(KafkaError::UNKNOWN_TOPIC_OR_PARTITION)?;
        if asked.topic_id.is_some() && asked.topic_id.0 != topic.id {
            return Err(KafkaError::UNKNOWN_TOPIC_ID);
        }
        let log = topic.partitions.get(asked.partition as usize).ok_or(KafkaError::UNKNOWN_TOPIC_OR_PARTITION)?;
        if log.leader != node {
            return Err(KafkaError::NOT_LEADER_OR_FOLLOWER);
        }
        if asked.offset < log.start || asked.offset > log.end {
            return Err(KafkaError::OFFSET_OUT_OF_RANGE);
        }
        (answer.high_watermark, answer.last_stable_offset, answer.log_start_offset) = (log.end, log.end, log.start);
        let mut records = Vec::new();
        for batch in log.batches.iter().filter(|batch| batch.next_offset() > asked.offset) {
            let room = (asked.max_bytes as usize).min(*left).saturating_sub(records.len());
            if batch.bytes().len() > room && !records.is_empty() {
                // Fetch cuts where its bytes end.
                records.extend_from_slice(&batch.bytes()[..room]);
                break;
            }
            records.extend_from_slice(batch.bytes());
        }
        *left = left.saturating_sub(records.len());
        answer.records = records.into();
        if isolation == Isolation::ReadCommitted {
            answer.aborted_transactions.clone_from(&log.aborted);
        }
        Ok(())
    }
}

impl Log {
    fn append(&mut self, mut bytes: Vec<u8>) {
        bytes[..8].copy_from_slice(&self.end.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_be_bytes());
        let batch = split(Bytes::from(bytes)).next().expect("one batch").expect("well formed");
        self.end = batch.next_offset();
        self.batches.push(batch);
    }

    /// Deletes whole batches before an offset, as retention does.
    pub(super) fn delete_before(&mut self, offset: i64) {
        self.start = offset;
        self.batches.retain(|batch| batch.next_offset() > offset);
    }
}

fn kafka(api: ApiKey, error: KafkaError) -> ClientError {
    ClientError::Kafka { api, error, message: None }
}

impl Cluster for Fake {
    fn name(&self) -> &str {
        self.name
    }

    fn producer_memory_ms(&self) -> Answer<'_, Option<i64>> {
        Box::pin(async move { self.fail(|_| Some(86_400_000)) })
    }

    fn topics(&self, names: Option<Vec<String>>) -> Answer<'_, Vec<TopicView>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.fail(|state| {
                let names = names.unwrap_or_else(|| state.topics.keys().cloned().collect());
                names.iter().map(|name| state.view(name)).collect()
            })
        })
    }

    fn describe_configs(&self, topics: Vec<String>) -> Answer<'_, Vec<TopicConfigs>> {
        Box::pin(async move {
            self.fail(|state| {
                let configs =
                    topics.into_iter().map(|topic| TopicConfigs { configs: Ok(state.configs(&topic)), topic });
                configs.collect()
            })
        })
    }

    fn create_topic(&self, topic: NewTopic) -> Answer<'_, ()> {
        Box::pin(async move {
            self.fail(|state| {
                if state.topics.contains_key(&topic.name) {
                    return Err(kafka(ApiKey::CreateTopics, KafkaError::TOPIC_ALREADY_EXISTS));
                }
                state.create(&topic.name, topic.partitions as usize, topic.configs);
                Ok(())
            })?
        })
    }

    fn create_partitions(&self, topic: String, count: i32) -> Answer<'_, ()> {
        Box::pin(async move {
            self.fail(|state| {
                let logs = &mut state.topics.get_mut(&topic).expect("the topic").partitions;
                while logs.len() < count as usize {
                    logs.push(Log { leader: logs.len() as i32 % 3 + 1, ..Log::default() });
                }
            })
        })
    }

    fn alter_configs(&self, topic: String, changes: Vec<(String, AlterConfig)>) -> Answer<'_, ()> {
        Box::pin(async move {
            self.fail(|state| {
                let configs = &mut state.topics.get_mut(&topic).expect("the topic").configs;
                for (name, change) in changes {
                    match change {
                        AlterConfig::Set(value) => drop(configs.insert(name, value)),
                        AlterConfig::Delete => drop(configs.remove(&name)),
                    }
                }
            })
        })
    }

    fn delete_topic(&self, topic: String) -> Answer<'_, ()> {
        Box::pin(async move { self.fail(|state| drop(state.topics.remove(&topic))) })
    }

    fn topic_acls(&self) -> Answer<'_, Vec<Acl>> {
        Box::pin(async move {
            self.fail(|state| match &state.acls {
                Some(acls) => Ok(acls.iter().cloned().collect()),
                None => Err(kafka(ApiKey::DescribeAcls, KafkaError::SECURITY_DISABLED)),
            })?
        })
    }

    fn create_acls(&self, acls: Vec<Acl>) -> Answer<'_, Outcomes> {
        Box::pin(async move {
            self.fail(|state| {
                let count = acls.len();
                state.acls.get_or_insert_default().extend(acls);
                vec![Ok(()); count]
            })
        })
    }

    fn delete_acls(&self, acls: Vec<Acl>) -> Answer<'_, Outcomes> {
        Box::pin(async move {
            self.fail(|state| {
                let has = state.acls.get_or_insert_default();
                acls.iter()
                    .map(|acl| {
                        has.remove(acl);
                        Ok(())
                    })
                    .collect()
            })
        })
    }

    fn cluster_id(&self) -> Option<String> {
        Some(self.state().cluster_id.clone())
    }

    fn list_offsets(&self, partitions: Vec<(String, i32)>, position: Position) -> Answer<'_, Vec<PartitionOffset>> {
        Box::pin(async move {
            self.fail(|state| {
                let offsets = partitions.into_iter().map(|(topic, partition)| {
                    let log = state.topics.get(&topic).and_then(|topic| topic.partitions.get(partition as usize));
                    let offset = log.map(|log| if position == Position::Earliest { log.start } else { log.end });
                    let missing = || kafka(ApiKey::ListOffsets, KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
                    PartitionOffset { offset: offset.ok_or_else(missing), topic, partition }
                });
                offsets.collect()
            })
        })
    }

    fn producer_id(&self) -> Answer<'_, (i64, i16)> {
        Box::pin(async move {
            self.fail(|state| {
                state.next_pid += 1;
                (state.next_pid, 0)
            })
        })
    }

    fn producers(&self, node: i32, topic: String, partition: i32) -> Answer<'_, Vec<ProducerState>> {
        Box::pin(async move {
            self.fail(|state| {
                if !state.tells_producers {
                    let (needed, has) = (String::new(), String::new());
                    let broker = "b1:9092".parse().expect("a target");
                    return Err(ClientError::Unsupported { broker, api: ApiKey::DescribeProducers, needed, has });
                }
                let log = state.log(&topic, partition as usize);
                if log.leader != node {
                    return Err(kafka(ApiKey::DescribeProducers, KafkaError::NOT_LEADER_OR_FOLLOWER));
                }
                let states = log.producers.iter().map(|(&producer_id, producer)| ProducerState {
                    producer_id,
                    epoch: producer.epoch,
                    last_sequence: producer.last,
                    last_timestamp: producer.last_timestamp,
                });
                let states = states.collect();
                if state.forgets_what_it_told {
                    state.log(&topic, partition as usize).producers.clear();
                }
                Ok(states)
            })?
        })
    }

    fn fetch(&self, node: i32, _slot: u16, request: FetchRequest) -> Answer<'_, Vec<FetchedPartition>> {
        Box::pin(async move {
            let mut waited = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let answers = self.fail(|state| state.fetch(node, &request))?;
                waited += 5;
                let anything = answers.iter().any(|one| one.error.is_some() || !one.records.is_empty());
                if anything || waited >= request.max_wait_ms {
                    return Ok(answers);
                }
            }
        })
    }

    fn produce(&self, node: i32, _slot: u16, batches: Vec<PartitionBatch>) -> Answer<'_, Vec<ProduceOutcome>> {
        Box::pin(async move {
            while self.state().silent && batches.iter().any(|batch| !batch.topic.starts_with("__")) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            let records = batches.iter().any(|batch| !batch.topic.starts_with("__"));
            let waits = self.state().under_way.as_mut().filter(|_| records).is_some_and(|under_way| {
                under_way.extend(batches.iter().map(|batch| (node, batch.clone())));
                true
            });
            if waits {
                return std::future::pending().await;
            }
            self.fail(|state| {
                state.produce_requests += 1;
                let outcomes = batches.iter().map(|batch| {
                    let forced = if batch.topic.starts_with("__") {
                        state.next_own_errors.pop()
                    } else {
                        state.next_errors.pop()
                    };
                    let result = forced.map_or_else(|| state.produce(node, batch), Err);
                    ProduceOutcome {
                        topic: Arc::clone(&batch.topic),
                        partition: batch.partition,
                        error: result.err(),
                        base_offset: result.unwrap_or(-1),
                        log_append_time: -1,
                        log_start_offset: 0,
                        record_errors: Vec::new(),
                        message: None,
                        leader: None,
                    }
                });
                outcomes.collect()
            })
        })
    }

    fn groups(&self) -> Answer<'_, Groups> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.fail(|state| {
                let groups = state.groups.iter().map(|(name, group)| ListedGroup {
                    group: name.clone(),
                    coordinator: 1 + name.len() as i32 % 3,
                    kind: group.kind.to_owned(),
                    protocol: "consumer".to_owned(),
                });
                Groups { groups: groups.collect(), failures: vec![] }
            })
        })
    }

    fn group_coordinators(&self, groups: Vec<String>) -> Answer<'_, Vec<Result<i32, ClientError>>> {
        Box::pin(async move { self.fail(|_| groups.iter().map(|name| Ok(1 + name.len() as i32 % 3)).collect()) })
    }

    fn group_offsets(&self, coordinator: i32, groups: Vec<String>) -> Answer<'_, Vec<GroupOffsets>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.fail(|state| {
                let offsets = groups.into_iter().map(|name| {
                    assert_eq!(coordinator, 1 + name.len() as i32 % 3, "asked of its coordinator");
                    let commits = state.groups.get(&name).map(|group| {
                        let commits = group.commits.iter().map(|((topic, partition), offset)| {
                            let unstable = group.unstable.contains(&(topic.clone(), *partition));
                            Committed {
                                topic: topic.clone(),
                                partition: *partition,
                                offset: if unstable {
                                    Err(KafkaError::from_code(88).expect("an error"))
                                } else {
                                    Ok(*offset)
                                },
                                metadata: format!("meta of {name}"),
                            }
                        });
                        commits.collect()
                    });
                    GroupOffsets { offsets: Ok(commits.unwrap_or_default()), group: name }
                });
                offsets.collect()
            })
        })
    }

    fn commit_group(&self, coordinator: i32, group: String, commits: Vec<Commit>) -> Answer<'_, Vec<CommitOutcome>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(coordinator, 1 + group.len() as i32 % 3, "committed at its coordinator");
            self.fail(|state| state.commit_group(group, &commits))
        })
    }
}
