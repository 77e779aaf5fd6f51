#!/usr/bin/env python3
"""Makes and checks records with librdkafka: the second opinion beside Kafka's own tools.

  records.py produce  CONF TOPIC PARTITIONS COUNT SIZE CODEC [FIRST]
      COUNT records in all, round robin over the partitions. Record n of a partition carries its ordinal in key and value;
      every 97th is a tombstone, every 5th has headers, every 11th has no key; timestamps are set by us, 3 ms apart.
  records.py digest   CONF TOPIC [EXPECTED]
      Reads each partition to its end (or until EXPECTED distinct records are there) and prints one JSON object:
      partition -> {count, distinct, missing, in_order, sha256}. The digest is over (timestamp, key, value, headers) of each
      ordinal's first occurrence, in order, so it is the same for a copy that lost nothing, and repeats show in `count`.
  records.py list     CONF
      Prints brokers and topics as this client sees them, as JSON.
  records.py group    CONF TOPIC GROUP COUNT
      Consumes COUNT records as a member of GROUP, commits, and prints how many came from which partition.
  records.py stream   CONF TOPIC PARTITIONS SECONDS SIZE
      One idempotent producer at full speed for SECONDS, and two members of a consumer group that read what it writes as it
      comes. Prints what was sent and read by partition (count, SHA-256 in order), the connections that either side lost, its
      errors, and its log lines of warning or worse.
  records.py batches  LOGDIR TOPIC PARTITION
      Reads a partition's segment files and prints count and SHA-256 of its batches' payloads: the bytes after the 61-byte
      header, as the broker stores them. Control batches are left out.

CONF is a Java client.properties file; `bootstrap.servers` must be in it.
"""
import hashlib
import json
import logging
import os
import random
import struct
import sys
import threading
import time

# Half a day ago: brokers forget producers, and delete records, by the time that records carry.
BASE_TIME = (int(time.time()) - 43_200) * 1000


def client_config(path):
    """Translates the few keys of Java's properties that differ from librdkafka's."""
    props = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            line = line.strip()
            if line and not line.startswith("#"):
                key, _, value = line.partition("=")
                props[key.strip()] = value.strip()
    jaas = props.pop("sasl.jaas.config", "")
    conf = {}
    for word in jaas.rstrip(";").split():
        key, _, value = word.partition("=")
        if key in ("username", "password"):
            conf["sasl." + key] = value.strip('"')
    for key, value in props.items():
        if key == "ssl.truststore.location":
            conf["ssl.ca.location"] = value
        elif key == "ssl.keystore.location":  # A PEM file with key and certificate.
            conf["ssl.key.location"] = conf["ssl.certificate.location"] = value
        elif key in ("bootstrap.servers", "security.protocol", "sasl.mechanism", "client.id"):
            conf[key] = value
        elif key == "ssl.endpoint.identification.algorithm":
            conf[key] = value or "none"
    conf["broker.address.family"] = "v4"
    return conf


def record(partition, ordinal, size):
    """The record at one place: (key, value, headers, timestamp)."""
    noise = random.Random(partition * 1_000_003 + ordinal)
    key = None if ordinal % 11 == 10 else f"k-{partition}-{ordinal}".encode()
    headers = [("trace", f"{ordinal}".encode()), ("empty", b""), ("none", None)] if ordinal % 5 == 0 else None
    if ordinal % 97 == 96 and key is not None:
        value = None
    else:
        head = f"{partition}:{ordinal}:".encode()
        # Half noise, half text: compresses about two to one, as records do.
        rest = max(size - len(head), 0)
        value = head + noise.randbytes(rest // 2) + b"linkspan" * (rest // 16 + 1)
        value = value[: max(size, len(head))]
    return key, value, headers, BASE_TIME + ordinal * 3


def produce(conf, topic, partitions, count, size, codec, first=0):
    from confluent_kafka import Producer

    errors = []
    conf = dict(client_config(conf))
    conf.update({
        "compression.type": codec, "linger.ms": 20, "batch.size": 131072, "acks": "all", "enable.idempotence": True,
        "queue.buffering.max.messages": 500_000, "queue.buffering.max.kbytes": 262_144, "message.timeout.ms": 120_000,
    })
    producer = Producer(conf)

    def done(error, _message):
        if error is not None:
            errors.append(str(error))

    for n in range(count):
        partition, ordinal = n % partitions, first + n // partitions
        key, value, headers, timestamp = record(partition, ordinal, size)
        while True:
            try:
                producer.produce(topic, value=value, key=key, partition=partition, timestamp=timestamp, headers=headers, on_delivery=done)
                break
            except BufferError:
                producer.poll(0.1)
        if n % 1000 == 0:
            producer.poll(0)
    left = producer.flush(120)
    print(json.dumps({"topic": topic, "produced": count - len(errors) - left, "errors": errors[:3], "unsent": left}))
    return 0 if not errors and left == 0 else 1


def ordinal_of(message):
    if message.key() is not None:
        return int(message.key().rsplit(b"-", 1)[1])
    return int(message.value().split(b":", 2)[1])


def digest(conf, topic, expected=0):
    from confluent_kafka import Consumer, TopicPartition

    conf = dict(client_config(conf))
    conf.update({
        "group.id": f"digest-{os.getpid()}", "enable.auto.commit": False, "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 50, "queued.max.messages.kbytes": 131_072, "check.crcs": True, "enable.partition.eof": True,
        "fetch.message.max.bytes": 4_194_304,
    })
    consumer = Consumer(conf)
    meta = consumer.list_topics(topic, timeout=30).topics[topic]
    parts = sorted(meta.partitions)
    consumer.assign([TopicPartition(topic, p, 0) for p in parts])
    state = {p: {"count": 0, "next": 0, "in_order": True, "hash": hashlib.sha256(), "seen_max": -1, "missing": 0, "offset": -1} for p in parts}
    ended = set()
    idle = 0
    while True:
        messages = consumer.consume(5000, timeout=1.0)
        if not messages:
            idle += 1
            if idle > 60:
                break
        else:
            idle = 0
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() == -191:
                    ended.add(message.partition())
                    continue
                raise SystemExit(f"digest: {error}")
            p = message.partition()
            part = state[p]
            ended.discard(p)
            ordinal = ordinal_of(message)
            part["count"] += 1
            if message.offset() <= part["offset"]:
                part["in_order"] = False
            part["offset"] = message.offset()
            if ordinal == part["next"]:
                part["next"] += 1
                headers = message.headers() or []
                part["hash"].update(repr((message.timestamp()[1], message.key(), message.value(), headers)).encode())
            elif ordinal > part["next"]:
                # A record came before one that should stand in front of it.
                part["in_order"] = False
                part["missing"] += ordinal - part["next"]
                part["next"] = ordinal + 1
        if len(ended) == len(parts) and (not expected or sum(s["next"] for s in state.values()) >= expected):
            break
    consumer.close()
    print(json.dumps({p: {"count": s["count"], "distinct": s["next"] - s["missing"], "missing": s["missing"], "in_order": s["in_order"],
                          "sha256": s["hash"].hexdigest()} for p, s in state.items()}))
    return 0


def list_cluster(conf):
    from confluent_kafka.admin import AdminClient

    meta = AdminClient(client_config(conf)).list_topics(timeout=30)
    print(json.dumps({"cluster_id": meta.cluster_id, "brokers": sorted(f"{b.id}={b.host}:{b.port}" for b in meta.brokers.values()),
                      "topics": sorted(meta.topics)}))
    return 0


def group(conf, topic, group_id, count):
    from confluent_kafka import Consumer

    conf = dict(client_config(conf))
    conf.update({"group.id": group_id, "enable.auto.commit": False, "auto.offset.reset": "earliest", "session.timeout.ms": 10_000})
    consumer = Consumer(conf)
    consumer.subscribe([topic])
    seen, idle = {}, 0
    while sum(seen.values()) < count and idle < 60:
        messages = consumer.consume(min(1000, count - sum(seen.values())), timeout=1.0)
        idle = 0 if messages else idle + 1
        for message in messages:
            if message.error() is not None:
                raise SystemExit(f"group: {message.error()}")
            seen[message.partition()] = seen.get(message.partition(), 0) + 1
    consumer.commit(asynchronous=False)
    consumer.close()
    print(json.dumps({"consumed": sum(seen.values()), "partitions": seen}))
    return 0 if sum(seen.values()) >= count else 1


class Noticed:
    """What a client's application, or whoever reads its log, would have noticed of the network."""

    def __init__(self):
        self.errors, self.lines, self.disconnects = [], [], {}

    def conf(self, name):
        def stats(text):
            told = json.loads(text)
            self.disconnects[name] = sum(broker.get("disconnects", 0) for broker in told["brokers"].values())

        noticed = self

        class Lines(logging.Handler):
            def emit(self, line):
                noticed.lines.append(f"{name}: {line.getMessage()}")

        logger = logging.getLogger(f"stream.{name}")
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        logger.addHandler(Lines())
        return {
            "statistics.interval.ms": 1000, "stats_cb": stats, "logger": logger,
            "error_cb": lambda error: self.errors.append(f"{name}: {error}"),
        }


def stream(conf, topic, partitions, seconds, size):
    from confluent_kafka import Consumer, Producer

    base, noticed = client_config(conf), Noticed()
    sent = {p: [0, hashlib.sha256()] for p in range(partitions)}
    read = {p: [0, hashlib.sha256(), True] for p in range(partitions)}
    # Contents of records: half noise, half text, as in `record`; a few, because making them takes longer than sending them.
    noise = random.Random(1)
    values = [noise.randbytes(size // 2) + b"linkspan" * (size // 16) for _ in range(64)]
    stop, holds = threading.Event(), [0, 0]

    def member(number):
        options = {
            "group.id": f"{topic}-stream", "auto.offset.reset": "earliest", "enable.auto.commit": True,
            "auto.commit.interval.ms": 1000, "session.timeout.ms": 10_000, "queued.max.messages.kbytes": 65_536,
        }
        consumer = Consumer({**base, **options, **noticed.conf(f"member {number}")})
        consumer.subscribe([topic])
        while not (stop.is_set() and all(read[p][0] >= sent[p][0] for p in sent)):
            for message in consumer.consume(2000, timeout=0.2):
                if message.error() is not None:
                    noticed.errors.append(f"member {number}: {message.error()}")
                    continue
                part = read[message.partition()]
                if int.from_bytes(message.value()[:8], "big") != part[0]:
                    part[2] = False
                part[0] += 1
                part[1].update(message.value())
            holds[number] = len(consumer.assignment())
            if time.monotonic() > deadline:
                break
        consumer.close()

    deadline = time.monotonic() + seconds + 120
    members = [threading.Thread(target=member, args=[number], daemon=True) for number in range(2)]
    for thread in members:
        thread.start()
    # The group is whole before the first record: it is to stay as it is.
    whole = time.monotonic() + 60
    while not all(holds):
        if time.monotonic() > whole:
            raise SystemExit(f"stream: the two members hold {holds} partitions after 60 s; {noticed.errors} {noticed.lines}")
        time.sleep(0.05)
    options = {
        "enable.idempotence": True, "acks": "all", "linger.ms": 10, "batch.size": 131_072, "compression.type": "lz4",
        "queue.buffering.max.messages": 100_000, "queue.buffering.max.kbytes": 131_072,
    }
    producer = Producer({**base, **options, **noticed.conf("producer")})

    def done(error, _message):
        if error is not None:
            noticed.errors.append(f"producer: {error}")

    until, n = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        for _ in range(500):
            partition = n % partitions
            part = sent[partition]
            value = part[0].to_bytes(8, "big") + values[n % len(values)]
            while True:
                try:
                    producer.produce(topic, value=value, partition=partition, on_delivery=done)
                    break
                except BufferError:
                    producer.poll(0.05)
            part[0] += 1
            part[1].update(value)
            n += 1
        producer.poll(0)
    left = producer.flush(60)
    stop.set()
    for thread in members:
        thread.join()
    same = all(sent[p][0] == read[p][0] and sent[p][1].digest() == read[p][1].digest() and read[p][2] for p in sent)
    print(json.dumps({
        "sent": n, "read": sum(part[0] for part in read.values()), "unsent": left, "same": same,
        "disconnects": noticed.disconnects, "errors": noticed.errors[:20], "lines": noticed.lines[:20],
    }))
    return 0


def batches(logdir, topic, partition):
    folder = os.path.join(logdir, f"{topic}-{partition}")
    total, payload, whole = 0, 0, hashlib.sha256()
    for name in sorted(n for n in os.listdir(folder) if n.endswith(".log")):
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        at = 0
        while at + 61 <= len(data):
            length = struct.unpack_from(">i", data, at + 8)[0]
            if length <= 0 or at + 12 + length > len(data):
                break
            attributes = struct.unpack_from(">h", data, at + 21)[0]
            if not attributes & 0x20:
                whole.update(struct.pack(">ihq", struct.unpack_from(">i", data, at + 57)[0], attributes & 0x0F, length))
                whole.update(data[at + 61 : at + 12 + length])
                total += 1
                payload += length - 49
            at += 12 + length
    print(json.dumps({"batches": total, "payload_bytes": payload, "sha256": whole.hexdigest()}))
    return 0


def main(argv):
    if len(argv) < 2 or argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if len(argv) > 1 else 2
    verb, rest = argv[1], argv[2:]
    if verb == "produce":
        conf, topic, partitions, count, size, codec = rest[:6]
        return produce(conf, topic, int(partitions), int(count), int(size), codec, int(rest[6]) if len(rest) > 6 else 0)
    if verb == "digest":
        return digest(rest[0], rest[1], int(rest[2]) if len(rest) > 2 else 0)
    if verb == "list":
        return list_cluster(rest[0])
    if verb == "group":
        return group(rest[0], rest[1], rest[2], int(rest[3]))
    if verb == "stream":
        return stream(rest[0], rest[1], int(rest[2]), float(rest[3]), int(rest[4]))
    if verb == "batches":
        return batches(rest[0], rest[1], int(rest[2]))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
