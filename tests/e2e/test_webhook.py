"""Webhooks against a real receiver: signed as others verify, tried again, never led astray, none slowed by another."""

import asyncio
import base64
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec import structs
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from eyeline.alerts import outputs
from eyeline.alerts.channels import LOG, open_channel
from eyeline.alerts.channels.base import Channel
from eyeline.alerts.channels.webhook import WebhookChannel
from eyeline.alerts.outputs import REFUSALS, OutputService
from eyeline.alerts.sender import AT_ONCE, SCHEDULE, Sender
from eyeline.alerts.service import AlertService
from eyeline.alerts.switch import Switched
from eyeline.core.clock import utcnow
from eyeline.core.errors import ChannelError, ConfigError
from eyeline.core.ids import uuid7
from eyeline.core.settings import AlertSettings, ChannelSettings, OutputSettings, RuleSettings
from eyeline.core.types import Classification, Result
from eyeline.stores.results import open_results
from eyeline.stores.results.base import AlertQuery, DeliveryQuery, DeliveryRow, ResultStore

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
HERE = ["127.0.0.0/8"]
PAYLOAD = b'{"type":"alert.opened","text":"x","data":{}}'

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """Keeps what it is sent; answers as the test says (204 unless told otherwise)."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer: Answer | None = None
        self.url = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.got.append((dict(request.headers.items()), await request.read()))
        return await self.answer(request) if self.answer is not None else web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    told = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", told.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    told.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield told
    await runner.cleanup()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResultStore]:
    results = open_results(f"sqlite:///{tmp_path}/results.db")
    await results.upgrade()
    yield results
    await results.close()


def settings(url: str, **more: Any) -> ChannelSettings:
    return ChannelSettings(**{"name": "ops", "url": url, "secret": SecretStr(SECRET), "allow": HERE, **more})


def a_delivery(**fields: Any) -> DeliveryRow:
    known: dict[str, Any] = {
        "id": uuid7(),
        "alert_id": "alert",
        "channel": "ops",
        "payload": PAYLOAD,
        "captured_at": utcnow(),
        "next_at": utcnow(),
    }
    return DeliveryRow(**{**known, **fields})


async def send(channel: Channel, delivery: DeliveryRow | None = None) -> None:
    try:
        await channel.send(delivery or a_delivery())
    finally:
        await channel.close()


def status(code: int, **more: Any) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, **more)

    return answer


async def test_a_verifier_written_by_others_accepts_the_signature(receiver: Receiver) -> None:
    delivery = a_delivery()
    await send(open_channel(settings(receiver.url)), delivery)
    [(headers, body)] = receiver.got
    lower = {name.lower(): value for name, value in headers.items()}
    assert Webhook(SECRET).verify(body, lower) == {"type": "alert.opened", "text": "x", "data": {}}
    assert lower["webhook-id"] == delivery.id
    assert lower["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", lower)
    late = lower | {"webhook-timestamp": str(int(lower["webhook-timestamp"]) - 301)}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, late)


async def test_while_a_secret_is_replaced_both_are_accepted(receiver: Receiver) -> None:
    new = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()
    await send(open_channel(settings(receiver.url, secret=SecretStr(f"{new} {SECRET}"))))
    [(headers, body)] = receiver.got
    lower = {name.lower(): value for name, value in headers.items()}
    assert [bool(Webhook(secret).verify(body, lower)) for secret in (SECRET, new)] == [True, True]
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(bytes(32)).decode()).verify(body, lower)


async def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    await send(open_channel(settings(receiver.url, secret=None)))
    assert "webhook-signature" not in {name.lower() for name in receiver.got[0][0]}


@pytest.mark.parametrize("code", [200, 201, 202, 204])
async def test_only_2xx_is_success(receiver: Receiver, code: int) -> None:
    receiver.answer = status(code)
    await send(open_channel(settings(receiver.url)))


@pytest.mark.parametrize(
    ("code", "again"), [(400, True), (404, True), (429, True), (500, True), (503, True), (410, False)]
)
async def test_anything_else_is_a_failure_and_410_a_final_one(receiver: Receiver, code: int, again: bool) -> None:
    receiver.answer = status(code, text="not today\x1b[31m")
    with pytest.raises(ChannelError, match=f"HTTP {code}: not today") as caught:
        await send(open_channel(settings(receiver.url)))
    assert caught.value.transient is again
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_a_redirect_is_a_failure_and_not_followed(receiver: Receiver, code: int) -> None:
    receiver.answer = status(code, headers={"Location": "/elsewhere"})
    with pytest.raises(ChannelError, match="redirects are not followed"):
        await send(open_channel(settings(receiver.url)))
    assert len(receiver.got) == 1


async def test_an_endless_answer_is_cut_off(receiver: Receiver) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            sent += 65536

    receiver.answer = endless
    with pytest.raises(ChannelError, match="HTTP 500"):
        await send(open_channel(settings(receiver.url)))
    assert sent < 8_000_000  # what the sockets hold, not what the receiver would send


async def test_a_receiver_that_hangs_is_given_up(receiver: Receiver) -> None:
    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    receiver.answer = hang
    with pytest.raises(ChannelError, match="no answer"):
        await send(WebhookChannel(settings(receiver.url), total=0.3))


async def test_a_dead_receiver_is_a_transient_failure() -> None:
    with pytest.raises(ChannelError, match="not reached") as caught:
        await send(open_channel(settings("http://127.0.0.1:9")))
    assert caught.value.transient


async def test_a_private_address_needs_its_range(receiver: Receiver) -> None:
    with pytest.raises(ConfigError, match="'ops': this URL may not be used"):
        open_channel(settings(receiver.url, allow=[]))
    by_name = settings(receiver.url.replace("127.0.0.1", "localhost"), allow=["10.0.0.0/8"])
    with pytest.raises(ChannelError):
        await send(open_channel(by_name))
    assert receiver.got == []


@pytest.mark.parametrize(
    "secret", ["", "whsec_!!!", f"{SECRET} whsec_c2hvcnQ=", "whsec_" + base64.b64encode(bytes(range(65))).decode()]
)
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError, match="24 to 64") as caught:
        open_channel(settings("https://example.com/hook", secret=SecretStr(secret)))
    assert not secret or secret.removeprefix("whsec_") not in str(caught.value)


def test_an_unknown_kind_of_channel_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="http, https, log"):
        open_channel(settings("pigeon://roof"))


class Clock:
    """The time, as a test says."""

    def __init__(self) -> None:
        self.now = utcnow()

    def __call__(self) -> datetime:
        return self.now


async def keep(store: ResultStore, *rows: DeliveryRow) -> None:
    await store.commit_alerts(state={}, alerts=[], deliveries=rows)


async def test_a_failed_delivery_is_tried_again_on_schedule_with_its_id(store: ResultStore, receiver: Receiver) -> None:
    receiver.answer = status(500)
    channel, clock = open_channel(settings(receiver.url)), Clock()
    sender = Sender({"ops": channel}, store, clock=clock)
    await keep(store, a_delivery(next_at=clock.now))
    for attempt, pause in enumerate(SCHEDULE[:3], start=1):
        await sender.look()
        await sender.settled()
        assert len(receiver.got) == attempt
        [row] = await store.list_deliveries("alert")
        assert (row.state, row.attempts) == ("pending", attempt)
        assert row.last_error is not None
        assert "HTTP 500" in row.last_error
        assert pause <= (row.next_at - clock.now).total_seconds() <= 1.2 * pause
        clock.now = row.next_at - timedelta(seconds=0.1)
        await sender.look()
        assert len(receiver.got) == attempt  # not before its time
        clock.now = row.next_at
    receiver.answer = None
    await sender.look()
    await sender.settled()
    [row] = await store.list_deliveries("alert")
    assert (row.state, row.attempts, row.delivered_at) == ("delivered", 4, clock.now)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    await channel.close()


async def test_after_the_last_try_a_delivery_has_failed(store: ResultStore, receiver: Receiver) -> None:
    receiver.answer = status(500)
    channel, clock = open_channel(settings(receiver.url)), Clock()
    sender = Sender({"ops": channel}, store, clock=clock)
    await keep(store, a_delivery(next_at=clock.now))
    for _ in range(len(SCHEDULE) + 3):
        await sender.look()
        await sender.settled()
        clock.now += timedelta(days=2)
    [row] = await store.list_deliveries("alert")
    assert (row.state, row.attempts) == ("failed", len(SCHEDULE) + 1)
    assert len(receiver.got) == len(SCHEDULE) + 1
    await channel.close()


async def test_gone_switches_the_channel_off_until_a_test_arrives_and_an_unknown_channel_is_said(
    store: ResultStore, receiver: Receiver
) -> None:
    here, elsewhere = settings(receiver.url), settings(f"{receiver.url}/new")
    channel = Switched(open_channel(here), here, store)
    sender = Sender({"ops": channel}, store)

    async def sent(*rows: DeliveryRow) -> list[DeliveryRow]:
        await keep(store, *rows)
        await sender.look()
        await sender.settled()
        return [found for row in rows if (found := await store.get_delivery(row.id))]

    receiver.answer = status(410)
    rows = await sent(a_delivery(), a_delivery(), a_delivery(channel="nobody"))
    assert [row.state for row in rows] == ["failed"] * 3
    assert rows[2].last_error == "no channel 'nobody'; there are: ops"
    assert rows[0].last_error == rows[1].last_error
    assert "410 Gone" in (rows[0].last_error or "")
    assert "send it a test" in (rows[0].last_error or "")
    receiver.got.clear()
    receiver.answer = None
    [row] = await sent(a_delivery())
    assert (row.state, row.last_error, receiver.got) == ("failed", rows[0].last_error, [])
    await send(Switched(open_channel(elsewhere), elsewhere, store))  # another address is another receiver
    [test] = await sent(a_delivery(kind="test"))
    [row] = await sent(a_delivery())
    assert (test.state, row.state) == ("delivered", "delivered")
    actions = await store.actions(utcnow() - timedelta(minutes=1), utcnow() + timedelta(minutes=1), 10)
    assert [(each["what"], each["name"], each["by"]) for each in actions] == [
        ("channel.off", "ops", ""), ("channel.on", "ops", ""),
    ]  # fmt: skip
    assert actions[1]["delivery"] == test.id
    await channel.close()


async def test_a_slow_endpoint_delays_no_other(store: ResultStore, receiver: Receiver) -> None:
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        if request.path == "/slow":
            await release.wait()
        return web.Response(status=204)

    receiver.answer = slow
    channels = {name: open_channel(settings(f"{receiver.url}/{name}", name=name)) for name in ("slow", "fast")}
    sender = Sender(channels, store)
    rows = [a_delivery(channel="slow") for _ in range(20)] + [a_delivery(channel="fast") for _ in range(20)]
    await keep(store, *rows)
    stop = asyncio.Event()
    running = asyncio.create_task(sender.run(stop))

    async def delivered(channel: str) -> bool:
        states = {row.state for row in await store.list_deliveries("alert") if row.channel == channel}
        return states == {"delivered"}

    await until(lambda: delivered("fast"))
    assert not release.is_set()
    assert len([1 for headers, _ in receiver.got if headers["webhook-id"] in {row.id for row in rows[:20]}]) == AT_ONCE
    release.set()
    await until(lambda: delivered("slow"))
    stop.set()
    await running
    await asyncio.gather(*(channel.close() for channel in channels.values()))


async def test_the_log_channel_is_always_there(capsys: pytest.CaptureFixture[str]) -> None:
    payload = b'{"text":"critical: fire","data":{"alert":{"id":"a","rule":"r","cause":{},"last_at":"t"}}}'
    await send(open_channel(LOG), a_delivery(channel="log", payload=payload))
    captured = capsys.readouterr()
    assert "critical: fire" in captured.out + captured.err


ALERTS = """
import asyncio, sys
from pydantic import SecretStr
from eyeline.alerts.service import AlertService
from eyeline.core.service import run_service
from eyeline.core.settings import AlertSettings
from eyeline.stores.results import open_results

run_service(lambda: AlertService(AlertSettings.model_validate_json(sys.argv[1]), open_results(sys.argv[2])))
"""


def told_settings(receiver: Receiver) -> AlertSettings:
    return AlertSettings(
        rules=[RuleSettings(name="damaged", when="label == 'damaged' and score > 0.8", notify=["ops"])],
        channels=[settings(receiver.url)],
    )


def a_result() -> Result:
    now = utcnow()
    return Result(
        id=uuid7(),
        status="completed",
        site="north",
        pipeline="parcels",
        captured_at=now,
        received_at=now,
        completed_at=now,
        classifications=[Classification("damaged", 0.9, "damage")],
    )


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look until it is so; the test's own time-out ends a wait in vain."""
    while not await condition():
        await asyncio.sleep(0.01)


async def test_killed_while_sending_it_sends_again_under_the_same_id(
    tmp_path: Path, store: ResultStore, receiver: Receiver
) -> None:
    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async def reached(count: int) -> bool:
        return len(receiver.got) >= count

    async def delivered() -> bool:
        found, _ = await store.find_alerts(AlertQuery(limit=10))
        return [row.state for alert in found for row in await store.list_deliveries(alert.id)] == ["delivered"]

    receiver.answer = hang
    plain = told_settings(receiver).model_copy(update={"channels": [settings(receiver.url, secret=None)]})
    command = [sys.executable, "-c", ALERTS, plain.model_dump_json(), f"sqlite:///{tmp_path}/results.db"]
    await store.save_many([a_result()])
    first = await asyncio.create_subprocess_exec(*command)
    await until(lambda: reached(1))
    first.kill()
    await first.wait()
    receiver.answer = None
    second = await asyncio.create_subprocess_exec(*command)
    await until(delivered)
    second.terminate()
    assert await second.wait() == 0
    assert len(receiver.got) == 2
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({body for _, body in receiver.got}) == 1


async def test_from_a_recorded_result_to_a_told_receiver(tmp_path: Path, receiver: Receiver) -> None:
    url = f"sqlite:///{tmp_path}/results.db"
    stop = asyncio.Event()
    running = asyncio.create_task(AlertService(told_settings(receiver), open_results(url)).run(stop))
    writer = open_results(url)
    await writer.upgrade()
    result = a_result()
    await writer.save_many([result])

    async def delivered() -> bool:
        found, _ = await writer.find_alerts(AlertQuery(limit=10))
        return [row.state for alert in found for row in await writer.list_deliveries(alert.id)] == ["delivered"]

    await until(delivered)
    [(headers, body)] = receiver.got
    verified = Webhook(SECRET).verify(body, {name.lower(): value for name, value in headers.items()})
    assert verified["data"]["result"]["id"] == result.id
    stop.set()
    await running
    await writer.close()


async def test_an_output_tells_a_receiver_in_order_and_sets_aside_what_it_refuses(
    store: ResultStore, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "backoff", lambda *_args, **_kwargs: 0.0)
    first = a_result()
    results = [
        structs.replace(first, id=uuid7(), ref=f"={number}", received_at=first.received_at + timedelta(seconds=number))
        for number in range(3)
    ]

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=422 if b'"ref":"=1"' in await request.read() else 204)

    receiver.answer = answer
    wms = OutputSettings(name="wms", url=receiver.url, when="label == 'damaged'", secret=SecretStr(SECRET), allow=HERE)
    stop = asyncio.Event()
    service = OutputService([wms], open_results(f"sqlite:///{tmp_path}/results.db"))
    running = asyncio.create_task(service.run(stop))

    async def begun() -> bool:
        return await store.load_state("outputs/wms/cursor") is not None

    async def told() -> bool:
        return len((await store.find_deliveries(DeliveryQuery(channel="wms")))[0]) == 3

    await until(begun)
    await store.save_many(results)
    await until(told)
    stop.set()
    await running
    verified = [
        Webhook(SECRET).verify(body, {name.lower(): value for name, value in headers.items()})
        for headers, body in receiver.got
    ]
    assert [each["data"]["result"]["ref"] for each in verified] == ["=0", *["=1"] * REFUSALS, "=2"]
    state = (await store.channel_states(["wms"]))["wms"]
    assert (state.failed, state.waiting, state.error) == (1, 0, None)  # the line went on
    found, _ = await store.find_deliveries(DeliveryQuery(channel="wms"))
    assert sorted(row.state for row in found) == ["delivered", "delivered", "failed"]
    assert {row.id for row in found} == {headers["webhook-id"] for headers, _ in receiver.got}
