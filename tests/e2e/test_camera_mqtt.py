"""The MQTT trigger against a real broker: a message takes the next frame, its job is told, and the broker may come and go."""

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.rtsp import free_port
from tests.unit.cameras.agents import books, running_agent, small_gateway, until
from tests.unit.cameras.gateway import SmallGateway

aiomqtt = pytest.importorskip("aiomqtt", reason="pip install 'eyeline[mqtt]'")
pytest.importorskip("amqtt", reason="pip install amqtt")

TOPIC = "line/1/trigger"
CONFIG = """
listeners:
  default:
    type: tcp
    bind: 127.0.0.1:{port}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin:
    allow_anonymous: true
"""


@asynccontextmanager
async def broker(port: int, folder: Path) -> AsyncIterator[int]:
    """amqtt as a process of its own, killed at the end."""
    config = folder / f"broker-{port}.yaml"
    config.write_text(CONFIG.format(port=port))
    command = Path(sys.executable).with_name("amqtt")
    with (folder / "broker.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(command, "-c", str(config), stdout=log, stderr=log)
    try:
        await until(lambda: process.returncode is not None or listens(port), 60)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
async def gateway() -> AsyncIterator[SmallGateway]:
    async with small_gateway() as small:
        yield small


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.cameras.mqtt.backoff", lambda *_, **__: 0.2)
    monkeypatch.setattr("eyeline.cameras.agent.REPORT_EVERY", 0.1)


def line(folder: Path, gateway: SmallGateway, port: int) -> Any:
    return running_agent(
        folder, gateway, "synthetic://160x120", fps=20, only_triggered=True, trigger_topic=TOPIC,
        mqtt=f"mqtt://127.0.0.1:{port}",
    )  # fmt: skip


async def hears(agent: Any) -> None:
    await until(lambda: agent._trigger._client is not None, 30)
    await until(lambda: agent._state == "live", 30)


async def test_a_message_takes_the_next_frame_and_its_job_is_told(tmp_path: Path, gateway: SmallGateway) -> None:
    async with broker(free_port(), tmp_path) as port, line(tmp_path, gateway, port) as agent:
        await hears(agent)
        async with aiomqtt.Client("127.0.0.1", port) as plc:
            await plc.subscribe(f"{TOPIC}/job")
            for ref in ("board 1", "board 2"):
                await plc.publish(TOPIC, ref.encode(), qos=1)
                async with asyncio.timeout(20):
                    told = json.loads((await anext(plc.messages)).payload)
                assert told["ref"] == ref
                assert told["job"].startswith("job-")
    assert [kept.query["ref"] for kept in gateway.kept.values()] == ["board 1", "board 2"]
    assert books(tmp_path).captured == books(tmp_path).accepted == 2


async def test_a_broker_that_goes_away_is_waited_for_and_old_triggers_take_no_picture(
    tmp_path: Path, gateway: SmallGateway
) -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        agent = await stack.enter_async_context(line(tmp_path, gateway, port))
        await until(lambda: agent._state == "live", 30)
        async with broker(port, tmp_path):
            await hears(agent)
        await until(lambda: agent._trigger._client is None, 30)
        async with broker(port, tmp_path), aiomqtt.Client("127.0.0.1", port) as plc:
            await hears(agent)
            await plc.publish(TOPIC, b"", qos=1)
            await until(lambda: len(gateway.kept) == 1, 20)
    assert "ref" not in next(iter(gateway.kept.values())).query


@pytest.mark.parametrize("payload", [b"\xff\xfe\x00 x", b"y" * 5000, "Prüfling \u202e7".encode()])
async def test_any_payload_becomes_a_ref_that_the_gateway_takes(
    tmp_path: Path, gateway: SmallGateway, payload: bytes
) -> None:
    async with broker(free_port(), tmp_path) as port, line(tmp_path, gateway, port) as agent:
        await hears(agent)
        async with aiomqtt.Client("127.0.0.1", port) as plc:
            await plc.publish(TOPIC, payload, qos=1)
            await until(lambda: len(gateway.kept) == 1, 20)
    ref = next(iter(gateway.kept.values())).query["ref"]
    assert 0 < len(ref) <= 200
    assert "\x00" not in ref
