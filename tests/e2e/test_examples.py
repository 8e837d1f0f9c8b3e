"""The examples as a reader runs them, against a real gateway whose worker answers `intact` 0.80 and one `parcel`."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.gateways import jpeg, running
from tests.javascript import ROOT, command, environment

EXAMPLES = ROOT / "examples"


async def _run(words: list[str], home: Path) -> str:
    env = {**environment(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = await asyncio.to_thread(
        subprocess.run, words, cwd=home, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return str(ran.stdout)


async def _python(name: str, *words: str, home: Path) -> str:
    return await _run([sys.executable, str(EXAMPLES / name), *words], home)


async def test_pictures_in_results_out(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed))
    async with running(tmp_path / "data") as here, here.working():
        url = here.gateway.url
        one = await _python("submit_and_wait.py", url, "pictures/0.jpg", home=tmp_path)
        assert re.fullmatch(r"completed +[0-9a-f-]{36}\nintact 0.80\nparcel 0.90 at \(4.0, 4.0, 40.0, 40.0\)\n", one)
        many = await _python("folder_at_once.py", url, "pictures", home=tmp_path)
        assert sorted(many.splitlines()) == [f"{n}.jpg: completed intact 0.80, 1 boxes" for n in range(3)]
        assert await _python("frame_in_memory.py", url, home=tmp_path) == "completed intact\n"
        script = await _run([*command(), str(EXAMPLES / "submit_and_follow.js"), url, "pictures/0.jpg"], tmp_path)
        assert re.fullmatch(r"completed intact\nevent \d+ completed\n", script)


async def test_the_stream_goes_on_after_an_event(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for seed in range(2):
            await here.send(seed)
            await here.work()
        first = await _python("follow_events.py", here.gateway.url, "--after", "0", "--count", "1", home=tmp_path)
        seq = first.split()[0]
        second = await _python("follow_events.py", here.gateway.url, "--after", seq, "--count", "1", home=tmp_path)
        assert int(second.split()[0]) > int(seq)


def test_every_example_is_run_and_listed() -> None:
    here, listed = Path(__file__).read_text(), (EXAMPLES / "README.md").read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".js"}]
    assert len(names) >= 5
    assert [name for name in names if f'"{name}"' not in here or f"({name})" not in listed] == []
