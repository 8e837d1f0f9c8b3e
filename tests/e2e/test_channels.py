"""E-mail, MQTT and Apprise against real servers: what arrives is what was meant, and nothing is said in the clear."""

import asyncio
import hashlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from pydantic import SecretStr

from eyeline.alerts.channels import open_channel
from eyeline.alerts.outputs import Output
from eyeline.alerts.pictures import DrawnPictures
from eyeline.core.clock import utcnow
from eyeline.core.errors import ChannelError, ConfigError
from eyeline.core.ids import uuid7
from eyeline.core.settings import ChannelSettings, OutputSettings
from eyeline.core.types import BlobRef, Job
from eyeline.pipeline.decode import decode
from eyeline.stores.blobs import open_blobs
from eyeline.stores.results.base import DeliveryQuery, DeliveryRow
from eyeline.stores.results.retaining import THUMBNAIL, PictureRow
from tests.contract.servers import missing
from tests.gateways import jpeg, result_of
from tests.migrated import migrated
from tests.rtsp import free_port

#: Apprise loads all of its plug-ins, and with them modules that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HERE = ["127.0.0.0/8"]
HOSTILE = 'dents\r\nBcc: thief@example.com <img src=x onerror="alert(1)">'


def a_delivery(**told: Any) -> DeliveryRow:
    alert = {"id": "a1", "rule": HOSTILE, "cause": {"camera": "belt-1"}, "site": "north", "severity": "critical"}
    body: dict[str, Any] = {
        "type": "alert.opened",
        "text": f"critical: {HOSTILE}",
        "data": {"alert": alert, "result": {}},
    }
    payload = msgspec.json.encode(body | told)
    return DeliveryRow(
        id=uuid7(), alert_id="a1", channel="mail", payload=payload, captured_at=utcnow(), next_at=utcnow()
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost and its key."""
    if shutil.which("openssl") is None:
        missing("no certificate for the TLS case: install openssl")
    folder = tmp_path_factory.mktemp("tls")
    pem, private = folder / "cert.pem", folder / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    more: list[str | Path] = ["-addext", "subjectAltName=DNS:localhost", "-keyout", private, "-out", pem]
    subprocess.run(["openssl", *words.split(), *more], check=True, capture_output=True)
    return pem, private


class Mailbox:
    """An SMTP server's handler: keeps what it takes; `answer` is what it says instead of taking it."""

    def __init__(self) -> None:
        self.got: list[EmailMessage] = []
        self.to: list[str] = []
        self.passwords: list[bytes] = []
        self.answer = ""

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.answer:
            return self.answer
        self.got.append(message_from_bytes(envelope.content, policy=policy.default))
        self.to = envelope.rcpt_tos
        return "250 OK queued as 42"

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.passwords.append(data.password)
        return AuthResult(success=data.password == b"pa:ss")


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def served(mailbox: Mailbox, **options: Any) -> Iterator[int]:
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    yield controller.port
    controller.stop()


@pytest.fixture
def plain(mailbox: Mailbox) -> Iterator[int]:
    yield from served(mailbox)


@pytest.fixture
def secure(mailbox: Mailbox, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server that takes nothing before STARTTLS and a password; its certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    yield from served(
        mailbox, tls_context=context, require_starttls=True, authenticator=mailbox.authenticate, auth_required=True
    )


def mail(
    port: int, host: str = "127.0.0.1", query: str = "?starttls=no", user: str = "", **more: Any
) -> ChannelSettings:
    known = {"name": "mail", "url": f"smtp://{user}{host}:{port}{query}", "to": ["ops@example.com", "ana@example.com"]}
    return ChannelSettings(**{**known, "sender": "eyeline@example.com", "allow": HERE, **more})


async def test_a_mail_has_text_html_and_the_picture_and_its_headers_cannot_be_broken(
    mailbox: Mailbox, plain: int
) -> None:
    async def picture(_told: Any) -> bytes:
        return jpeg(7)

    delivery = a_delivery()
    assert await open_channel(mail(plain), picture).send(delivery) == "OK queued as 42"
    [got] = mailbox.got
    assert mailbox.to == ["ops@example.com", "ana@example.com"]
    assert got["Bcc"] is None
    assert got["Subject"] == "critical: dents"
    assert got["Message-ID"] == f"<{delivery.id}@example.com>"
    text, html = got.get_body(("plain",)), got.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "camera: belt-1" in text.get_content()
    assert "&lt;img src=x" in html.get_content()
    assert "<img src=x" not in html.get_content()
    [image] = [part for part in got.walk() if part.get_content_type() == "image/jpeg"]
    assert image.get_payload(decode=True) == jpeg(7)
    assert f"cid:{image['Content-ID'][1:-1]}" in html.get_content()


async def test_the_password_goes_only_through_tls(mailbox: Mailbox, plain: int, secure: int) -> None:
    secret = SecretStr("pa:ss")
    assert await open_channel(mail(secure, "localhost", "", "ops@", secret=secret)).send(a_delivery())
    assert mailbox.passwords == [b"pa:ss"]
    with pytest.raises(ConfigError, match="unencrypted"):
        open_channel(mail(plain, user="ops@", secret=secret))
    with pytest.raises(ChannelError):  # a server without STARTTLS, or someone in between who took it away
        await open_channel(mail(plain, query="", user="ops@", secret=secret)).send(a_delivery())
    with pytest.raises(ChannelError, match="certificate"):  # it is another host's
        await open_channel(mail(secure, "127.0.0.1", "", "ops@", secret=secret)).send(a_delivery())
    assert len(mailbox.got) == 1
    assert len(mailbox.passwords) == 1


async def test_what_a_mail_server_says_decides_whether_to_try_again(mailbox: Mailbox, plain: int) -> None:
    channel = open_channel(mail(plain))
    for answer, again in (("451 try later", True), ("554 never", False)):
        mailbox.answer = answer
        with pytest.raises(ChannelError, match=answer) as caught:
            await channel.send(a_delivery())
        assert caught.value.transient is again
    with pytest.raises(ChannelError, match="not reached"):
        await open_channel(mail(1)).send(a_delivery())
    with pytest.raises(ChannelError, match="not reached"):  # a private address that is not allowed
        await open_channel(mail(plain, allow=[])).send(a_delivery())


async def test_a_shift_report_comes_as_page_and_table(mailbox: Mailbox, plain: int) -> None:
    alerts = {"opened": 0, "by_severity": {}, "dispositions": {}, "false_share": None}
    report = {
        "site": "north", "timezone": "UTC", "from": "2026-01-05T13:00:00Z", "until": "2026-01-05T21:00:00Z",
        "made_at": "2026-01-05T21:01:00Z", "results": {"completed": 7, "failed": 0, "by_camera": {}, "by_label": {}},
        "alerts": alerts, "rules": [], "open": [], "offline": [], "changes": [], "more": False,
        "notes": [{"at": "2026-01-05T14:00:00Z", "by": "ana", "rule": "r", "note": HOSTILE}],
    }  # fmt: skip
    await open_channel(mail(plain)).send(
        a_delivery(type="report.shift", text="Shift report north\n7 images", data=report)
    )
    [got] = mailbox.got
    assert got["Subject"] == "Shift report north"
    page = got.get_body(("html",))
    assert page is not None
    assert "<img" not in page.get_content()
    [table] = list(got.iter_attachments())
    assert table.get_filename() == "shift.csv"
    assert "Bcc: thief" in table.get_content()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"to": []}, "needs somebody to send to"),
        ({"to": ["ops@example.com\r\nBcc: x@y.z"]}, "is no address"),
        ({"sender": "nobody"}, "is no address"),
        ({"url": "smtp://mail.example.com?starttls=maybe"}, "no mail server"),
        ({"url": "mqtt://broker"}, "names no topic"),
        ({"url": "mqtt://broker/a/+/b"}, "names no topic"),
        ({"url": "apprise:nothing://x"}, "no URL that Apprise can send to"),
        ({"url": "apprise:syslog://"}, "no URL that Apprise can send to"),
    ],
)
def test_a_channel_that_cannot_work_says_why_and_shows_no_secret(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_channel(mail(25, **more))


async def test_the_picture_of_a_result_is_drawn_from_its_blob(tmp_path: Path) -> None:
    blobs, results = open_blobs(f"file://{tmp_path}/blobs"), await migrated(tmp_path)
    data = jpeg(3)
    sha = hashlib.sha256(data).hexdigest()
    ref = await blobs.put("north", data, sha)
    now = utcnow()
    job = Job(id=uuid7(), site="north", pipeline="p", lane="live", blob=ref, received_at=now, captured_at=now)
    await results.save_many([result_of(job)])
    pictures = DrawnPictures(blobs, results)
    drawn = await pictures({"id": job.id})
    assert drawn is not None
    assert drawn[:2] == b"\xff\xd8"
    assert drawn != data
    assert await pictures({"id": uuid7()}) is None
    await blobs.delete(ref.url)
    assert await pictures({"id": job.id}) is None
    small = jpeg(3, (32, 24))
    kept = {THUMBNAIL: await blobs.put("north", small, hashlib.sha256(small).hexdigest())}
    await results.change_pictures([PictureRow(url=ref.url, state="evidence", at="", kept=kept)], lambda _: True)
    left = await pictures({"id": job.id})
    assert left is not None
    assert decode(left).pixels.shape == (24, 32, 3)
    await results.close()
    await blobs.close()


class Service:
    """What a chat or paging service on one's own host gets."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, bytes]] = []
        self.status = 200

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((request.path, request.headers.get("Content-Type", ""), await request.read()))
        if request.path == "/elsewhere":
            return web.json_response({"id": "1"})
        headers = {"Location": "/elsewhere"} if self.status == 302 else {}
        return web.json_response({"id": "1"}, status=self.status, headers=headers)


@pytest.fixture
async def service() -> AsyncIterator[tuple[Service, int]]:
    told = Service()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", told.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield told, runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.parametrize(
    ("url", "path", "kind"),
    [
        ("json://127.0.0.1:{port}/hook", "/hook", "application/json"),
        ("ntfy://127.0.0.1:{port}/line-1", "/", "application/json"),
        ("gotify://127.0.0.1:{port}/Atoken1234567890", "/message", "application/json"),
    ],
)
async def test_apprise_tells_services_of_ones_own(service: tuple[Service, int], url: str, path: str, kind: str) -> None:
    pytest.importorskip("apprise", reason="pip install 'eyeline[apprise]'")
    told, port = service
    asked = ChannelSettings(name="chat", url="apprise:" + url.format(port=port), allow=HERE)
    channel = open_channel(asked)
    assert (await channel.send(a_delivery())).startswith("taken by")
    [(got, content, body)] = told.got
    assert got.startswith(path)
    assert content.startswith(kind)
    assert b"critical: dents" in body
    for status in (500, 302):
        told.status = status
        with pytest.raises(ChannelError, match="did not take it"):
            await channel.send(a_delivery())
    await channel.close()
    closed = open_channel(asked.model_copy(update={"allow": []}))
    before = len(told.got)
    with pytest.raises(ChannelError, match="private addresses"):
        await closed.send(a_delivery())
    await closed.close()
    assert len(told.got) == before


async def an_output_tells(folder: Path, listener: Any, url: str) -> None:
    """A recorded result by MQTT, to a listener that is there already."""
    store = await migrated(folder)
    output = Output(OutputSettings(name="line", url=url, allow=HERE), store)
    await output.step()
    now = utcnow()
    ref = BlobRef("north/x", 1, "0" * 64)
    job = Job(id=uuid7(), site="north", pipeline="p", lane="live", blob=ref, received_at=now, captured_at=now)
    await store.save_many([result_of(job)])
    assert await output.step() == 1
    async with asyncio.timeout(30):
        message = await anext(aiter(listener.messages))
    assert msgspec.json.decode(message.payload)["data"]["result"]["id"] == job.id
    [row], _ = await store.find_deliveries(DeliveryQuery(channel="line"))
    assert (row.state, row.answer) == ("delivered", "confirmed on plant/alerts")
    await store.close()


async def test_mqtt_is_confirmed_and_the_newest_is_kept_by_the_broker(tmp_path: Path) -> None:
    aiomqtt = pytest.importorskip("aiomqtt", reason="pip install 'eyeline[mqtt]'")
    pytest.importorskip("amqtt", reason="pip install amqtt")
    from tests.e2e.test_camera_mqtt import broker

    port = free_port()
    url = f"mqtt://127.0.0.1:{port}/plant/alerts?state=plant/state"
    channel = open_channel(ChannelSettings(name="bus", url=url, allow=HERE))
    with pytest.raises(ChannelError, match="not reached"):
        await channel.send(a_delivery())
    async with broker(port, tmp_path), aiomqtt.Client("127.0.0.1", port) as listener:
        await listener.subscribe("plant/alerts", qos=1)
        first, second = a_delivery(), a_delivery(text="second")
        assert await channel.send(first) == "confirmed on plant/alerts"
        await channel.send(second)
        heard = []
        async with asyncio.timeout(30):
            async for message in listener.messages:
                heard.append((message.qos, bytes(message.payload)))
                if len(heard) == 2:
                    break
        assert heard == [(1, first.payload), (1, second.payload)]
        async with asyncio.timeout(30), aiomqtt.Client("127.0.0.1", port) as late:
            await late.subscribe("plant/state", qos=1)
            async for message in late.messages:
                assert (message.retain, bytes(message.payload)) == (True, second.payload)
                break
        await channel.close()
        await an_output_tells(tmp_path, listener, f"mqtt://127.0.0.1:{port}/plant/alerts")
    closed = open_channel(ChannelSettings(name="bus", url=url))
    with pytest.raises(ChannelError, match="not reached"):
        await closed.send(a_delivery())
