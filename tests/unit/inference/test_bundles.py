"""A bundle is loaded whole and unchanged, or refused with a reason."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from eyeline.core.errors import ConfigError, NotFound
from eyeline.inference import bundles
from eyeline.inference.base import Canary
from eyeline.inference.bundles import (
    canary,
    load_bundle,
    locate,
    locate_canary,
    pinned,
    promote,
    remember_canary,
    rollback,
    serving_version,
    write_manifest,
)
from tests.fake_models import write_box_bundle, write_brightness_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_brightness_bundle(tmp_path / "models")


def test_a_bundle_knows_its_name_contract_and_version(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.name == "brightness"
    assert loaded.contract.labels == ("dark", "bright")
    assert loaded.version == f"1.0.0+{loaded.digest[:12]}"
    assert [image.file for image in loaded.golden.images] == ["black.png", "dark.png", "bright.png", "white.png"]


def test_the_version_changes_with_any_byte_and_only_then(bundle: Path) -> None:
    before = load_bundle(bundle).version
    assert load_bundle(bundle).version == before
    (bundle / "preview.png").write_bytes(b"for the eye only")
    (bundle / "tuned.toml").write_text('runtime = "onnxruntime"\n')
    assert load_bundle(bundle).version == before
    (bundle / "card.md").write_text("another word")
    write_manifest(bundle)
    assert load_bundle(bundle).version != before


def _changed(path: Path) -> None:
    data = bytearray((path / "weights.onnx").read_bytes())
    data[-1] ^= 1
    (path / "weights.onnx").write_bytes(data)


def _missing(path: Path) -> None:
    (path / "golden" / "dark.png").unlink()


def _unlisted(path: Path) -> None:
    (path / "extra.bin").write_bytes(b"x")


def _link(path: Path) -> None:
    (path / "card.md").unlink()
    (path / "card.md").symlink_to("/etc/hostname")


def _absolute(path: Path) -> None:
    (path / "MANIFEST.sha256").write_text(f"{'0' * 64}  /etc/hostname\n")


def _upwards(path: Path) -> None:
    (path / "MANIFEST.sha256").write_text(f"{'0' * 64}  ../../secret\n")


def _no_manifest(path: Path) -> None:
    (path / "MANIFEST.sha256").unlink()


def _fifo(path: Path) -> None:
    os.mkfifo(path / "pipe")


def _truncated(path: Path) -> None:
    weights = path / "weights.onnx"
    weights.write_bytes(weights.read_bytes()[:-40])
    write_manifest(path)


def _pickle(path: Path) -> None:
    (path / "weights.onnx").write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.")
    write_manifest(path)


def _edited(key: str, value: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = (path / "model.toml").read_text()
        assert key in text
        (path / "model.toml").write_text(text.replace(key, value))
        write_manifest(path)

    return edit


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_changed, "SHA-256 differs"),
        (_missing, "lacks files .*golden/dark.png"),
        (_unlisted, "does not list: extra.bin"),
        (_link, "card.md is a link"),
        (_absolute, "line 1"),
        (_upwards, "line 1"),
        (_no_manifest, "no MANIFEST.sha256"),
        (_fifo, "no plain file"),
        (_truncated, "not a readable ONNX file"),
        (_pickle, "ONNX"),
        (_edited('name = "brightness"', 'name = "../up"'), "small letters"),
        (_edited('version = "1.0.0"', 'version = "1\\n2"'), "write it as"),
        (_edited("max_batch = 8", "max_batch = 0"), "max_batch 0"),
        (_edited("max_batch = 8", 'max_batch = "many"'), "input.max_batch"),
        (_edited("max_batch = 8", "max_batsh = 8"), "max_batsh"),
        (_edited('task = "classification"', 'task = "detection"'), "does not suit"),
        (_edited("schema_version = 1", "schema_version = 9"), "newer"),
        (_edited("score_threshold = 0.0", "score_threshold = 7.0"), "score_threshold"),
    ],
)
def test_a_spoilt_bundle_is_refused_with_the_reason(bundle: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(bundle)
    with pytest.raises(ConfigError, match=says):
        load_bundle(bundle)


def _rewrite(bundle: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(bundle / "weights.onnx")
    change(model)
    (bundle / "weights.onnx").write_bytes(model.SerializeToString())
    write_manifest(bundle)


def test_external_tensor_data_are_never_read(bundle: Path, tmp_path: Path) -> None:
    canary = tmp_path / "secret"
    canary.write_bytes(b"\0" * 64)
    os.utime(canary, (0, 0))

    def external(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../secret")

    _rewrite(bundle, external)
    with pytest.raises(ConfigError, match="external data"):
        load_bundle(bundle)
    assert canary.stat().st_atime == 0


def test_an_operator_of_a_foreign_domain_is_refused_also_within_a_branch(bundle: Path) -> None:
    def foreign(model: onnx.ModelProto) -> None:
        inner = helper.make_graph(
            [helper.make_node("Evil", ["mean"], ["x"], domain="evil.corp")],
            "inner",
            [],
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        )
        model.graph.node.append(helper.make_node("If", ["mean"], ["y"], then_branch=inner, else_branch=inner))

    _rewrite(bundle, foreign)
    with pytest.raises(ConfigError, match=r"evil\.corp"):
        load_bundle(bundle)


def test_a_tensor_that_claims_a_trillion_elements_is_refused(bundle: Path) -> None:
    def giant(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(
            TensorProto(name="giant", data_type=TensorProto.FLOAT, dims=[1_000_000, 1_000_000])
        )

    _rewrite(bundle, giant)
    with pytest.raises(ConfigError, match="1000000000000 elements"):
        load_bundle(bundle)


def test_bytes_that_change_after_the_check_are_not_served(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    _changed(bundle)
    with pytest.raises(ConfigError, match="changed while"):
        loaded.read("weights.onnx")


def _zipped(folder: Path, archive: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                opened.write(path, prefix + path.relative_to(folder).as_posix())
    return archive


@pytest.mark.parametrize("prefix", ["", "brightness/"])
def test_a_zip_is_the_same_bundle(bundle: Path, tmp_path: Path, prefix: str) -> None:
    archive = _zipped(bundle, tmp_path / "brightness.zip", prefix)
    assert load_bundle(archive).digest == load_bundle(bundle).digest
    assert load_bundle(archive).digest == load_bundle(bundle).digest  # unpacked once, found again


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "a/../../outside.txt", "..\\outside.txt"])
def test_a_zip_that_leads_out_of_itself_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "evil" / "evil.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(name, "x")
    with pytest.raises(ConfigError, match="leads out"):
        load_bundle(archive)
    assert not list(tmp_path.rglob("outside.txt"))
    assert not list((archive.parent / ".unpacked").iterdir())


def test_a_zip_with_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "evil.zip"
    entry = zipfile.ZipInfo("card.md")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(entry, "/etc/hostname")
    with pytest.raises(ConfigError, match="link"):
        load_bundle(archive)


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK not really")
    with pytest.raises(ConfigError, match=r"not a readable \.zip"):
        load_bundle(tmp_path / "a.zip")


def test_the_version_in_a_result_leads_to_the_digests_that_it_stands_for(bundle: Path, tmp_path: Path) -> None:
    loaded = load_bundle(bundle)
    assert pinned(bundle.parent, "brightness", loaded.version) == loaded.files
    archive = tmp_path / "zipped" / "brightness.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as written:
        for file in (*loaded.files, "MANIFEST.sha256"):
            written.write(bundle / file, f"brightness/{file}")
    load_bundle(archive)
    assert pinned(archive.parent, "brightness", loaded.version) == loaded.files
    for name, version in (
        ("brightness", "1.0.0+" + 12 * "0"),
        ("brightness", "1.0.0"),
        ("../models/brightness", loaded.version),
    ):
        assert pinned(bundle.parent, name, version) is None


def test_models_of_the_folder_win_over_bundled_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    write_brightness_bundle(shipped)
    write_box_bundle(shipped)
    write_brightness_bundle(own, version="2.0.0")
    monkeypatch.setattr(bundles, "bundled_folder", lambda: shipped)
    found = bundles.find_bundles(own)
    assert {name: bundle.contract.version for name, bundle in found.items()} == {"box": "1.0.0", "brightness": "2.0.0"}
    assert set(locate(own, bundled=False)) == {"brightness"}


def test_one_bad_bundle_hides_no_other(tmp_path: Path) -> None:
    write_box_bundle(tmp_path)
    _changed(write_brightness_bundle(tmp_path))
    assert set(bundles.find_bundles(tmp_path, bundled=False)) == {"box"}


def test_a_bundle_under_another_name_is_refused(tmp_path: Path) -> None:
    write_brightness_bundle(tmp_path).rename(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"'brightness'.*'other'"):
        bundles.load_named("other", tmp_path / "other")


def _versions(folder: Path, *names: str) -> Path:
    entry = folder / "brightness"
    for number, name in enumerate(names):
        made = write_brightness_bundle(folder / "scratch", offset=number / 1000)
        entry.mkdir(exist_ok=True)
        made.rename(entry / name)
    return entry


def test_the_highest_version_serves_until_another_is_promoted(tmp_path: Path) -> None:
    entry = _versions(tmp_path, "1.9.0", "1.10.0")
    assert serving_version(entry) == entry / "1.10.0"
    promote(entry, "1.9.0")
    assert serving_version(entry) == entry / "1.9.0"


def test_rollback_goes_back_to_what_served_before(tmp_path: Path) -> None:
    entry = _versions(tmp_path, "1.0.0", "2.0.0", "3.0.0")
    promote(entry, "1.0.0")
    promote(entry, "2.0.0")
    assert rollback(entry) == "1.0.0"
    assert rollback(entry) == "3.0.0"
    assert serving_version(entry) == entry / "3.0.0"
    with pytest.raises(ConfigError, match="no earlier version"):
        rollback(entry)


def test_promoting_what_is_not_there_names_what_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'9\.9\.9'; known: 1\.0\.0"):
        promote(_versions(tmp_path, "1.0.0"), "9.9.9")


def test_weights_load_as_the_contract_says(bundle: Path) -> None:
    assert np.array_equal(load_bundle(bundle).contract.input.shape, (32, 32, 3))


def test_a_version_is_tried_out_until_it_serves_or_is_gone(tmp_path: Path) -> None:
    entry = _versions(tmp_path, "1.0.0", "2.0.0")
    promote(entry, "1.0.0")
    assert canary(entry) is None
    remember_canary(entry, Canary("2.0.0", ("north", "south")))
    assert canary(entry) == Canary("2.0.0", ("north", "south"))
    assert locate_canary(entry.parent, f"{entry.name}@2.0.0") == (entry / "2.0.0", Canary("2.0.0", ("north", "south")))
    for address in (f"{entry.name}@1.0.0", "../x@2.0.0", "@", entry.name):
        with pytest.raises(NotFound):
            locate_canary(entry.parent, address)
    promote(entry, "2.0.0")  # a process that died before it wrote that nothing is tried out any more
    assert canary(entry) is None
    promote(entry, "1.0.0")
    remember_canary(entry, Canary("9.9.9", ("north",)))
    assert canary(entry) is None
    remember_canary(entry, None)
    assert not (entry / "canary").exists()
