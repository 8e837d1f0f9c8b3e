"""A queue of SQS that others fill: its letters are held, read, and deleted once what they tell of is safe; and the objects in
S3 that they name. For cameras: work of our own rides `queues.sqs`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from eyeline.core.errors import ConfigError, NotFound, QueueError, TooLarge
from eyeline.core.settings import mask
from eyeline.queues.sqs import account_of, error_code, open_client

T = TypeVar("T")

#: Letters in one call, as many as SQS gives.
LETTERS = 10
#: Seconds that one call may take, a long poll's waiting excepted, and an object of S3: a camera is in no hurry.
PATIENCE, FETCH = 10.0, 30.0


class Letter(NamedTuple):
    """A message as received; `receipt` names this lease."""

    id: str
    body: str
    receipt: str


class Inbox:
    """The queue at `sqs://[key:secret@]name?region=…&endpoint=…`. Methods raise QueueError."""

    def __init__(self, url: str) -> None:
        self._where = mask(url)
        self._name = urlsplit(url).netloc.rpartition("@")[2]
        if not self._name:
            raise ConfigError(f"{self._where} names no queue; write sqs://queue-name?region=eu-central-1")
        self._account = account_of(url)
        self._stack = AsyncExitStack()
        self._clients: dict[str, Any] = {}
        self._url = ""

    async def receive(self, wait: float, lease: float) -> list[Letter]:
        """Up to ten letters, each held for `lease` seconds."""
        words = {"MaxNumberOfMessages": LETTERS, "WaitTimeSeconds": int(wait), "VisibilityTimeout": int(lease)}
        found = await self._call("receive_message", wait + PATIENCE, **words)
        return [Letter(one["MessageId"], one["Body"], one["ReceiptHandle"]) for one in found.get("Messages", ())]

    async def hold(self, letter: Letter, lease: float) -> None:
        """Hold it for so many seconds more."""
        await self._call("change_message_visibility", ReceiptHandle=letter.receipt, VisibilityTimeout=int(lease))

    async def delete(self, letter: Letter) -> None:
        """It has done its work."""
        await self._call("delete_message", ReceiptHandle=letter.receipt)

    async def fetch(self, bucket: str, key: str, most: int) -> bytes:
        """An object of S3. Raises NotFound where there is none, TooLarge for one of over `most` bytes."""

        async def read() -> bytes:
            s3 = await self._client("s3")
            answer = await s3.get_object(Bucket=bucket, Key=key)
            async with answer["Body"] as body:
                if answer["ContentLength"] > most:
                    raise TooLarge(
                        f"s3://{bucket}/{key} has {answer['ContentLength']:,} bytes; at most {most:,} are read"
                    )
                data: bytes = await body.read()
                return data

        try:
            return await self._told(read, FETCH)
        except QueueError as error:
            if isinstance(error.__cause__, ClientError) and error_code(error.__cause__) in {
                "NoSuchKey",
                "NoSuchBucket",
            }:
                raise NotFound(f"there is no object s3://{bucket}/{key} (any more)") from error
            raise

    async def close(self) -> None:
        """Give back connections. Idempotent."""
        self._clients.clear()
        await self._stack.aclose()

    async def _call(self, operation: str, patience: float = PATIENCE, **words: Any) -> dict[str, Any]:
        async def call() -> dict[str, Any]:
            sqs = await self._client("sqs")
            if not self._url:
                self._url = (await sqs.get_queue_url(QueueName=self._name))["QueueUrl"]
            answer: dict[str, Any] = await getattr(sqs, operation)(QueueUrl=self._url, **words)
            return answer

        return await self._told(call, patience)

    async def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = await self._stack.enter_async_context(open_client(self._account, service))
        return self._clients[service]

    async def _told(self, call: Callable[[], Awaitable[T]], patience: float) -> T:
        try:
            async with asyncio.timeout(patience):
                return await call()
        except TimeoutError as error:
            raise QueueError(f"{self._where} did not answer within {patience:g} s; is it up and reachable?") from error
        except (ClientError, BotoCoreError, OSError) as error:
            raise QueueError(f"{self._where}: {error}; look at its name, region and credentials") from error
