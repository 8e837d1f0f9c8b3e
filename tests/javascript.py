"""A JavaScript runtime for tests: Deno, which comes with the test requirements, or else Node where the machine has one."""

import asyncio
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def command() -> list[str]:
    """How a script is run. Skips where there is no runtime."""
    if find_spec("deno") is not None:
        return [deno(), "run", "--quiet", "--no-prompt", "--allow-net=127.0.0.1", "--allow-read"]
    found = shutil.which("node")
    if found is None:
        pytest.skip("neither deno (pip install deno) nor node on this machine")
    return [found]


def deno() -> str:
    """Deno's program."""
    module = pytest.importorskip("deno", reason="no deno on this machine: pip install deno")
    found: str = module.find_deno_bin()
    return found


def environment(home: Path) -> dict[str, str]:
    """Deno keeps what it compiled below `home`, asks nobody for news, and writes without colours."""
    return {**os.environ, "DENO_DIR": str(home / "deno"), "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}


async def run(words: list[str], said: Callable[[str], None], home: Path) -> str:
    """The last line of a program's output; each goes to `said` as it comes."""
    process = await asyncio.create_subprocess_exec(
        *words, cwd=ROOT, env=environment(home), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            last = ""
            while line := (await process.stdout.readline()).decode():
                last = line.strip()
                said(last)
            errors = (await process.stderr.read()).decode()
            assert await process.wait() == 0, errors
            return last
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
