"""A producer in another language: sends messages to a topic and tells what was acknowledged.

Messages are lines of JSON on the input, {"key": …, "value": …, "headers": [[name, …]], "partition": …, "timestamp": …}: bytes in
base64, the timestamp in milliseconds, what is left out is null or the producer's choice. With --count they are made here: the nth,
from --first on, has the key "n" and the value {"n": n, "customer_id": n % 100}.

Writes `acknowledged COUNT` as it goes, and at last a line of JSON: how many were acknowledged, the last offset in each partition,
and the errors.
"""
import argparse
import base64
import json
import sys
import time

from confluent_kafka import Producer

TELL_SECONDS = 0.05
FLUSH_SECONDS = 60
BURST_SECONDS = 0.01


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--compression", default="none", choices=["none", "gzip", "snappy", "lz4", "zstd"])
    parser.add_argument("--acks", default="all")
    parser.add_argument("--rate", type=float, help="messages per second, as fast as they go unless told")
    parser.add_argument("--transaction", choices=["commit", "abort"], help="sends them all in one transaction")
    parser.add_argument("--count", type=int)
    parser.add_argument("--first", type=int, default=0)
    return parser.parse_args()


def config(told):
    settings = {
        "bootstrap.servers": told.brokers,
        "compression.type": told.compression,
        "acks": told.acks,
        "linger.ms": 5,
        "batch.num.messages": 10_000,
        "queue.buffering.max.messages": 1_000_000,
        "message.max.bytes": 20_000_000,
        "reconnect.backoff.max.ms": 200,
        "log_level": 0,
    }
    if told.transaction:
        settings["transactional.id"] = f"{told.topic}-{time.time_ns()}"
    else:
        # The broker forgets sequences when it is started again, and an idempotent producer does not survive that. One request
        # at a time keeps the order over what is sent again.
        settings["max.in.flight"] = 1
    return settings


def made(first, count):
    for n in range(first, first + count):
        yield {"key": str(n).encode(), "value": b'{"n": %d, "customer_id": %d}' % (n, n % 100)}


def read():
    for line in sys.stdin:
        told = json.loads(line)
        message = {name: told[name] for name in ("partition", "timestamp") if told.get(name) is not None}
        message["key"], message["value"] = decoded(told.get("key")), decoded(told.get("value"))
        message["headers"] = [(name, decoded(value)) for name, value in told.get("headers") or []]
        yield message


def decoded(text):
    return None if text is None else base64.b64decode(text)


class Acknowledgements:
    def __init__(self):
        self.count, self.last, self.errors, self.told = 0, {}, [], 0.0

    def __call__(self, error, message):
        if error:
            self.errors.append(str(error))
            return
        self.count += 1
        self.last[message.partition()] = message.offset()

    def tell(self):
        if time.monotonic() - self.told > TELL_SECONDS:
            self.told = time.monotonic()
            print("acknowledged", self.count, flush=True)


def main():
    told = arguments()
    producer, seen = Producer(config(told)), Acknowledgements()
    if told.transaction:
        producer.init_transactions(FLUSH_SECONDS)
        producer.begin_transaction()
    start = time.monotonic()
    for number, message in enumerate(read() if told.count is None else made(told.first, told.count)):
        while True:
            try:
                producer.produce(told.topic, on_delivery=seen, **message)
                break
            except BufferError:
                producer.poll(0.1)
                seen.tell()
        early = 0 if told.rate is None else start + number / told.rate - time.monotonic()
        producer.poll(0)
        # In bursts: waiting for less than this would be waiting busily.
        while early > BURST_SECONDS:
            producer.poll(early)
            seen.tell()
            early = start + number / told.rate - time.monotonic()
        if number % 1000 == 0:
            seen.tell()
    end = time.monotonic() + FLUSH_SECONDS
    while len(producer) and time.monotonic() < end:
        producer.flush(TELL_SECONDS)
        seen.tell()
    if told.transaction == "commit":
        producer.commit_transaction(FLUSH_SECONDS)
    elif told.transaction == "abort":
        producer.abort_transaction(FLUSH_SECONDS)
    if len(producer):
        seen.errors.append(f"{len(producer)} messages are not acknowledged")
    print(json.dumps({"count": seen.count, "last_offsets": seen.last, "errors": seen.errors[:10]}))


main()
