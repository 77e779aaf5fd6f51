#!/usr/bin/env python3
"""Load, leaders and evidence for the faults under replication, with librdkafka.

  chaos.py load CONF TOPIC PARTITIONS RATE KIND FIRST
      About RATE records a second over the partitions, until standard input ends. KIND: `plain` (idempotent, lz4, times of now),
      `old` (the same with zstd and times 48 hours ago), `txn` (transactions over random partitions, one in four aborted).
      Every record is unlike every other; of `plain` and `old` the ordinals begin at FIRST. Prints how many were acknowledged, and what the producer had to live through.
  chaos.py leaders CONF HOST:PORT SEED TOPIC…
      Gives about half of the partitions of these topics another preferred leader and elects it, by a broker's plaintext
      listener. Prints how many leaders moved.
  chaos.py dump CONF TOPIC ISOLATION FOLDER
      Reads every partition from its beginning to its end and writes FOLDER/PARTITION: for each record 16 bytes, its offset and
      a hash of its time, key, value and headers, whose lowest bit says whether its ordinal is 1000000000 or more. Prints how
      many records each partition has.
  chaos.py batches LOGDIR TOPIC PARTITION FROM TO
      The batches that hold these offsets, as the broker stores them: who wrote them, and under which sequence.

CONF is a Java client.properties file with `bootstrap.servers`.
"""
import hashlib
import json
import os
import random
import socket
import struct
import sys
import threading
import time

from records import client_config, ordinal_of, record

HOURS_48 = 48 * 3600 * 1000
SIZE = 160
# Ordinals from here on are those of a second load.
SECOND = 1_000_000_000
# Longest time that a client waits for brokers that are killed under it.
PATIENCE = 120
# Producers with transactions at a time.
WRITERS = 4


class Load:
    """What a producer came to."""

    def __init__(self):
        self.counts, self.troubles = {"acked": 0, "failed": 0, "aborted": 0}, {}
        self.lock, self.stop = threading.Lock(), threading.Event()
        threading.Thread(target=self.wait, daemon=True).start()

    def wait(self):
        sys.stdin.buffer.read()
        self.stop.set()

    def trouble(self, error):
        name = error.name() if hasattr(error, "name") else str(error)
        with self.lock:
            self.troubles[name] = self.troubles.get(name, 0) + 1

    def add(self, what, count=1):
        with self.lock:
            self.counts[what] += count

    def done(self, error, _message):
        if error is None:
            self.add("acked")
        else:
            self.add("failed")
            self.trouble(error)

    def said(self):
        return json.dumps({**self.counts, "troubles": self.troubles})


def paced(load, rate):
    """Yields numbers of records to send now, so that they come to `rate` a second; stops when the load is to stop."""
    begun, sent = time.monotonic(), 0
    while not load.stop.is_set():
        due = int((time.monotonic() - begun) * rate) - sent
        if due > 2 * rate:
            # What brokers did not take for seconds is not made up for.
            begun, sent, due = time.monotonic(), 0, 0
        if due > 0:
            sent += due
            yield due
        else:
            load.stop.wait(0.02)


def load_plain(conf, topic, partitions, rate, old, first):
    from confluent_kafka import Producer

    load, n = Load(), 0
    options = {
        "compression.type": "zstd" if old else "lz4", "linger.ms": 50 if old else 5, "acks": "all", "enable.idempotence": True,
        "queue.buffering.max.messages": 100_000, "message.timeout.ms": PATIENCE * 1000, "socket.timeout.ms": 10_000,
    }
    producer = Producer({**client_config(conf), **options})
    for count in paced(load, rate):
        now = int(time.time() * 1000) - (HOURS_48 if old else 0)
        for _ in range(count):
            partition, ordinal = n % partitions, first + n // partitions
            key, value, headers, _ = record(partition, ordinal, SIZE)
            while True:
                try:
                    producer.produce(topic, value=value, key=key, partition=partition, timestamp=now, headers=headers, on_delivery=load.done)
                    break
                except BufferError:
                    producer.poll(0.1)
            n += 1
        producer.poll(0)
    load.add("failed", producer.flush(PATIENCE))
    print(load.said())


def load_txn(conf, topic, partitions, rate):
    """A few producers, so that transactions of several lie among each other."""
    from confluent_kafka import KafkaException, Producer

    load = Load()
    options = {
        "linger.ms": 5, "compression.type": "lz4", "transaction.timeout.ms": 30_000, "socket.timeout.ms": 10_000,
        "message.timeout.ms": 25_000,
    }

    def fresh(number):
        while True:
            producer = Producer({**client_config(conf), **options, "transactional.id": f"{topic}-load-{number}"})
            try:
                producer.init_transactions(30)
                return producer
            except KafkaException as error:
                load.trouble(error.args[0])

    def to_its_end(step):
        """Until the coordinator has said what became of the transaction."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return step(20)
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > until:
                    raise
                load.trouble(error.args[0])

    def write(number):
        dice, n, producer = random.Random(number), number, fresh(number)
        for count in paced(load, rate / WRITERS):
            while count > 0 and not load.stop.is_set():
                size = dice.randint(1, 80)
                count -= size
                try:
                    producer.begin_transaction()
                    for _ in range(size):
                        partition = dice.randrange(partitions)
                        key, value, headers, _ = record(partition, n, SIZE)
                        n += WRITERS
                        producer.produce(topic, value=value, key=key, partition=partition, headers=headers)
                    if dice.randrange(4) == 0:
                        producer.flush(20)
                        to_its_end(producer.abort_transaction)
                        load.add("aborted", size)
                    else:
                        to_its_end(producer.commit_transaction)
                        load.add("acked", size)
                except KafkaException as error:
                    load.trouble(error.args[0])
                    load.add("failed", size)
                    try:
                        if not error.args[0].txn_requires_abort():
                            raise
                        to_its_end(producer.abort_transaction)
                    except KafkaException:
                        # Whatever it was: the next producer of this name ends what this one left open.
                        producer = fresh(number)

    writers = [threading.Thread(target=write, args=[number]) for number in range(WRITERS)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    print(load.said())


def compact(items):
    """A compact array of bytes, each with its own tags."""
    assert len(items) < 127
    return bytes([len(items) + 1]) + b"".join(items)


def ask(address, api, version, body):
    """Sends one request of a flexible version to a plaintext listener; the answer behind its header and throttle time."""
    request = struct.pack(">hhih", api, version, 1, 5) + b"chaos" + b"\0" + body + b"\0"
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=15) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        head = connection.recv(4, socket.MSG_WAITALL)
        answer = connection.recv(struct.unpack(">i", head)[0], socket.MSG_WAITALL)
    return answer[9:]


def prefer(address, order):
    """Gives partitions another order of the replicas that they have, and elects the first of each.

    AlterPartitionReassignments v0 (KIP-455) and ElectLeaders v2 (KIP-460): librdkafka has no call for the first.
    """
    topics = {}
    for (topic, partition), replicas in order.items():
        topics.setdefault(topic, {})[partition] = replicas
    name = {topic: bytes([len(topic) + 1]) + topic.encode() for topic in topics}
    placed = [
        name[t] + compact([struct.pack(">i", p) + compact([struct.pack(">i", r) for r in replicas]) + b"\0" for p, replicas in parts.items()]) + b"\0"
        for t, parts in topics.items()
    ]
    answer = ask(address, 45, 0, struct.pack(">i", 10_000) + compact(placed))
    if struct.unpack_from(">h", answer)[0]:
        raise SystemExit(f"leaders: reassignment was answered with error {struct.unpack_from('>h', answer)[0]}")
    elected = [name[t] + compact([struct.pack(">i", p) for p in parts]) + b"\0" for t, parts in topics.items()]
    answer = ask(address, 43, 2, b"\0" + compact(elected) + struct.pack(">i", 10_000))
    if struct.unpack_from(">h", answer)[0]:
        raise SystemExit(f"leaders: election was answered with error {struct.unpack_from('>h', answer)[0]}")


def leaders(conf, address, seed, topics):
    from confluent_kafka.admin import AdminClient

    dice, admin = random.Random(seed), AdminClient({**client_config(conf), "socket.timeout.ms": 10_000})

    def seen():
        meta = admin.list_topics(timeout=10).topics
        return {(t, p.id): p for t in topics if t in meta for p in meta[t].partitions.values()}

    before, order = seen(), {}
    for place, part in sorted(before.items()):
        others = [node for node in part.isrs if node != part.leader]
        if others and dice.randrange(2) == 0:
            first = dice.choice(others)
            order[place] = [first] + [node for node in part.replicas if node != first]
    moved = 0
    if order:
        prefer(address, order)
        until = time.monotonic() + 3
        while moved < len(order) and time.monotonic() < until:
            now = seen()
            moved = sum(now[place].leader == wanted[0] for place, wanted in order.items() if place in now)
            time.sleep(0.05)
    print(json.dumps({"asked": len(order), "moved": moved}))


def mark(message):
    """A hash of all that a reader sees of a record but its place."""
    hasher = hashlib.blake2b(digest_size=8)
    hasher.update(struct.pack(">q", message.timestamp()[1]))
    for part in (message.key(), message.value(), *(x for name, value in message.headers() or () for x in (name.encode(), value))):
        hasher.update(b"-" if part is None else b"+%d:" % len(part) + part)
    digest = bytearray(hasher.digest())
    digest[0] = digest[0] & 0xFE | (ordinal_of(message) >= SECOND)
    return bytes(digest)


def dump(conf, topic, isolation, folder):
    from confluent_kafka import Consumer, TopicPartition

    conf = {
        **client_config(conf), "group.id": f"dump-{os.getpid()}", "enable.auto.commit": False, "auto.offset.reset": "error",
        "fetch.wait.max.ms": 50, "check.crcs": True, "enable.partition.eof": True, "isolation.level": isolation,
        "queued.max.messages.kbytes": 65_536,
    }
    consumer = Consumer(conf)
    parts = sorted(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    os.makedirs(folder, exist_ok=True)
    files = {p: open(os.path.join(folder, str(p)), "wb", buffering=1 << 20) for p in parts}
    counts, position, ended, idle = {p: 0 for p in parts}, {p: 0 for p in parts}, set(), 0
    consumer.assign([TopicPartition(topic, p, 0) for p in parts])
    while True:
        messages = consumer.consume(5000, timeout=0.5)
        idle = 0 if messages else idle + 1
        for message in messages:
            error, p = message.error(), message.partition()
            if error is None:
                ended.discard(p)
                counts[p] += 1
                files[p].write(struct.pack(">q", message.offset()) + mark(message))
            elif error.code() == -191:
                ended.add(p)
                position[p] = message.offset()
            elif not error.retriable():
                raise SystemExit(f"dump: {error}")
        if len(ended) == len(parts):
            # An open transaction hides what comes after it: the coordinator ends it in time.
            highs = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in parts}
            if all(position[p] >= highs[p] for p in parts):
                break
        if idle > 180:
            raise SystemExit(f"dump: nothing came for 90 s after {counts}; ends seen at {position}")
    for file in files.values():
        file.close()
    consumer.close()
    print(json.dumps(counts))


def batches(logdir, topic, partition, first, last):
    folder = os.path.join(logdir, f"{topic}-{partition}")
    for name in sorted(n for n in os.listdir(folder) if n.endswith(".log")):
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        at = 0
        while at + 61 <= len(data):
            base, length = struct.unpack_from(">qi", data, at)
            if length <= 0:
                break
            attributes, delta, _, newest, pid, epoch, sequence, count = struct.unpack_from(">hiqqqhii", data, at + 21)
            if base <= last and base + delta >= first:
                control = " control" if attributes & 0x20 else ""
                print(f"offsets {base}..{base + delta} producer {pid}/{epoch} sequence {sequence} records {count} newest {newest}{control}")
            at += 12 + length


def main(argv):
    if len(argv) < 2 or argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if len(argv) > 1 else 2
    verb, rest = argv[1], argv[2:]
    if verb == "load":
        conf, topic, partitions, rate, kind, first = rest
        if kind == "txn":
            load_txn(conf, topic, int(partitions), float(rate))
        else:
            load_plain(conf, topic, int(partitions), float(rate), kind == "old", int(first))
    elif verb == "leaders":
        leaders(rest[0], rest[1], int(rest[2]), rest[3:])
    elif verb == "dump":
        dump(*rest)
    elif verb == "batches":
        batches(rest[0], rest[1], int(rest[2]), int(rest[3]), int(rest[4]))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
