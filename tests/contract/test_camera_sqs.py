"""A camera that is a queue of SQS, on a real server: a message is deleted when its pictures are with the gateway, not before."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from eyeline.cameras import open_camera
from eyeline.cameras import sqs as source_module
from eyeline.cameras.agent import CameraAgent
from eyeline.cameras.base import CameraSource, Frame
from eyeline.cameras.spool import ACCEPTED, Spool
from eyeline.cameras.sqs import Picture, pictures_of
from eyeline.core.errors import CameraError, ConfigError
from eyeline.core.settings import CameraSettings
from eyeline.queues.sqs import account_of, open_client
from tests.contract.servers import free_port, sqs
from tests.gateways import jpeg, running


def event(key: str, name: str = "ObjectCreated:Put", bucket: str = "pictures-in") -> dict[str, Any]:
    place = {"bucket": {"name": bucket}, "object": {"key": key}}
    return {"Records": [{"eventName": name, "eventTime": "2026-03-04T12:00:00.000Z", "s3": place}]}


def test_a_message_names_its_pictures_in_the_words_of_s3_sns_eventbridge_or_its_own() -> None:
    created = pictures_of(json.dumps(event("a/b+c%2Bd.jpg")))
    assert [picture.url for picture in created] == ["s3://pictures-in/a/b c+d.jpg"]
    assert created[0].created_at is not None
    assert (
        pictures_of(json.dumps({"Type": "Notification", "Message": json.dumps(event("x"))}))[0].url
        == "s3://pictures-in/x"
    )
    bridge: dict[str, Any] = {"source": "aws.s3", "detail-type": "Object Created", "time": "2026-03-04T12:00:00Z"}
    bridge |= {"detail": {"bucket": {"name": "b"}, "object": {"key": "k k"}}}
    assert pictures_of(json.dumps(bridge))[0].url == "s3://b/k k"
    assert pictures_of(" https://example.com/a.jpg\n") == [Picture("https://example.com/a.jpg")]
    assert pictures_of('{"url": "s3://b/k"}') == [Picture("s3://b/k")]
    assert pictures_of(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})) == []
    assert pictures_of(json.dumps(event("x", "ObjectRemoved:Delete"))) == []
    for wrong in ("", "hello", "[1]", '{"a": 1}', '{"Records": [{"eventName": "ObjectCreated:Put"}]}', "\x00"):
        with pytest.raises(ValueError, match=r"."):
            pictures_of(wrong)


class Aws:
    """A queue and a bucket of this test's own."""

    def __init__(self) -> None:
        self.name = f"in-{uuid4().hex}"
        self.url = f"sqs://test:test@{self.name}?region=us-east-1&endpoint={sqs()}"
        self.queue = ""
        self.stack = AsyncExitStack()
        self.clients: dict[str, Any] = {}

    async def call(self, service: str, operation: str, **words: Any) -> dict[str, Any]:
        if service not in self.clients:
            self.clients[service] = await self.stack.enter_async_context(open_client(account_of(self.url), service))
        found: dict[str, Any] = await getattr(self.clients[service], operation)(**words)
        return found

    async def send(self, body: object) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        await self.call("sqs", "send_message", QueueUrl=self.queue, MessageBody=text)

    async def left(self) -> int:
        """Messages that are there, held or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        told = await self.call("sqs", "get_queue_attributes", QueueUrl=self.queue, AttributeNames=names)
        return sum(int(value) for value in told["Attributes"].values())


@pytest.fixture
async def aws(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Aws]:
    monkeypatch.setattr(source_module, "WAIT", 1.0)
    made = Aws()
    async with made.stack:
        made.queue = (await made.call("sqs", "create_queue", QueueName=made.name))["QueueUrl"]
        await made.call("s3", "create_bucket", Bucket=made.name)
        yield made


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    opened = Spool(tmp_path / "spool", 10_000_000)
    yield opened
    opened.close()


def camera(aws: Aws, spool: Spool, dropped: list[str]) -> CameraSource:
    memory = spool.memory
    memory = type(memory)(memory.seen, memory.since, dropped.append, memory.pending, memory.forget)
    return open_camera(CameraSettings(name="c", url=aws.url, allow=["127.0.0.0/8"]), memory)


async def emptied(aws: Aws, frames: Any) -> None:
    """Until the queue is empty; the source goes on meanwhile."""
    going = asyncio.create_task(anext(frames))
    async with asyncio.timeout(20):
        while await aws.left():
            await asyncio.sleep(0.05)
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)


async def test_a_message_is_deleted_when_all_its_pictures_are_settled_and_not_before(aws: Aws, spool: Spool) -> None:
    for key in ("one.jpg", "two.jpg"):
        await aws.call("s3", "put_object", Bucket=aws.name, Key=key, Body=jpeg(len(key) + ord(key[0])))
    both = [event(key, bucket=aws.name)["Records"][0] for key in ("one.jpg", "two.jpg")]
    await aws.send({"Records": both})
    source = camera(aws, spool, [])
    held = []
    async with aclosing(source.frames()) as frames:
        for _ in both:
            frame: Frame = await anext(frames)
            held.append(spool.capture(frame))
            assert frame.meta["url"].startswith(f"s3://{aws.name}/")
        spool.settle(held[0], ACCEPTED)
        waiting = asyncio.create_task(anext(frames))
        await asyncio.sleep(1.5)
        assert await aws.left() == 1
        spool.settle(held[1], ACCEPTED)
        async with asyncio.timeout(20):
            while await aws.left():
                await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert not spool.memory.seen("anything")
    await source.close()


async def test_what_was_captured_before_a_crash_is_not_captured_again_and_what_is_wrong_is_counted(
    aws: Aws, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "LEASE", 1.0)
    await aws.call("s3", "put_object", Bucket=aws.name, Key="one.jpg", Body=jpeg(1))
    await aws.send(event("one.jpg", bucket=aws.name))
    first = camera(aws, spool, [])
    async with aclosing(first.frames()) as frames:
        held = spool.capture(await anext(frames))
    await first.close()  # it dies, and the gateway has the picture: only the message is left
    spool.settle(held, ACCEPTED)
    spool.close()
    again = Spool(tmp_path / "spool", 10_000_000)
    for body in ("no message of ours", event("gone.jpg", bucket=aws.name), "http://169.254.169.254/latest"):
        await aws.send(body)
    dropped: list[str] = []
    second = camera(aws, again, dropped)
    async with aclosing(second.frames()) as frames:
        await emptied(aws, frames)
    await second.close()
    assert sorted(dropped) == ["bad_message", "picture_missing", "picture_missing"]
    assert again.counts().captured == 1
    again.close()
    assert (tmp_path / "spool" / "origins.log").read_bytes().count(b"\n") == 2
    third = Spool(tmp_path / "spool", 10_000_000)
    third.close()
    assert (tmp_path / "spool" / "origins.log").read_bytes() == b""


async def test_a_server_that_is_away_is_a_camera_that_is_offline(spool: Spool) -> None:
    url = f"sqs://test:test@nowhere?region=us-east-1&endpoint=http://127.0.0.1:{free_port()}"
    source = open_camera(CameraSettings(name="c", url=url), spool.memory)
    with pytest.raises(CameraError, match="nowhere"):
        await anext(source.frames())
    await source.close()
    with pytest.raises(ConfigError, match="wait for room"):
        open_camera(CameraSettings(name="c", url=url, drop="newest"), spool.memory)


async def test_the_agent_deletes_a_message_once_the_gateway_has_said_202(aws: Aws, tmp_path: Path) -> None:
    await aws.call("s3", "put_object", Bucket=aws.name, Key="one.jpg", Body=jpeg(9))
    await aws.send(event("one.jpg", bucket=aws.name))
    settings = CameraSettings(name="belt", url=aws.url)
    port = free_port()
    agent = CameraAgent(settings, f"http://127.0.0.1:{port}", tmp_path / "agent", None)
    stop = asyncio.Event()
    working = asyncio.create_task(agent.run(stop))
    async with asyncio.timeout(30):
        while agent._failures == 0:
            await asyncio.sleep(0.05)
    assert await aws.left() == 1  # captured and spooled, and no gateway has it
    cameras = [{"name": "belt", "url": aws.url}]
    async with running(tmp_path / "gateway", gateway={"port": port}, cameras=cameras) as here:
        job = await here.take()
        assert await here.blobs.get(job.blob) == jpeg(9)
        assert job.meta["url"] == f"s3://{aws.name}/one.jpg"
        async with asyncio.timeout(30):
            while await aws.left():
                await asyncio.sleep(0.05)
        stop.set()
        await working
