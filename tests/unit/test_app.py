"""What `eyeline up` refuses before it starts anything."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from eyeline import cli
from eyeline.app import check, locked, require_backends, until_listening, with_free_ports
from eyeline.core.errors import ConfigError
from eyeline.core.settings import Settings, load_settings
from tests.system import free_port


def _settings(folder: Path, **tree: Any) -> Settings:
    return load_settings(environ={}, overrides={"data_dir": str(folder), **tree})


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"queue": {"url": "rabbit://x"}}, "no queue is called 'rabbit'"),
        ({"queue": {"url": "memory://"}}, "one process's own.*leave the url out"),
        ({"blobs": {"url": "ftp://x"}}, "no blob store is called 'ftp'"),
        ({"results": {"url": "mysql://x"}}, "no result store is called 'mysql'"),
        ({"inference": {"url": "http://a:1, http://b:1"}}, "lists replicas.*name one URL"),
        ({"cache": {"url": "memcached://x"}}, "no cache is called 'memcached'"),
        ({"cameras": [{"name": "belt", "url": "webcam://0"}]}, "cameras 'belt': no camera is called 'webcam'"),
    ],
)
def test_a_scheme_that_nobody_knows_refuses_the_start(tmp_path: Path, tree: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        require_backends(_settings(tmp_path, **tree))
    require_backends(_settings(tmp_path))


def test_a_data_folder_that_cannot_be_is_one_plain_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"data_dir.*name a folder that this user may write"), locked(folder):
            pass


def test_port_0_takes_a_free_one_that_can_be_told(tmp_path: Path) -> None:
    assert with_free_ports(_settings(tmp_path, gateway={"port": 0})).gateway.port >= 8080
    assert with_free_ports(_settings(tmp_path, gateway={"port": 9123})).gateway.port == 9123


async def test_the_address_is_told_only_when_somebody_answers_there() -> None:
    port = free_port()
    waiting = asyncio.create_task(until_listening(f"http://127.0.0.1:{port}"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    async with (
        await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port),
        asyncio.timeout(5),
    ):
        await waiting


def test_a_path_that_the_system_refuses_is_one_plain_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", lambda: Path("/proc/no/such").mkdir())
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "eyeline: /proc/no/such: No such file or directory\n"


async def test_check_looks_at_every_camera_if_asked_to(tmp_path: Path) -> None:
    cameras = [
        {"name": "belt", "url": "synthetic://320x240", "fps": 50},
        {"name": "gone", "url": str(tmp_path / "nowhere.mp4")},
    ]
    settings = _settings(tmp_path, cameras=cameras, inference={"url": f"http://127.0.0.1:{free_port()}"})
    assert [what for what, _, _ in await check(settings) if what == "camera"] == []
    belt, gone = [line for line in await check(settings, cameras=True) if line[0] == "camera"]
    assert (belt[1], gone[1]) == (True, False)
    assert belt[2].startswith("belt: 320 × 240 jpeg")
    assert gone[2].startswith("gone: ")
    assert "nowhere.mp4" in gone[2]
