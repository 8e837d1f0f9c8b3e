"""The models that come with the product: whole, true to their golden sets, and honest about themselves."""

from pathlib import Path

import pytest

from eyeline.core.settings import InferenceSettings
from eyeline.inference.answers import ask
from eyeline.inference.bundles import Bundle, bundled_folder, load_named
from eyeline.inference.golden import check_golden
from eyeline.inference.runtimes import choose, open_runtimes

NAMES = sorted(folder.name for folder in bundled_folder().iterdir() if folder.is_dir())


def _bundle(name: str) -> Bundle:
    return load_named(name, bundled_folder() / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_model_verifies_and_answers_its_golden_set_as_recorded(name: str) -> None:
    assert check_golden(_bundle(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_model_has_a_card_and_a_licence(name: str) -> None:
    bundle = _bundle(name)
    assert bundle.contract.licence == "Apache-2.0"
    assert "## Where it fails" in bundle.read("card.md").decode()


def test_grocery_tells_family_and_kind_of_one_picture() -> None:
    bundle = _bundle("grocery")
    (runtime, *others) = open_runtimes(bundle, choose(bundle, InferenceSettings()))
    picture = bundle.golden.images[0].file
    said = ask(bundle.read(f"golden/{picture}"), bundle.contract, runtime.infer).classifications
    for opened in (runtime, *others):
        opened.close()

    assert [each.step for each in said] == ["coarse", "fine"]
    assert [len(head.labels) for head in bundle.contract.output.heads] == [43, 81]


def test_grocery_is_under_20_megabytes() -> None:
    assert (Path(bundled_folder()) / "grocery" / "weights.onnx").stat().st_size <= 20_000_000
