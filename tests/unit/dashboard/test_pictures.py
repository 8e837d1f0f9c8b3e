"""The server and the script make the same picture of the same result: the first paint and the live ones do not differ."""

import json
import subprocess
from pathlib import Path

import msgspec

from eyeline.core.types import Classification, Result
from eyeline.dashboard.assets import FOLDER
from eyeline.dashboard.pictures import picture_of
from tests.dashboards import HOSTILE, detection, made_result
from tests.javascript import ROOT, deno, environment

LABELS = ("carton", "bag", "damaged", "intact")
SCRIPT = """
const { pictureOf } = await import(Deno.args[0]);
const { results, labels, alerting } = JSON.parse(Deno.args[1]);
console.log(JSON.stringify(results.map((result) => pictureOf(result, labels, new Set(alerting)))));
"""


def _results() -> list[Result]:
    inner = msgspec.structs.replace(
        detection("carton", 0.9, (10.5, 20.49, 99.5, 200.0)),
        attributes={"classifications": [{"label": "damaged", "score": 0.71, "step": "damage"}]},
    )
    many = [detection("bag", 0.3), detection(HOSTILE, 0.95), detection("späne 裂", 0.5), inner, detection("bag", 0.6)]
    return [
        made_result("belt-01", "north", detections=many),
        made_result("belt-01", "north", detections=[], classifications=[Classification("open", 0.7, "door")]),
        made_result("belt-01", "north", detections=[]),
        made_result("belt-01", "north", status="failed", reason="bad_image: cut", image=None),
    ]


def test_both_make_the_same_picture(tmp_path: Path) -> None:
    results = _results()
    given = {"results": msgspec.to_builtins(results), "labels": LABELS, "alerting": ["damaged"]}
    script = tmp_path / "both.js"
    script.write_text(SCRIPT)
    words = [deno(), "run", "--quiet", "--no-check", "--allow-read", str(script)]
    done = subprocess.run(
        [*words, (FOLDER / "js" / "overlay.js").as_uri(), json.dumps(given)],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        check=True,
        timeout=120,
    )
    made = [picture_of(result, LABELS, {"damaged"}) for result in results]
    assert json.loads(done.stdout) == [json.loads(json.dumps(each.plain())) if each else None for each in made]
    first = made[0]
    assert first is not None
    assert (first.boxes[0].label, first.boxes[0].alert, first.doubtful) == ("damaged", True, True)
