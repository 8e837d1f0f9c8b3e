"""The parcel renderer: the same seed, the same picture; exact truth; readable labels; and damage as the only difference."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from training import parcels_data
from training.data import near_duplicate_groups, read_picture, split_by_group
from training.parcels_data import Shot, split
from training.render import conveyor, parcels
from training.render.parcels import Damage, Pose
from training.render.parcels_surface import code128, qr

SIZE = 96


def carton(damage: Damage | None = None) -> parcels.Parcel:
    return parcels.Parcel("10420100", "carton", (0.34, 0.26, 0.2), 5, damage)


def on_belt(parcel: parcels.Parcel, place: conveyor.Place = conveyor.INBOUND) -> tuple[np.ndarray, list[float]]:
    stage = conveyor.Stage(place)
    patches = parcels.build(parcel, conveyor.SKIN)
    picture, boxes = stage.picture(0.3, [(patches, Pose(0.02, 0.0, 0.2))], np.random.default_rng(1))
    return picture, list(boxes[0])


def test_the_same_seed_gives_the_same_picture() -> None:
    one, two = (parcels.close_up(carton(), 3, SIZE) for _ in range(2))
    assert np.array_equal(one.image, two.image)
    assert one.box == two.box


def test_another_view_seed_gives_another_picture() -> None:
    assert not np.array_equal(parcels.close_up(carton(), 3, SIZE).image, parcels.close_up(carton(), 4, SIZE).image)


@pytest.mark.parametrize("kind", parcels.KINDS)
def test_the_box_holds_every_pixel_that_the_parcel_changes_and_no_wide_margin(kind: str) -> None:
    parcel = replace(parcels.draw(np.random.default_rng(2), "10420100", kind), label_scale=0.8)
    place = replace(conveyor.INBOUND, noise=0.0)
    stage = conveyor.Stage(place)
    empty, _ = stage.picture(0.3, [], np.random.default_rng(1))
    picture, boxes = stage.picture(0.3, [(parcels.build(parcel, 500), Pose())], np.random.default_rng(1))
    rows, columns = np.nonzero(np.abs(picture.astype(int) - empty).max(-1) > 90)
    x1, y1, x2, y2 = boxes[0]
    assert columns.min() >= x1 - 1.5
    assert columns.max() <= x2 + 1.5
    assert rows.min() >= y1 - 1.5
    assert rows.max() <= y2 + 1.5
    assert (columns.max() - columns.min()) > 0.7 * (x2 - x1)


@pytest.mark.parametrize("kind", ["dented", "crushed", "torn", "wet"])
def test_a_damaged_twin_differs_inside_the_box_and_nowhere_near_the_rim_of_the_picture(kind: str) -> None:
    intact, _ = on_belt(carton())
    hurt, (x1, y1, x2, y2) = on_belt(carton(Damage(kind, 0.9, 3)))
    different = np.abs(intact.astype(int) - hurt).max(-1) > 24
    assert different[int(y1) : int(y2), int(x1) : int(x2)].mean() > 0.01
    assert not different[:, :40].any()


@pytest.mark.parametrize("place", [conveyor.INBOUND, conveyor.OUTBOUND])
def test_a_label_can_be_read_at_the_clips_resolution(place: conveyor.Place) -> None:
    zxingcpp = pytest.importorskip("zxingcpp")
    turn = np.pi if place.turn > 0 else 0.0
    stage = conveyor.Stage(place)
    patches = parcels.build(carton(), conveyor.SKIN)
    picture, _ = stage.picture(0.3, [(patches, Pose(0.02, 0.0, turn + 0.2))], np.random.default_rng(1))
    assert "10420100" in [code.text for code in zxingcpp.read_barcodes(picture)]


def test_code_128_holds_its_digits() -> None:
    zxingcpp = pytest.importorskip("zxingcpp")
    symbol = np.kron(code128("10420199"), np.ones((60, 3), np.uint8))
    assert [code.text for code in zxingcpp.read_barcodes(symbol)] == ["10420199"]


def test_code_128_refuses_an_odd_number_of_digits() -> None:
    with pytest.raises(ValueError, match="even number"):
        code128("123")


def test_a_qr_code_has_a_quiet_zone_and_holds_its_text() -> None:
    symbol = qr("10420100")
    assert symbol.shape == (29, 29)
    assert (symbol[:4] == 255).all()
    assert cv2.QRCodeDetector().detectAndDecode(np.kron(symbol, np.ones((6, 6), np.uint8)))[0] == "10420100"


def test_the_demo_harms_three_parcels_between_the_places_and_keeps_their_ids() -> None:
    arrived = conveyor.cast()
    left = conveyor.harmed(arrived)
    assert [parcel.ident for parcel in arrived] == [parcel.ident for parcel in left]
    assert len({parcel.ident for parcel in arrived}) == conveyor.COUNT
    assert all(parcel.damage is None for parcel in arrived)
    assert sum(parcel.damage is not None for parcel in left) == 3


@pytest.mark.parametrize("name", ["inbound", "outbound"])
def test_a_clips_truth_has_a_line_for_every_frame_and_boxes_inside_the_picture(name: str) -> None:
    clips = Path(__file__).parents[3] / "src/eyeline/bundled/clips"
    lines = [json.loads(line) for line in (clips / f"{name}.jsonl").read_text("utf-8").splitlines()]
    assert [line["frame"] for line in lines] == list(range(conveyor.FRAMES))
    entries = [entry for line in lines for entry in line["parcels"]]
    assert all(0 <= e["box"][0] < e["box"][2] <= 960 and 0 <= e["box"][1] < e["box"][3] <= 540 for e in entries)
    assert len({entry["id"] for entry in entries}) == conveyor.COUNT
    assert len({entry["id"] for entry in entries if entry["damaged"]}) == (0 if name == "inbound" else 3)


def test_a_pair_is_never_divided_by_the_split() -> None:
    shots = [
        Shot(Path(f"{n}{label}"), label, f"pair-{n}", (0, 0, 1, 1)) for n in range(60) for label in parcels_data.LABELS
    ]
    train, held = split(shots)
    assert {shot.group for shot in train}.isdisjoint(shot.group for shot in held)
    assert len(train) + len(held) == len(shots)
    assert 6 <= len(held) <= 24


def test_near_duplicates_among_the_real_parcels_stay_on_one_side(shared_data: Path) -> None:
    paths = sorted((shared_data / "parcels" / "images").glob("*.jpg"))[:150]
    groups = near_duplicate_groups([read_picture(path) for path in paths])
    train, held = split_by_group(groups, 0.2)
    assert {groups[i] for i in train}.isdisjoint(groups[i] for i in held)
