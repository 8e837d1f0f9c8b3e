"""Plans: what is decoded to what size, and what changes an answer changes the fingerprint."""

from typing import Any

import pytest
from pydantic import ValidationError

from eyeline.core.errors import ConfigError
from eyeline.core.settings import PipelineSettings
from eyeline.pipeline.contract import InputContract, ModelContract, OutputContract
from eyeline.pipeline.plan import Plan


def model(name: str, size: tuple[int, int], task: Any = "detection", exif: Any = "apply") -> ModelContract:
    output = OutputContract(decoder="yolov8" if task == "detection" else "logits")
    return ModelContract(
        name=name,
        version="1",
        task=task,
        labels=("a",),
        input=InputContract(name="i", size=size, exif=exif),
        output=output,
    )


MODELS = {
    "small": model("small", (416, 416)),
    "large": model("large", (640, 640)),
    "kind": model("kind", (224, 224), "classification"),
    "raw": model("raw", (224, 224), "classification", "ignore"),
}


def plan(*steps: dict[str, Any], name: str = "p") -> Plan:
    return Plan.of(PipelineSettings.model_validate({"name": name, "steps": list(steps)}), MODELS)


FIND = {"name": "find", "model": "small"}
KIND = {"name": "kind", "model": "kind", "on": "find"}


def test_whole_image_steps_need_the_largest_of_their_sizes() -> None:
    assert plan(FIND).decode_target(1280, 720) == (234, 416)
    assert plan(FIND, {"name": "more", "model": "large"}).decode_target(1280, 720) == (360, 640)


def test_crops_need_all_pixels_up_to_the_area_of_4k() -> None:
    assert plan(FIND, KIND).decode_target(1920, 1080) is None
    target = plan(FIND, KIND).decode_target(8000, 6000)
    assert target is not None
    assert target[0] * target[1] == pytest.approx(3840 * 2160, rel=0.01)


def test_steps_know_whether_they_work_on_the_whole_image_or_on_crops() -> None:
    both = plan(FIND, KIND)
    assert [step.name for step in both.whole] == ["find"]
    assert [step.name for step in both.on_crops] == ["kind"]
    assert both.models[1].contract is MODELS["kind"]


def test_the_fingerprint_changes_with_models_and_settings_alone() -> None:
    served = {"small": "1", "kind": "2", "large": "3"}
    same = plan(FIND, KIND).fingerprint(served)
    assert plan(FIND, KIND).fingerprint(served | {"large": "9"}) == same
    assert plan(FIND, KIND).fingerprint(served | {"kind": "9"}) != same
    assert plan(FIND, KIND | {"margin": 0.2}).fingerprint(served) != same
    assert plan(FIND, KIND, name="q").fingerprint(served) != same


def test_what_cannot_work_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match="no model is called 'gone'"):
        plan({"name": "x", "model": "gone"})
    with pytest.raises(ConfigError, match="finds no boxes"):
        plan({"name": "find", "model": "kind"}, {"name": "more", "model": "kind", "on": "find"})
    with pytest.raises(ConfigError, match="disagree on EXIF"):
        plan(FIND, {"name": "raw", "model": "raw"})


CODES = {"name": "codes", "kind": "barcodes"}
GATE = {"name": "gate", "kind": "quality", "dark": 0.1}


def test_barcodes_want_every_pixel_and_a_gate_enough_to_measure() -> None:
    assert plan(FIND, CODES).decode_target(8000, 6000) is None
    assert plan(GATE).decode_target(1280, 640) == (320, 640)
    assert plan(CODES).exif == "apply"


def test_a_part_of_the_picture_is_decoded_as_large_as_the_model_wants_it() -> None:
    part = {"name": "find", "model": "small", "roi": [0.5, 0.5, 1.0, 1.0]}
    assert plan(part).decode_target(1280, 720) == (468, 832)


def test_a_kind_of_barcode_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="no kind of barcode is called 'QR'"):
        plan(CODES | {"formats": ["QR"]})


def test_a_second_opinion_is_about_the_same() -> None:
    with pytest.raises(ConfigError, match="cannot answer for 'find'"):
        plan(FIND, {"name": "again", "model": "kind", "unsure_of": "find"})


def test_pipelines_that_were_written_out_in_full_can_be_read_again() -> None:
    steps = [FIND, KIND, CODES, GATE, {"name": "t", "kind": "track", "on": "find"}]
    pipeline = PipelineSettings.model_validate({"name": "p", "steps": steps})
    assert PipelineSettings.model_validate_json(pipeline.model_dump_json()) == pipeline


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([{"name": "a", "kind": "barcodes", "margin": 0.2}], "'margin' says nothing"),
        ([{"name": "a"}], "names no model"),
        ([FIND, {"name": "a", "kind": "region"}], "keeps everything"),
        ([{"name": "a", "kind": "barcodes", "zones": {"b": [[0, 0], [1, 0], [1, 1]]}}], "'zones' says nothing"),
        ([FIND, {"name": "a", "kind": "track"}], "follows nothing"),
        ([{"name": "a", "model": "small", "roi": [0.5, 0.0, 0.4, 1.0]}], "left, top, right, bottom"),
        ([FIND, {"name": "a", "model": "small", "unsure_of": "find", "unsure": [0.7, 0.3]}], "the lower one first"),
        ([FIND, {"name": "a", "model": "small", "on": "find", "unsure_of": "find"}], "works on the same"),
        ([CODES, CODES | {"name": "more"}], "two steps of kind 'barcodes'"),
        ([{"name": "a", "kind": "region", "inside": [[[0, 0], [1, 0], [1, 1]]]}], "looks at nothing"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(steps: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        plan(*steps)
