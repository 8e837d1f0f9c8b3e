"""Queues: where jobs wait. One line for each backend; `open_queue` finds it by the URL's scheme."""

from collections.abc import Sequence

from eyeline.core.registry import Registry
from eyeline.queues.base import Queue

QUEUES: Registry[Queue] = Registry(
    "queue",
    {
        "sqlite": "eyeline.queues.sqlite:SqliteQueue",
        "memory": "eyeline.queues.memory:MemoryQueue",
        "redis": "eyeline.queues.redis:RedisQueue",
        "rediss": "eyeline.queues.redis:RedisQueue",
        "postgresql": "eyeline.queues.postgresql:PostgresqlQueue",
        "sqs": "eyeline.queues.sqs:SqsQueue",
        "kafka": "eyeline.queues.kafka:KafkaQueue",
    },
    extras={"rediss": "redis"},
)


def open_queue(url: str, topics: Sequence[str] | None = None) -> Queue:
    """The queue at `url`, receiving from `topics` (None: from all)."""
    return QUEUES.open(url, topics=topics)
