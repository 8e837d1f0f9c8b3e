"""The page for those who come from Lookout for Vision says what works: its commands, its settings and its script are run."""

import csv
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from eyeline import cli
from eyeline.core.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "from-lookout.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def command(start: str) -> list[str]:
    return shlex.split(next(line for block in blocks("bash") for line in block.splitlines() if line.startswith(start)))


def run(words: list[str]) -> str:
    done = CliRunner().invoke(cli.app, words[1:])
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    return done.output


def test_from_good_pictures_to_figures(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("good", "images", "masks"):
        Path(folder).mkdir()
    with (shared_data / "tiles" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in [row for row in rows if row["label"] == "free" and row["split"] == "train"][::4]:
        shutil.copy(shared_data / "tiles" / row["image"], "good")
    some = [row for row in rows if row["split"] == "val" and row["label"] in ("free", "break")][::4]
    with Path("index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mask"])
        for row in some:
            mask = row["mask"] if row["label"] == "break" else ""
            for each in filter(None, (row["image"], mask)):
                shutil.copy(shared_data / "tiles" / each, each)
            writer.writerow([row["image"], mask])
    shutil.copy(shared_data / "models" / "efficientnet_lite0.onnx", tmp_path)
    # a process of its own, as on the page: the module may have been imported here by another test
    subprocess.run(
        [sys.executable, *command("python -m training.anomaly")[1:]],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=150,
    )
    told = run([*command("eyeline models import"), "--no-tune"])
    assert "pictures are called anomalous" in told
    figures = json.loads(run(command("eyeline models eval")).partition("\n}")[0] + "\n}")
    assert figures["image_auroc"] > 0.8


def test_the_settings_are_settings(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    settings = load_settings(environ={}, overrides={"data_dir": str(tmp_path), **tomllib.loads(text)})
    assert settings.pipelines[0].steps[0].model == command("eyeline models import")[5] == "line"
    assert settings.alerts.rules[0].notify == [settings.alerts.channels[0].name]


def test_the_manifest_becomes_a_csv_and_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("masks").mkdir()
    coloured = np.full((4, 6, 3), 255, np.uint8)
    coloured[1, 2] = (0x23, 0xA4, 0x36)
    Image.fromarray(coloured).save("masks/m-7.png")
    colours = {
        "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"},
        "1": {"class-name": "scratch", "hex-color": "#23A436"},
    }
    lines = [
        {"source-ref": "s3://bucket/train/ok-1.jpg", "anomaly-label": 0},
        {
            "source-ref": "s3://bucket/train/bad-1.jpg", "anomaly-label": 1,
            "anomaly-mask-ref": "s3://bucket/masks/m-7.png",
            "anomaly-mask-ref-metadata": {"internal-color-map": colours},
        },
    ]  # fmt: skip
    Path("train.manifest").write_text("\n".join(json.dumps(line) for line in lines))
    Path("script.py").write_text(next(block for block in blocks("python") if "source-ref" in block))
    monkeypatch.setattr(sys, "argv", ["script.py", "train.manifest"])
    runpy.run_path("script.py", run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [
        "image,mask", "images/ok-1.jpg,", "images/bad-1.jpg,masks/bad-1-defect.png"
    ]  # fmt: skip
    assert np.flatnonzero(np.asarray(Image.open("masks/bad-1-defect.png"))).tolist() == [8]
