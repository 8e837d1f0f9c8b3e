"""The queue on Amazon SQS: one standard queue for each topic, named `<prefix>-<pipeline>-<lane>`.

SQS chooses what it gives; between topics we choose (`queues.turns`). A topic that was empty is watched by a long poll in
the background, which outlives the receive that began it: idle workers cost three requests a minute and topic.
"""

import asyncio
import contextlib
import math
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)

from eyeline.core.errors import ConfigError, QueueError
from eyeline.core.settings import mask
from eyeline.core.types import Delivery, Message, QueueStats
from eyeline.queues.base import Abilities
from eyeline.queues.claims import Claims
from eyeline.queues.turns import Turns, in_turn

T = TypeVar("T")

#: Seconds that one call may take, a long poll's waiting excepted.
PATIENCE = 2.5
#: SQS's own limits: entries of a batch, seconds of a long poll, of a lease or a delay, of a delay when put.
BATCH, POLL, LONGEST_LEASE, LONGEST_DELAY = 10, 20, 43_200, 900
#: Batches on their way at once.
ABREAST = 8
#: Seconds between looks for topics that others made, where none are named.
LIST_EVERY = 5.0
#: A message that lay here for so many seconds has its lease extended before it is given out.
STALE = 1.0

_MISSING = frozenset(("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"))
_REFUSED = (
    "AccessDenied",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
    "Invalid",
    "Unsupported",
)
_GONE = frozenset(("ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"))
_PERMANENT = (NoCredentialsError, PartialCredentialsError, NoRegionError, ParamValidationError)


class Envelope(msgspec.Struct, frozen=True):
    """The message as SQS carries it: JSON, the body in base64, for SQS takes text only."""

    id: str
    site: str
    body: bytes


class Waiting(NamedTuple):
    """Received in the background: when, by the loop's clock, and what."""

    since: float
    delivery: Delivery


class SqsQueue:
    """Keeps `queues.base.Queue`'s promises, but for `abilities`, on `sqs://[key:secret@]prefix?region=…&endpoint=…&create=0`."""

    abilities: ClassVar[Abilities] = Abilities(
        grain=1.0,
        look_every=10.0,
        cannot={
            "lost leases": "SQS deletes by an old receipt without a word",
            "ids": "a standard queue keeps every message that it is sent",
            "order": "a standard queue gives messages in no order",
            "sites": "SQS chooses what it gives; its fair queues even out waiting times between sites, not turns",
        },
    )

    def __init__(self, url: str, *, topics: Sequence[str] | None = None) -> None:
        self._where = mask(url)
        parts = urlsplit(url)
        self._prefix = parts.netloc.rpartition("@")[2]
        if not self._prefix:
            raise ConfigError(f"{self._where} names no queues; write sqs://prefix?region=eu-central-1")
        self._create = dict(parse_qsl(parts.query)).get("create", "1") not in {"0", "false"}
        self._account = account_of(url)
        self._topics = None if topics is None else tuple(topics)
        self._turns: Turns[str] = Turns()
        self._claims = Claims(self._give_back)
        self._urls: dict[str, str] = {}
        self._listed_at = -math.inf
        self._polls: dict[str, asyncio.Task[list[Waiting]]] = {}
        self._ready: list[Waiting] = []
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None
        self._closed = False

    async def put_many(self, messages: Sequence[Message]) -> None:
        """See `Queue.put_many`. Raises after a part of it was kept, too: putting all of it again is harmless."""
        by_topic: dict[str, list[Message]] = {}
        for message in messages:
            if message.delay > LONGEST_DELAY:
                raise QueueError(f"{message.id}: SQS delays by {LONGEST_DELAY} s at most", transient=False)
            by_topic.setdefault(message.topic, []).append(message)
        await self._batches(self._send, by_topic)

    async def receive(self, limit: int, wait: float, lease: float) -> list[Delivery]:
        """See `Queue.receive`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            if deliveries := await self._claims.of(self._take(limit, lease)):
                return deliveries
            left = deadline - loop.time()
            if wait > 0:  # even if the time is up: the next receive finds what its polls brought
                await self._watch(limit, lease, max(0.0, left))
            if left <= 0:
                return []

    async def ack_many(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """See `Queue.ack_many`. SQS does not say whose lease was lost."""
        await self._batches(self._delete, _by_topic(deliveries))
        return []

    async def nack(self, delivery: Delivery, *, delay: float) -> None:
        """See `Queue.nack`."""
        await self._hold(delay, delivery.topic, [delivery])

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """See `Queue.extend`. Returns those that SQS says are held by nobody."""
        lost = await self._batches(partial(self._hold, lease), _by_topic(deliveries))
        return [delivery for batch in lost for delivery in batch]

    async def stats(self) -> QueueStats:
        """See `Queue.stats`. Approximate, as SQS's own figures are; the oldest age is not to be had cheaply."""
        topics = await self._watched()
        counts = dict(zip(topics, await asyncio.gather(*map(self._count, topics)), strict=True))
        return QueueStats(
            depth=sum(waiting for waiting, _ in counts.values()),
            in_flight=sum(held for _, held in counts.values()),
            oldest_age=None,
            by_topic={topic: waiting for topic, (waiting, _) in counts.items() if waiting},
        )

    async def close(self) -> None:
        """See `Queue.close`. What was received in the background is handed back."""
        if self._closed:
            return
        for poll in self._polls.values():
            poll.cancel()
        await asyncio.gather(*self._polls.values(), return_exceptions=True)
        with contextlib.suppress(QueueError):
            self._harvest()
            await self._give_back([waiting.delivery for waiting in self._ready])
        await self._claims.close()
        self._closed = True
        await self._stack.aclose()

    # ------------------------------------------------------------ receiving
    async def _take(self, limit: int, lease: float) -> list[Delivery]:
        """What came in the background, else what the topics that are not watched have."""
        self._harvest()
        if self._ready:
            return await self._give_out(limit, lease)
        topics = [topic for topic in await self._watched() if topic not in self._polls]
        taken: list[Delivery] = []
        while topics and len(taken) < limit:
            picked = self._turns.pick({topic: [topic] * limit for topic in topics}, limit - len(taken))
            wanted = {topic: picked.count(topic) for topic in dict.fromkeys(picked)}
            got = await asyncio.gather(*(self._receive(topic, n, lease) for topic, n in wanted.items()))
            taken += in_turn(picked, dict(zip(wanted, got, strict=True)))
            empty = {topic for topic, some in zip(wanted, got, strict=True) if len(some) < wanted[topic]}
            topics = [topic for topic in topics if topic not in empty]
        return taken

    async def _receive(self, topic: str, limit: int, lease: float, wait: int = 0) -> list[Delivery]:
        """Up to `limit` of one topic, in as many calls as that takes; fewer where there are no more."""
        taken: list[Delivery] = []
        while len(taken) < limit:
            count = min(BATCH, limit - len(taken))
            got = await self._call(
                "receive_message",
                topic,
                patience=PATIENCE + wait,
                MaxNumberOfMessages=count,
                WaitTimeSeconds=wait,
                VisibilityTimeout=_seconds(lease),
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
            taken += (_delivery(topic, message) for message in got.get("Messages", ()))
            if len(got.get("Messages", ())) < count:
                break
        return taken

    async def _watch(self, limit: int, lease: float, seconds: float) -> None:
        """Have a long poll on every topic; returns when one has ended, after `seconds` at most."""
        for topic in await self._watched():
            if topic not in self._polls:
                self._polls[topic] = asyncio.ensure_future(self._poll(topic, min(limit, BATCH), lease))
        listing = seconds if self._topics is not None else min(seconds, LIST_EVERY)
        if self._polls:
            await asyncio.wait(self._polls.values(), timeout=listing, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(min(listing, LIST_EVERY))

    async def _poll(self, topic: str, limit: int, lease: float) -> list[Waiting]:
        deliveries = await self._receive(topic, limit, lease, POLL)
        now = asyncio.get_running_loop().time()
        return [Waiting(now, delivery) for delivery in deliveries]

    def _harvest(self) -> None:
        """What the polls that ended brought, or the error that ended one."""
        for topic in [topic for topic, poll in self._polls.items() if poll.done()]:
            poll = self._polls.pop(topic)
            if not poll.cancelled():
                self._ready += poll.result()

    async def _give_out(self, limit: int, lease: float) -> list[Delivery]:
        """The leases of what lay here for a while are extended first; what is lost by then, is another's."""
        given, self._ready = self._ready[:limit], self._ready[limit:]
        now = asyncio.get_running_loop().time()
        stale = [waiting.delivery for waiting in given if now - waiting.since > STALE]
        lost = {delivery.receipt for delivery in await self.extend(stale, lease)}
        return [waiting.delivery for waiting in given if waiting.delivery.receipt not in lost]

    async def _give_back(self, deliveries: list[Delivery]) -> None:
        await self._batches(partial(self._hold, 0.0), _by_topic(deliveries))

    # ------------------------------------------------------------ batches of ten
    async def _batches(self, call: Callable[[str, Any], Awaitable[T]], by_topic: dict[str, list[Any]]) -> list[T]:
        limit = asyncio.Semaphore(ABREAST)

        async def one(topic: str, batch: list[Any]) -> T:
            async with limit:
                return await call(topic, batch)

        calls = [
            one(topic, items[at : at + BATCH])
            for topic, items in by_topic.items()
            for at in range(0, len(items), BATCH)
        ]
        return await asyncio.gather(*calls)

    async def _send(self, topic: str, messages: list[Message]) -> None:
        entries = [
            {
                "Id": str(number),
                "MessageBody": msgspec.json.encode(Envelope(message.id, message.group, message.body)).decode(),
                "DelaySeconds": _seconds(message.delay),
                "MessageGroupId": message.group,  # on standard queues: AWS evens out waiting times between groups
            }
            for number, message in enumerate(messages)
        ]
        self._require(await self._call("send_message_batch", topic, Entries=entries), "put")

    async def _delete(self, topic: str, deliveries: list[Delivery]) -> None:
        entries = [{"Id": str(n), "ReceiptHandle": each.receipt} for n, each in enumerate(deliveries)]
        self._require(await self._call("delete_message_batch", topic, Entries=entries), "acknowledged")

    async def _hold(self, seconds: float, topic: str, deliveries: list[Delivery]) -> list[Delivery]:
        """Hide them for so long from now; returns those that are held by nobody."""
        hidden = min(_seconds(seconds), LONGEST_LEASE)
        entries = [
            {"Id": str(n), "ReceiptHandle": each.receipt, "VisibilityTimeout": hidden}
            for n, each in enumerate(deliveries)
        ]
        answer = await self._call("change_message_visibility_batch", topic, Entries=entries)
        self._require(answer, "held")
        return [deliveries[int(failed["Id"])] for failed in answer.get("Failed", ())]

    def _require(self, answer: dict[str, Any], done: str) -> None:
        """A receipt that is none any more is no failure."""
        failed = [entry for entry in answer.get("Failed", ()) if entry["Code"].rpartition(".")[2] not in _GONE]
        if failed:
            said = f"{failed[0]['Code']}: {failed[0].get('Message', '')}"
            raise QueueError(f"{self._where}: {len(failed)} messages were not {done} ({said})")

    # ------------------------------------------------------------ topics and their queues
    async def _watched(self) -> list[str]:
        if self._topics is not None:
            return list(self._topics)
        now = asyncio.get_running_loop().time()
        if now - self._listed_at > LIST_EVERY:
            found = await self._ask("list_queues", QueueNamePrefix=f"{self._prefix}-", MaxResults=1000)
            for url in found.get("QueueUrls", ()):
                self._urls.setdefault(_topic_of(url.rpartition("/")[2].removeprefix(f"{self._prefix}-")), url)
            self._listed_at = now
        return sorted(self._urls)

    async def _count(self, topic: str) -> tuple[int, int]:
        """Waiting and delayed ones; held ones."""
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesDelayed",
            "ApproximateNumberOfMessagesNotVisible",
        )
        answer = await self._call("get_queue_attributes", topic, AttributeNames=list(names))
        visible, delayed, held = (int(answer.get("Attributes", {}).get(name, 0)) for name in names)
        return visible + delayed, held

    async def _url(self, topic: str) -> str:
        """Of the topic's queue, which is made where there is none."""
        if topic not in self._urls:
            name = f"{self._prefix}-{_name_of(topic)}"
            try:
                self._urls[topic] = (await self._raw("get_queue_url", QueueName=name))["QueueUrl"]
            except ClientError as error:
                if error_code(error) not in _MISSING or not self._create:
                    raise
                keep = {"MessageRetentionPeriod": "1209600"}  # 14 days, the most there is
                self._urls[topic] = (await self._raw("create_queue", QueueName=name, Attributes=keep))["QueueUrl"]
        return self._urls[topic]

    # ------------------------------------------------------------ calls
    async def _open(self) -> None:
        """Once: the client reads a description of the service, which is this machine's time and not the server's."""
        async with self._opening:
            if self._client is None:
                self._client = await self._stack.enter_async_context(open_client(self._account))

    async def _call(self, operation: str, topic: str, *, patience: float = PATIENCE, **words: Any) -> dict[str, Any]:
        """An operation on the topic's queue."""

        async def call() -> dict[str, Any]:
            return await self._raw(operation, QueueUrl=await self._url(topic), **words)

        try:
            return await self._translated(call, patience)
        except QueueError as error:
            if isinstance(error.__cause__, ClientError) and error_code(error.__cause__) in _MISSING:
                self._urls.pop(topic, None)
            raise

    async def _ask(self, operation: str, **words: Any) -> dict[str, Any]:
        return await self._translated(partial(self._raw, operation, **words), PATIENCE)

    async def _raw(self, operation: str, **words: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await getattr(self._client, operation)(**words)
        return answer

    async def _translated(self, call: Callable[[], Awaitable[dict[str, Any]]], patience: float) -> dict[str, Any]:
        if self._closed:
            raise QueueError(f"the queue {self._where} is closed; open it again to use it", transient=False)
        try:
            await self._open()
            async with asyncio.timeout(patience):
                return await call()
        except _PERMANENT as error:
            raise QueueError(f"{self._where}: {error}; look at region and credentials", transient=False) from error
        except ClientError as error:
            code = error_code(error)
            hint = "; make it, or leave create=0 out of the URL" if code in _MISSING and not self._create else ""
            permanent = bool(hint) or code.startswith(_REFUSED)
            raise QueueError(f"{self._where}: {error}{hint}", transient=not permanent) from error
        except TimeoutError as error:
            raise QueueError(f"{self._where} did not answer within {patience:g} s; is it up and reachable?") from error
        except (BotoCoreError, OSError) as error:
            raise QueueError(f"{self._where} cannot be used now: {error}") from error


_SESSION = get_session()  # reading the service's description takes longer than all calls of a test


def account_of(url: str) -> dict[str, Any]:
    """Region, endpoint and keys of a `sqs://` URL; what it leaves out comes from AWS's environment."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    return {
        "region_name": query.get("region") or os.environ.get("AWS_REGION"),
        "endpoint_url": query.get("endpoint"),
        "aws_access_key_id": unquote(parts.username) if parts.username else None,
        "aws_secret_access_key": unquote(parts.password) if parts.password else None,
    }


def open_client(account: dict[str, Any], service: str = "sqs") -> Any:
    """A client of AWS, to be entered."""
    config = AioConfig(
        connect_timeout=1,
        read_timeout=POLL + PATIENCE,
        retries={"total_max_attempts": 2, "mode": "standard"},
        s3={"addressing_style": "path" if account["endpoint_url"] else "auto"},
    )
    return _SESSION.create_client(service, config=config, **account)


def error_code(error: ClientError) -> str:
    """AWS's own word for what was wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _seconds(seconds: float) -> int:
    return math.ceil(seconds)


def _name_of(topic: str) -> str:
    """SQS's names have no dots: `parcels.live` is `parcels-live`; dots and underscores of a pipeline are `_d` and `_u`."""
    pipeline, _, lane = topic.rpartition(".")
    return f"{pipeline.replace('_', '_u').replace('.', '_d')}-{lane}"


def _topic_of(name: str) -> str:
    pipeline, _, lane = name.rpartition("-")
    return f"{pipeline.replace('_d', '.').replace('_u', '_')}.{lane}"


def _delivery(topic: str, message: dict[str, Any]) -> Delivery:
    try:
        envelope = msgspec.json.decode(message["Body"], type=Envelope)
    except msgspec.DecodeError:  # put by somebody else: the worker will say what is wrong with it
        envelope = Envelope(message["MessageId"], "", message["Body"].encode())
    attempt = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
    return Delivery(
        id=envelope.id,
        topic=topic,
        group=envelope.site,
        body=envelope.body,
        attempt=attempt,
        receipt=message["ReceiptHandle"],
    )


def _by_topic(deliveries: Iterable[Delivery]) -> dict[str, list[Delivery]]:
    by_topic: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        by_topic.setdefault(delivery.topic, []).append(delivery)
    return by_topic
