"""What only the SQS queue can get wrong: names, polls in the background, queues that are not there, the environment's keys."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from eyeline.core.errors import ConfigError, QueueError
from eyeline.core.types import Message
from eyeline.queues import open_queue
from tests.contract.servers import QUEUE_SERVERS, sqs

LONG = 60.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return QUEUE_SERVERS["sqs"](tmp_path)


def a_message(topic: str = "parcels.live", **more: object) -> Message:
    fields: dict[str, object] = {"id": "one", "group": "north", "body": b"x", **more}
    return Message(topic=topic, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("topic", ["parcels.live", "a_b.c-d.v2.bulk", "A._u.live"])
async def test_a_topic_is_found_again_by_the_name_of_its_queue(url: str, topic: str) -> None:
    putter, other = open_queue(url), open_queue(url)
    await putter.put_many([a_message(topic)])
    assert (await other.stats()).by_topic == {topic: 1}
    await putter.close()
    await other.close()


async def test_what_came_in_the_background_is_handed_back_at_the_end(url: str) -> None:
    watching, other = open_queue(url, ["parcels.live"]), open_queue(url, ["parcels.live"])
    assert await watching.receive(1, 0.1, LONG) == []  # its long poll goes on
    await other.put_many([a_message()])
    for _ in range(100):
        if (await other.stats()).in_flight:
            break
        await asyncio.sleep(0.05)
    await watching.close()
    [taken] = await other.receive(1, 5, LONG)
    assert (taken.id, taken.attempt) == ("one", 2)
    await other.close()


async def test_a_queue_that_must_exist_and_does_not_is_said(url: str) -> None:
    queue = open_queue(f"{url}&create=0")
    with pytest.raises(QueueError, match="create=0") as caught:
        await queue.put_many([a_message()])
    assert not caught.value.transient
    await queue.close()


async def test_keys_and_region_come_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    prefix = urlsplit(url).netloc.rpartition("@")[2]
    queue = open_queue(f"sqs://{prefix}?endpoint={sqs()}")
    await queue.put_many([a_message()])
    await queue.close()
    other = open_queue(url)
    assert (await other.stats()).depth == 1
    await other.close()


async def test_a_delay_that_sqs_cannot_keep_is_refused(url: str) -> None:
    queue = open_queue(url)
    with pytest.raises(QueueError, match="900 s"):
        await queue.put_many([a_message(delay=901.0)])
    await queue.close()


def test_a_url_without_a_prefix_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no queues"):
        open_queue("sqs://?region=us-east-1")
