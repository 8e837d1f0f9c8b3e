"""The JavaScript client in a real runtime against a real gateway, through a relay that loses answers and cuts streams."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.cutting import Cutter, cutting
from tests.gateways import jpeg, running
from tests.javascript import ROOT, command, deno, environment, run

SCRIPT = "tests/e2e/javascript_client.js"


async def _play(scene: str, cutter: Cutter, home: Path) -> Any:
    words = [*command(), SCRIPT, scene, cutter.url, base64.b64encode(jpeg(1)).decode()]
    told = await run(words, lambda line: cutter.cut() if line == "cut" else None, home)
    return json.loads(told)


async def test_a_lost_answer_is_asked_for_again_and_makes_no_second_job(tmp_path: Path) -> None:
    async with running(tmp_path) as here, cutting(here.gateway.url) as cutter, here.working():
        cutter.lose = 1
        told = await _play("submit", cutter, tmp_path)
        assert sum(chunk.startswith(b"POST /v1/images") for chunk in cutter.requests) == 2
        assert told["result"]["id"] == told["job"]["id"]
        assert (told["result"]["ref"], told["result"]["meta"]) == ("order 7", {"line": "3"})
        assert told["result"]["captured_at"] == "1970-01-01T00:00:00Z"
        assert told["same"]
        assert told["shown"] > 100
        assert (told["held"], told["left"]) == ([[True, "order 7", "1970-01-01T00:00:00Z"]], [0, 1])
        listed = (await here.client.get("/v1/results")).json()["results"]
        assert [each["id"] for each in listed] == [told["job"]["id"]]


async def test_refusals_and_time_outs_are_errors_of_their_own(tmp_path: Path) -> None:
    async with running(tmp_path) as here, cutting(here.gateway.url) as cutter:
        told = await _play("refused", cutter, tmp_path)
        assert told == {"refused": True, "status": 400, "code": "unknown_pipeline", "late": True}


async def test_a_full_gateway_is_left_alone_for_as_long_as_it_asks(tmp_path: Path) -> None:
    async with running(tmp_path, gateway={"rate": 1}) as here, cutting(here.gateway.url) as cutter:
        await _play("full", cutter, tmp_path)
        # one picture, one refusal, one try when asked for; its own pauses would bring it back twice within the second
        assert sum(chunk.startswith(b"POST") for chunk in cutter.requests) <= 3


async def test_every_event_comes_once_and_in_order_over_cuts(tmp_path: Path) -> None:
    async with running(tmp_path) as here, cutting(here.gateway.url) as cutter, here.working():
        told = await _play("events", cutter, tmp_path)
        assert told["told"] == told["sent"]
        assert told["listed"] == sorted(told["sent"], reverse=True)


def test_its_types_hold(tmp_path: Path) -> None:
    files = ["clients/javascript/eyeline.js", SCRIPT, "examples/submit_and_follow.js"]
    checked = subprocess.run(
        [deno(), "check", "--quiet", *files], cwd=ROOT, env=environment(tmp_path), capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr.decode()
