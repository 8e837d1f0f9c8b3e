"""HTTP cameras against a real server: snapshots, motion JPEG, logins, redirects, and everything that goes wrong with them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from eyeline.cameras import open_camera
from eyeline.cameras.base import Frame, Memory
from eyeline.cameras.multipart import Parts, boundary_of
from eyeline.cameras.probe import test_camera as try_camera
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError
from eyeline.core.settings import CameraSettings
from tests.gateways import jpeg
from tests.unit.cameras.agents import books, closes, running_agent, small_gateway, until
from tests.unit.cameras.gateway import SmallGateway

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class HttpCamera:
    """A camera whose answers a test writes; counts what it is asked."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def url(self, path: str, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.port}{path}"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, request.headers.get("Authorization")))
        return await self.answers[request.path](request)


@pytest.fixture
async def camera() -> AsyncIterator[HttpCamera]:
    there = HttpCamera()
    app = web.Application()
    app.router.add_get("/{path:.*}", there.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    there.port = runner.addresses[0][1]
    await web.TCPSite(runner, "127.0.0.2", there.port).start()  # another host, to be redirected to
    yield there
    await runner.cleanup()


def snapshot(request_count: list[int]) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        request_count[0] += 1
        return web.Response(body=jpeg(request_count[0]), content_type="image/jpeg")

    return answer


def mjpeg(
    parts: list[bytes], *, length: bool = True, then: str = "end", dashes: str = "", pause: float = 0.0
) -> Answer:
    """Motion JPEG of these pictures; `then`: end, hang."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": f"multipart/x-mixed-replace; boundary={dashes}frame"})
        await response.prepare(request)
        for part in parts:
            head = b"--frame\r\nContent-Type: image/jpeg\r\n"
            head += b"Content-Length: %d\r\n" % len(part) if length else b""
            await response.write(head + b"\r\n" + part + b"\r\n")
            await asyncio.sleep(pause)
        await response.write(b"--frame\r\n")
        if then == "hang":
            await asyncio.sleep(60)
        return response

    return answer


async def take(url: str, count: int = 1000, **camera: Any) -> tuple[list[Frame], str, list[str]]:
    """Frames until there are enough or the camera breaks: the frames, how it broke, and what the source dropped."""
    dropped: list[str] = []
    source = open_camera(CameraSettings(name="c", url=url, **camera), Memory(lambda _: False, utcnow(), dropped.append))
    frames: list[Frame] = []
    try:
        async with asyncio.timeout(30), contextlib.aclosing(source.frames()) as coming:
            async for frame in coming:
                frames.append(frame)
                if len(frames) == count:
                    break
    except CameraError as error:
        return frames, str(error), dropped
    finally:
        await source.close()
    return frames, "", dropped


PICTURES = [jpeg(seed) for seed in range(12)]


async def test_a_snapshot_is_fetched_at_the_rate_that_was_asked_for(camera: HttpCamera) -> None:
    camera.answers["/jpg"] = snapshot([0])
    begun = time.monotonic()
    frames, error, _ = await take(camera.url("/jpg"), 5, fps=10)
    assert error == ""
    assert [frame.data for frame in frames] == [jpeg(number) for number in range(1, 6)]
    assert time.monotonic() - begun >= 0.35
    skew = frames[0].camera_clock
    assert skew is not None
    assert abs((skew - utcnow()).total_seconds()) < 5


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("dashes", ["", "--"])
async def test_motion_jpeg_passes_on_the_bytes_of_the_camera(camera: HttpCamera, length: bool, dashes: str) -> None:
    camera.answers["/mjpg"] = mjpeg(PICTURES, length=length, dashes=dashes)
    frames, error, dropped = await take(camera.url("/mjpg"))
    assert [frame.data for frame in frames] == PICTURES
    assert "ended the stream" in error
    assert dropped == []


async def test_damaged_pictures_are_dropped_and_counted(camera: HttpCamera) -> None:
    spoiled = [PICTURES[0], PICTURES[1][:-200], b"garbage" * 50, b"", PICTURES[2]]
    camera.answers["/mjpg"] = mjpeg(spoiled)
    frames, _, dropped = await take(camera.url("/mjpg"))
    assert [frame.data for frame in frames] == [PICTURES[0], PICTURES[2]]
    assert dropped == ["corrupt"] * 3


async def test_nothing_but_garbage_is_a_broken_camera(camera: HttpCamera) -> None:
    camera.answers["/mjpg"] = mjpeg([b"no picture"] * 40)
    frames, error, dropped = await take(camera.url("/mjpg"))
    assert (frames, len(dropped)) == ([], 20)
    assert "sends no pictures" in error


async def test_a_stall_is_an_error_with_what_to_look_at(camera: HttpCamera) -> None:
    camera.answers["/mjpg"] = mjpeg(PICTURES[:3], then="hang")
    frames, error, _ = await take(camera.url("/mjpg"), stall_seconds=0.5)
    assert len(frames) == 3
    assert "stalled" in error


async def _page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>", content_type="text/html")


async def _not_found(_: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(_page, "web page"), (_not_found, "404"), (mjpeg([], dashes=";x="), "without a boundary")],
    ids=["page", "404", "no boundary"],
)
async def test_what_is_no_camera_is_said_in_words(camera: HttpCamera, answer: Answer, said: str) -> None:
    camera.answers["/x"] = answer
    _, error, _ = await take(camera.url("/x"))
    assert said in error


async def test_a_camera_that_is_off_is_said(camera: HttpCamera) -> None:
    _, error, _ = await take("http://127.0.0.1:1/jpg")
    assert "nothing listens there" in error


def guarded(scheme: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        fine = given.startswith("Digest ") and 'username="admin"' in given and "response=" in given
        if scheme == "Basic":
            fine = given == "Basic YWRtaW46c2VjcmV0"  # admin:secret
        if fine:
            return web.Response(body=PICTURES[0], content_type="image/jpeg")
        nonce = ', nonce="abc", qop="auth", algorithm=MD5' if scheme == "Digest" else ""
        return web.Response(status=401, headers={"WWW-Authenticate": f'{scheme} realm="camera"{nonce}'})

    return answer


@pytest.mark.parametrize("scheme", ["Basic", "Digest"])
async def test_a_login_is_sent_when_asked_for(camera: HttpCamera, scheme: str) -> None:
    camera.answers["/jpg"] = guarded(scheme)
    frames, error, _ = await take(camera.url("/jpg", "admin:secret@"), 1)
    assert (len(frames), error) == (1, "")
    assert camera.asked[0] == ("/jpg", None)


async def test_a_wrong_password_is_said_and_never_shown(camera: HttpCamera) -> None:
    camera.answers["/jpg"] = guarded("Basic")
    _, error, _ = await take(camera.url("/jpg", "admin:hunter2@"))
    assert "refuses the user name or the password" in error
    assert "hunter2" not in error
    _, error, _ = await take(camera.url("/jpg"))
    assert "wants a user name and password" in error


def redirect(target: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": target})

    return answer


async def test_redirects_within_the_camera_are_followed_with_the_login(camera: HttpCamera) -> None:
    camera.answers |= {"/old": redirect("/new"), "/new": guarded("Basic")}
    frames, error, _ = await take(camera.url("/old", "admin:secret@"), 1)
    assert (len(frames), error) == (1, "")


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "http://[::1]:80/x", "http://10.0.0.8/jpg"])
async def test_redirects_to_private_hosts_are_refused(camera: HttpCamera, target: str) -> None:
    camera.answers["/jpg"] = redirect(target)
    _, error, _ = await take(camera.url("/jpg"))
    assert "private" in error


async def test_a_listed_range_may_be_redirected_to_but_gets_no_password(camera: HttpCamera) -> None:
    camera.answers |= {"/jpg": redirect(f"http://127.0.0.2:{camera.port}/other"), "/other": guarded("Basic")}
    _, error, _ = await take(camera.url("/jpg", "admin:secret@"), 1, allow=["127.0.0.2/32"])
    assert "refuses" in error
    assert [given for path, given in camera.asked if path == "/other"] == [None]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
async def test_redirects_to_other_schemes_are_refused(camera: HttpCamera, target: str) -> None:
    camera.answers["/jpg"] = redirect(target)
    _, error, _ = await take(camera.url("/jpg"))
    assert "only http and https" in error


async def test_redirects_without_an_end_are_given_up(camera: HttpCamera) -> None:
    camera.answers["/jpg"] = redirect("/jpg")
    _, error, _ = await take(camera.url("/jpg"))
    assert "more than 3 times" in error


# ------------------------------------------------------------ the parser alone
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
@pytest.mark.parametrize("length", [True, False])
def test_parts_come_whole_however_the_bytes_arrive(size: int, length: bool) -> None:
    parts = [b"one", b"two\r\n--not the end", b"", bytes(range(256)) * 3]
    head = [b"Content-Length: %d\r\n" % len(part) if length else b"" for part in parts]
    stream = b"".join(
        b"--b\r\n%sX: y\r\n\r\n%s\r\n" % (line, part) for line, part in zip(head, parts, strict=True)
    ) + b"--b\r\n"  # fmt: skip
    parser = Parts("b")
    found = [part for i in range(0, len(stream), size) for part in parser.feed(stream[i : i + size])]
    assert [body for _, body in found] == parts
    assert found[0][0]["x"] == "y"


def test_a_wrong_length_is_forgiven() -> None:
    stream = b"--b\r\nContent-Length: 2\r\n\r\npicture\r\n--b\r\nContent-Length: 3\r\n\r\ntwo\r\n--b\r\n"
    assert [body for _, body in Parts("b").feed(stream)] == [b"picture", b"two"]


@pytest.mark.parametrize(
    "stream",
    [
        b"x" * 10_000,
        b"--b\r\n" + b"X: y\r\n" * 2000,
        b"--b\r\n\r\n" + b"p" * 2000,
        b"--b\r\nContent-Length: 2000\r\n\r\n",
    ],
    ids=["no boundary", "endless headers", "too large", "announced too large"],
)
def test_what_goes_over_a_limit_is_a_broken_camera(stream: bytes) -> None:
    with pytest.raises(CameraError):
        list(Parts("b", largest=1000).feed(stream))


def test_the_boundary_is_read_as_cameras_write_it() -> None:
    assert boundary_of('multipart/x-mixed-replace; boundary="--my boundary"') == "--my boundary"
    with pytest.raises(CameraError, match="without a boundary"):
        boundary_of("multipart/x-mixed-replace")


# ------------------------------------------------------------ an agent with one
@pytest.fixture
async def gateway() -> AsyncIterator[SmallGateway]:
    async with small_gateway() as small:
        yield small


async def test_an_agent_accounts_for_every_picture_of_a_bad_camera(
    tmp_path: Path, camera: HttpCamera, gateway: SmallGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyeline.cameras.agent.backoff", lambda *_, **__: 0.05)
    monkeypatch.setattr("eyeline.cameras.agent.REPORT_EVERY", 0.05)
    sent = [PICTURES[0], b"garbage", PICTURES[1], PICTURES[2][:-100]]
    camera.answers["/mjpg"] = mjpeg(sent, pause=0.02)
    async with running_agent(tmp_path, gateway, camera.url("/mjpg")):
        await until(lambda: len(camera.asked) >= 4, 30)
    counts = books(tmp_path)
    assert closes(counts)
    assert counts.accepted == len(gateway.kept) >= 6
    assert counts.dropped["corrupt"] >= 6
    assert "offline" in {said["state"] for said in gateway.reports}


async def test_a_camera_that_dribbles_without_ever_giving_a_frame_is_opened_again(
    tmp_path: Path, camera: HttpCamera, gateway: SmallGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eyeline.cameras.agent.backoff", lambda *_, **__: 0.05)

    async def dribble(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "multipart/x-mixed-replace; boundary=frame"})
        await response.prepare(request)
        await response.write(b"--frame\r\n\r\n")
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.05)

    camera.answers["/mjpg"] = dribble
    async with running_agent(tmp_path, gateway, camera.url("/mjpg"), stall_seconds=0.5):
        await until(lambda: len(camera.asked) >= 3, 30)
    assert books(tmp_path).captured == 0


async def test_the_gate_drops_what_did_not_change_and_says_so(
    tmp_path: Path, camera: HttpCamera, gateway: SmallGateway
) -> None:
    same, other = jpeg(1, (320, 240)), jpeg(200, (320, 240))
    camera.answers["/mjpg"] = mjpeg([same, same, same, other, other, same], then="hang", pause=0.05)
    async with running_agent(tmp_path, gateway, camera.url("/mjpg"), gate=12.0) as agent:
        await until(lambda: agent._spool.counts().captured == 6 and not agent._spool.in_hand, 30)
    counts = books(tmp_path)
    assert (counts.captured, counts.accepted, counts.dropped) == (6, 3, {"no_change": 3})
    assert [kept.data for kept in gateway.kept.values()] == [same, other, same]


# ------------------------------------------------------------ trying one out
async def tried(url: str, folder: Path) -> dict[str, tuple[bool, str]]:
    return {what: (well, said) for what, well, said in await try_camera(url, folder / "shot.jpg")}


async def test_a_camera_is_tried_out_in_six_looks(tmp_path: Path, camera: HttpCamera) -> None:
    camera.answers["/mjpg"] = mjpeg([jpeg(150 * 256 + 100 + number) for number in range(12)], pause=0.02)
    told = await tried(camera.url("/mjpg", "admin:hunter2@"), tmp_path)
    assert list(told) == ["open", "frames", "rate", "size", "light", "clock", "saved"]
    assert {well for well, _ in told.values()} == {True}
    assert "64 × 48 jpeg" in told["size"][1]
    assert (tmp_path / "shot.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert "hunter2" not in str(told)


async def test_what_is_wrong_with_a_camera_is_said(tmp_path: Path, camera: HttpCamera) -> None:
    async def late(_: web.Request) -> web.StreamResponse:
        old = {"Date": "Thu, 01 Jan 2015 00:00:00 GMT"}
        return web.Response(body=jpeg(0, (320, 240)), content_type="image/jpeg", headers=old)

    camera.answers |= {"/frozen": mjpeg([jpeg(3)] * 12), "/late": late, "/jpg": guarded("Basic")}
    assert (await tried(camera.url("/frozen"), tmp_path))["frames"][0] is False
    clock = (await tried(camera.url("/late"), tmp_path))["clock"]
    assert clock[0] is False
    assert "behind this machine's" in clock[1]
    assert "refuses the user name" in (await tried(camera.url("/jpg", "a:b@"), tmp_path))["open"][1]
