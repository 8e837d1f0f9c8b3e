"""The benchmark runs whole and its figures hang together. No wall-clock time is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.benchmark.pipelines import measure
from tests.fake_models import write_brightness_bundle
from tests.pictures import jpeg


def test_bench_measures_limit_service_and_naive_in_one_run(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path / "models", name="brightness")
    (tmp_path / "images").mkdir()
    for number in range(8):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(jpeg(640, 360, 60 + 20 * number))
    words = ("bench", "--model", "brightness", "--models-dir", "models", "--images", "images", "--seconds", "0.25")
    done = subprocess.run(
        [sys.executable, "-m", "eyeline", *words, "--json", "bench.json", "--chart", "bench.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert 0 < figures["fraction_of_limit"] < 10  # a unit, not a speed: half a second on a machine that does much else
    assert figures["times_naive"] > 0
    assert figures["service"]["closed"]["16"]["errors"] == 0
    assert figures["overload"]["errors"] == 0
    assert figures["overload"]["goodput"] > 0
    assert Image.open(tmp_path / "bench.png").format == "PNG"


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_pipeline_that_reads_codes_and_tracks_is_measured_end_to_end(tmp_path: Path) -> None:
    measured = await measure("finder, classifier, barcodes, tracking", 2.0, 4, tmp_path)
    assert measured.images > 0
    assert (measured.errors, measured.behind is not None) == (0, True)
    assert measured.told().startswith("| finder, classifier, barcodes, tracking | ")
