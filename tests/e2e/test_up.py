"""`eyeline up` as a user starts it: real processes, real HTTP, real files."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fake_models import write_box_bundle, write_brightness_bundle
from tests.pictures import jpeg, unique_jpeg
from tests.system import RunningSystem, free_port, running_system, settings_for, until
from tests.yolox_by_hand import ByHand

PIPELINES = [
    {"name": "brightness", "steps": [{"name": "b", "model": "brightness"}]},
    {
        "name": "boxes",
        "steps": [{"name": "find", "model": "boxes"}, {"name": "look", "model": "brightness", "on": "find"}],
    },
]


def _models(folder: Path) -> Path:
    write_brightness_bundle(folder, name="brightness")
    write_box_bundle(folder, name="boxes")
    return folder


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    folder = tmp_path_factory.mktemp("up")
    settings = settings_for(folder / "data", _models(folder / "models"), {"pipelines": PIPELINES})
    with running_system(folder, settings) as running:
        yield running


def _eyeline(*words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EYELINE_")}
    command = [sys.executable, "-m", "eyeline", *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**environ, **env}, cwd=cwd, timeout=120, check=False
    )


def test_the_first_api_line_of_the_readme_answers_with_the_result(system: RunningSystem) -> None:
    answer = system.client().post("/v1/images?wait=5", content=jpeg(level=200), params={"wait": 5})
    assert answer.status_code == 200, answer.text
    result = answer.json().get("result", answer.json())
    assert result["status"] == "completed"
    assert result["classifications"][0]["label"] == "bright"
    assert set(result["timings"]) >= {"queue", "fetch", "decode", "infer"}


def test_crops_of_a_detector_are_classified(system: RunningSystem) -> None:
    answer = system.client().post("/v1/images", params={"wait": 10, "pipeline": "boxes"}, content=jpeg(level=210))
    result = answer.json().get("result", answer.json())
    assert [d["step"] for d in result["detections"]] == ["find"]
    assert result["detections"][0]["attributes"]["classifications"][0]["label"] == "bright"
    assert [model["name"] for model in result["models"]] == ["boxes", "brightness"]


def test_the_same_bytes_again_are_answered_as_a_duplicate_with_their_own_id(system: RunningSystem) -> None:
    image = unique_jpeg(1)
    first, second = (system.client().post("/v1/images", params={"wait": 10}, content=image).json() for _ in range(2))
    first, second = first.get("result", first), second.get("result", second)
    assert second["id"] != first["id"]
    assert second["duplicate_of"] == first["id"]
    assert second["classifications"] == first["classifications"]


def test_pictures_sent_together_have_the_answers_that_each_has_alone(system: RunningSystem) -> None:
    """Over many sizes, a cut picture among them; a byte after the end makes the same pixels no duplicate."""
    chance = random.Random(5)
    pictures = [
        jpeg(chance.randrange(16, 900), chance.randrange(16, 700), chance.randrange(60, 256), number)
        for number in range(24)
    ]
    pictures[7] = pictures[7][: len(pictures[7]) // 2] + b"\xff\xd9"

    def answer(image: bytes) -> dict[str, Any]:
        with system.client() as client:
            told = client.post("/v1/images", params={"wait": 30, "pipeline": "boxes"}, content=image)
        assert told.status_code == 200, told.text
        result: dict[str, Any] = told.json()
        return result

    with ThreadPoolExecutor(len(pictures)) as threads:
        together = list(threads.map(answer, pictures))
    for number, one in enumerate(together):
        alone = answer(pictures[number] + b"\0")
        assert alone["duplicate_of"] is None
        assert one["status"] == alone["status"] == ("failed" if number == 7 else "completed")
        assert one["reason"] == alone["reason"]
        assert one["detections"] == alone["detections"]


def test_a_broken_image_is_a_failed_result_or_a_refusal_never_a_guess(system: RunningSystem) -> None:
    image = jpeg()
    answer = system.client().post("/v1/images", params={"wait": 10}, content=image[: len(image) // 2])
    body = answer.json()
    result = body.get("result", body)
    assert answer.status_code == 422 or result["status"] == "failed", answer.text


def test_submit_shows_a_table_and_jsonl_gives_results(system: RunningSystem, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(unique_jpeg(100 + number))
    shown = _eyeline("submit", str(tmp_path), "--url", system.url)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("completed") == 3
    lines = _eyeline("submit", str(tmp_path), "--jsonl", "--url", system.url).stdout.splitlines()
    assert {json.loads(line)["status"] for line in lines} == {"completed"}


def test_results_slo_and_queue_answer_on_the_command_line(system: RunningSystem) -> None:
    assert system.client().post("/v1/images", params={"wait": 10}, content=unique_jpeg(4710)).status_code == 200
    assert "completed" in _eyeline("results", "--limit", "5", "--url", system.url).stdout
    table = _eyeline("slo", "--url", system.url).stdout
    for row in ("API response", "queue wait", "GPU utilisation", "error rate", "images per second"):
        assert row in table
    assert "not measured" in table  # no GPU here, and it says so


def test_operations_tell_what_runs_where_and_what_it_did(system: RunningSystem) -> None:
    assert system.client().post("/v1/images", params={"wait": 10}, content=unique_jpeg(4711)).status_code == 200

    def told() -> Any:
        report = system.client().get("/v1/operations").json()
        roles = {process["role"] for process in report["replicas"]["processes"]}
        return report if report["images"] and roles >= {"gateway", "worker-1", "alerts"} else None

    report = until(told, 40, "every role has reported, and a result is in the figures")
    pids = {process["role"]: process["pid"] for process in report["replicas"]["processes"]}
    assert {role: pids[role] for role in ("gateway", "worker-1", "alerts")} == {
        role: system.pids()[role] for role in ("gateway", "worker-1", "alerts")
    }
    (server,) = report["replicas"]["inference"]
    assert {model["name"] for model in server["models"]} >= {"boxes", "brightness"}
    assert report["stages"]["infer"] > 0
    models = {model["name"]: model for model in system.client().get("/v1/models").json()["models"]}
    assert models["brightness"]["version"] in {model["version"] for model in server["models"]}


def test_a_failed_job_can_be_replayed(system: RunningSystem) -> None:
    picture = jpeg(seed=5)
    broken = picture[:-400] + b"\xff\xd9"
    answer = system.client().post("/v1/images", params={"wait": 10}, content=broken).json()
    result = answer.get("result", answer)
    if result.get("status") != "failed":
        broken_png = _png_without_end()
        answer = system.client().post("/v1/images", params={"wait": 10}, content=broken_png).json()
        result = answer.get("result", answer)
    assert result["status"] == "failed", result
    assert result["id"] in _eyeline("queue", "dead", "ls", "--url", system.url).stdout
    replayed = _eyeline("queue", "dead", "replay", result["id"], "--url", system.url)
    assert replayed.returncode == 0, replayed.stderr
    found = until(
        lambda: [r for r in _failed(system) if r["replay_of"] == result["id"]], 20, "the replay has its own result"
    )
    assert found[0]["id"] != result["id"]


def _failed(system: RunningSystem) -> list[dict[str, str]]:
    page: list[dict[str, str]] = system.client().get("/v1/results", params={"status": "failed"}).json()["results"]
    return page


def _png_without_end() -> bytes:
    import io

    import numpy as np
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(out, "PNG")
    data = out.getvalue()
    return data[: len(data) * 2 // 3]


def test_what_is_recorded_is_sealed_and_can_be_checked_outside(system: RunningSystem, tmp_path: Path) -> None:
    ident = system.client().post("/v1/images", content=unique_jpeg(424_242), params={"wait": 5}).json()["id"]

    def sealed() -> Any:
        return system.client().get(f"/v1/results/{ident}").json()["chain"]

    place = until(sealed, 20, "the result's place in the chain")
    assert set(place) == {"block", "position"}
    data = ("--data-dir", str(system.data_dir))
    made = _eyeline("audit", "checkpoint", "--key", str(tmp_path / "key"), *data)
    assert json.loads(made.stdout)["block"] >= place["block"], made.stderr
    (tmp_path / "kept.json").write_text(made.stdout)
    checked = _eyeline("audit", "verify", "--checkpoint", str(tmp_path / "kept.json"), *data)
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.startswith("GOOD")
    assert _eyeline("audit", "export", str(tmp_path / "export.jsonl"), *data).returncode == 0
    (tmp_path / "verify.py").write_text(_eyeline("audit", "verifier").stdout)
    command = [sys.executable, "-I", "-S", "verify.py", "export.jsonl", "kept.json"]
    alone = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert alone.stdout.startswith("GOOD"), alone
    (tmp_path / "export.jsonl").write_text((tmp_path / "export.jsonl").read_text().replace(ident, "0" * len(ident)))
    altered = _eyeline("audit", "verify", str(tmp_path / "export.jsonl"))
    assert altered.returncode == 1
    assert f"block {place['block']}, position {place['position']}" in altered.stdout


def test_check_says_what_is_well(system: RunningSystem) -> None:
    config = system.data_dir.parent / "eyeline.toml"
    checked = _eyeline("check", "--config", str(config))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for word in ("disk", "queue", "blobs", "results", "cache", "inference"):
        assert f"ok    {word}" in checked.stdout


def test_a_second_up_on_the_same_folder_is_refused_plainly(system: RunningSystem) -> None:
    port, other = free_port(), free_port()
    second = _eyeline(
        "up",
        "--data-dir",
        str(system.data_dir),
        "--port",
        str(port),
        EYELINE_INFERENCE__URL=f"http://127.0.0.1:{other}",
    )
    assert second.returncode == 2
    assert "another `eyeline up` works on" in second.stderr


def test_a_busy_port_is_said_plainly(system: RunningSystem, tmp_path: Path) -> None:
    port = system.url.rsplit(":", 1)[1]
    second = _eyeline("up", "--data-dir", str(tmp_path / "other"), "--port", port)
    assert second.returncode == 2
    assert f"port {port} on 127.0.0.1 is busy" in second.stderr


def test_an_unknown_setting_ends_with_code_two(tmp_path: Path) -> None:
    (tmp_path / "eyeline.toml").write_text("[gatway]\nport = 1\n")
    done = _eyeline("check", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'gateway'" in done.stderr


def test_sigterm_under_load_finishes_what_was_accepted_and_leaves_no_process(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", _models(tmp_path / "models"), {"pipelines": PIPELINES})
    accepted: list[str] = []
    with running_system(tmp_path, settings) as running:
        children = psutil.Process(running.process.pid).children(recursive=True)
        with running.client() as client:
            for number in range(60):
                answer = client.post("/v1/images", content=unique_jpeg(500 + number))
                if answer.status_code in (200, 202):
                    accepted.append(answer.json()["id"])
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(40) == 0, running.log.read_text()[-2000:]
    assert psutil.wait_procs(children, timeout=5)[1] == []
    with running_system(tmp_path, settings) as again:
        until(lambda: again.unfinished() == 0, 30, "what was handed back is finished after the restart")
        for identity in accepted:
            assert again.client().get(f"/v1/jobs/{identity}").json()["status"] == "completed"


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", _models(tmp_path / "models"), {"pipelines": PIPELINES})
    with running_system(tmp_path, settings) as running:
        children = psutil.Process(running.process.pid).children(recursive=True)
        assert len(children) >= 5
        running.process.kill()
        assert psutil.wait_procs(children, timeout=30)[1] == []


def test_open_to_others_without_keys_makes_an_admin_key_shown_once(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", _models(tmp_path / "models"), {"pipelines": PIPELINES})
    settings["gateway"]["host"] = "0.0.0.0"
    with running_system(tmp_path, settings) as running:
        text = running.log.read_text()
        key = next(word for word in text.split() if word.startswith("eyl_live_"))
        assert httpx.get(f"{running.url}/v1/results").status_code == 401
        answer = httpx.get(f"{running.url}/v1/results", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200
    dumped = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*.db*"))
    assert key.encode() not in dumped
    with running_system(tmp_path, settings) as again:
        assert again.log.read_text().count("eyl_live_") == 1


def test_every_frame_of_the_bottle_video_has_a_result_and_the_accounting_closes(
    tmp_path: Path, shared_data: Path
) -> None:
    labels = shared_data / "models" / "coco_classes.txt"
    imported = _eyeline(
        *(
            "models",
            "import",
            str(shared_data / "models" / "yolox_nano.onnx"),
            "--name",
            "yolox-nano",
            "--licence",
            "Apache-2.0",
        ),
        *("--decoder", "yolox", "--labels", str(labels), "--no-tune", "--models-dir", str(tmp_path / "models")),
    )
    assert imported.returncode == 0, imported.stderr
    camera = {
        "name": "belt",
        "url": str(shared_data / "video" / "bottle-detection.mp4"),
        "fps": 2,
        "drop": "never",
        "pipeline": "yolox-nano",
    }
    more = {"pipelines": [{"name": "yolox-nano", "steps": [{"name": "y", "model": "yolox-nano"}]}], "cameras": [camera]}
    settings = settings_for(tmp_path / "data", tmp_path / "models", more)
    with running_system(tmp_path, settings) as running:

        def done() -> dict[str, object] | None:
            item = running.client().get("/v1/cameras").json()["cameras"][0]
            counts: dict[str, object] = item["frames"]
            over = item["state"] == "finished"
            return counts if over and counts["in_flight"] == 0 and counts["spooled"] == 0 else None

        counts = until(done, 150, "the video is over and all its frames have results")
        assert counts["dropped"] == {}
        assert counts["balance"] == 0
        assert counts["failed"] == 0
        assert counts["captured"] == counts["completed"]
        assert abs(int(str(counts["captured"])) - 80) <= 2  # 40 s at 2 frames a second
        page = running.client().get("/v1/results", params={"limit": 1000, "camera": "belt"}).json()["results"]
        assert len(page) == counts["captured"]
        with_bottle = [r for r in page if any(d["label"] == "bottle" for d in r["detections"])]
        assert len(with_bottle) > len(page) / 3
    by_hand = ByHand(shared_data / "models" / "yolox_nano.onnx")
    names, compared = labels.read_text().splitlines(), 0
    for result in page[::4]:
        image = result["image"]["sha256"]
        data = (tmp_path / "data" / "blobs" / result["site"] / image[:2] / image).read_bytes()
        told = {(d["label"], d["score"]): d["box"] for d in result["detections"] if d["score"] > 0.5}
        expected = by_hand.boxes(data, 0.3)
        assert sum(hand[1] > 0.51 for hand in expected) <= len(told) <= sum(hand[1] > 0.49 for hand in expected)
        for (label, score), box in told.items():
            kind, sure, own = min(expected, key=lambda hand: abs(hand[2][0] - box[0]) + abs(hand[2][1] - box[1]))
            assert (label, score) == (names[kind], pytest.approx(sure, abs=0.002))
            assert box == pytest.approx(own, abs=1.0)
            compared += 1
    assert compared > 10


def test_a_rule_that_cannot_work_refuses_the_start_and_points_at_the_place(tmp_path: Path) -> None:
    (tmp_path / "eyeline.toml").write_text('[[alerts.rules]]\nname = "r"\nwhen = "labl == \'x\'"\n')
    done = _eyeline("up", "--data-dir", str(tmp_path / "data"), "--port", str(free_port()), cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'label'" in done.stderr.lower(), done.stderr
