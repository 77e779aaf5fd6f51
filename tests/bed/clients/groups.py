#!/usr/bin/env python3
"""Consumer groups on topics with transactions, with librdkafka.

  groups.py transactions CONF TOPIC PARTITIONS COUNT FIRST SEED
      COUNT records with the ordinals from FIRST on, in transactions of random size over random partitions; one in four is aborted.
      Keys repeat, so that compaction has something to do. Prints how many were committed and aborted.
  groups.py commit CONF TOPIC PARTITIONS PREFIX COUNT SEED
      Commits random offsets for COUNT groups, from where they stand (or the beginning) to the end. Prints group -> offsets.
  groups.py commit-one CONF TOPIC GROUP PARTITION OFFSET
      Commits, and prints when.
  groups.py committed CONF TOPIC PARTITIONS GROUP…
      Prints group -> offsets (-1001 for none).
  groups.py read CONF TOPIC PARTITIONS
      Prints the committed records of each partition as [offset, ordinal], in order.
  groups.py continue CONF TOPIC PARTITIONS GROUP
      Joins GROUP, reads from where it stands to the end, and prints the ordinals of each partition in order.
  groups.py watch CONF TOPIC GROUP PARTITION
      Prints a line once it looks, then the commit that comes next and when it was seen.

CONF is a Java client.properties file with `bootstrap.servers`.
"""
import json
import random
import sys
import time

from records import client_config


def consumer(conf, group, **more):
    from confluent_kafka import Consumer

    conf = dict(client_config(conf))
    conf.update({
        "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "error", "isolation.level": "read_committed",
        "enable.partition.eof": True, "fetch.wait.max.ms": 50, **more,
    })
    return Consumer(conf)


def transactions(conf, topic, partitions, count, first, seed):
    from confluent_kafka import Producer

    dice, producer = random.Random(seed), Producer({**client_config(conf), "transactional.id": f"{topic}-{first}", "linger.ms": 0})
    producer.init_transactions(30)
    at, committed, aborted = first, 0, 0
    while at < first + count:
        size = min(dice.randint(1, 12), first + count - at)
        producer.begin_transaction()
        for _ in range(size):
            key = f"k{dice.randrange(60)}"
            producer.produce(topic, key=key, value=str(at), partition=dice.randrange(partitions))
            at += 1
        if dice.randrange(4) == 0:
            producer.flush(30)
            producer.abort_transaction(30)
            aborted += size
        else:
            producer.commit_transaction(30)
            committed += size
    print(json.dumps({"committed": committed, "aborted": aborted}))


def commit(conf, topic, partitions, prefix, count, seed):
    from confluent_kafka import TopicPartition

    dice, out = random.Random(seed), {}
    for n in range(count):
        group = f"{prefix}{n}"
        member = consumer(conf, group)
        offsets = []
        for partition in range(partitions):
            low, high = member.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
            stood = member.committed([TopicPartition(topic, partition)], timeout=30)[0].offset
            offsets.append(dice.randint(max(low, stood), high))
        member.commit(offsets=[TopicPartition(topic, p, offset) for p, offset in enumerate(offsets)], asynchronous=False)
        out[group] = offsets
        member.close()
    print(json.dumps(out))


def commit_one(conf, topic, group, partition, offset):
    from confluent_kafka import TopicPartition

    member = consumer(conf, group)
    member.committed([TopicPartition(topic, partition)], timeout=30)
    member.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
    print(json.dumps({"at": time.time()}))
    member.close()


def committed(conf, topic, partitions, groups):
    from confluent_kafka import TopicPartition

    out = {}
    for group in groups:
        member = consumer(conf, group)
        found = member.committed([TopicPartition(topic, p) for p in range(partitions)], timeout=30)
        out[group] = [one.offset for one in found]
        member.close()
    print(json.dumps(out))


def drain(member, partitions):
    """What comes until every partition has ended: partition -> [offset, ordinal]."""
    out, ended, idle = {str(p): [] for p in range(partitions)}, set(), 0
    while len(ended) < partitions:
        messages = member.consume(5000, timeout=0.5)
        idle = 0 if messages else idle + 1
        if idle > 120:
            raise SystemExit(f"groups: only partitions {sorted(ended)} ended")
        for message in messages:
            error = message.error()
            if error is None:
                ended.discard(message.partition())
                out[str(message.partition())].append([message.offset(), int(message.value())])
            elif error.code() == -191:
                ended.add(message.partition())
            else:
                raise SystemExit(f"groups: {error}")
    return out


def read(conf, topic, partitions):
    from confluent_kafka import OFFSET_BEGINNING, TopicPartition

    member = consumer(conf, "groups-read")
    member.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
    print(json.dumps(drain(member, partitions)))
    member.close()


def go_on(conf, topic, partitions, group):
    member = consumer(conf, group, **{"session.timeout.ms": 10_000})
    member.subscribe([topic])
    out = drain(member, partitions)
    member.close()
    print(json.dumps({p: [ordinal for _, ordinal in records] for p, records in out.items()}))


def watch(conf, topic, group, partition):
    from confluent_kafka import TopicPartition

    member, at = consumer(conf, group), [TopicPartition(topic, partition)]
    before = member.committed(at, timeout=30)[0].offset
    print("looking", flush=True)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        now = member.committed(at, timeout=30)[0].offset
        if now != before:
            print(json.dumps({"offset": now, "at": time.time()}))
            return
        time.sleep(0.02)
    raise SystemExit(f"groups: {group} stayed at {before} for 30 s")


def main(argv):
    verb, rest = argv[1] if len(argv) > 1 else "", argv[2:]
    if verb == "transactions":
        transactions(rest[0], rest[1], *map(int, rest[2:6]))
    elif verb == "commit":
        commit(rest[0], rest[1], int(rest[2]), rest[3], int(rest[4]), int(rest[5]))
    elif verb == "commit-one":
        commit_one(rest[0], rest[1], rest[2], int(rest[3]), int(rest[4]))
    elif verb == "committed":
        committed(rest[0], rest[1], int(rest[2]), rest[3:])
    elif verb == "read":
        read(rest[0], rest[1], int(rest[2]))
    elif verb == "continue":
        go_on(rest[0], rest[1], int(rest[2]), rest[3])
    elif verb == "watch":
        watch(rest[0], rest[1], rest[2], int(rest[3]))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
