"""Conveyor scenes: a belt at a place, seen from above at an angle, with parcels passing; and the demo's two clips.

`python -m training.render.conveyor --out DIR` writes inbound.mp4, outbound.mp4 and their ground truth as JSON Lines.
The same parcels pass both places; some come to harm in between.
"""

import argparse
import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from training.render import parcels, parcels_surface
from training.render.parcels import Parcel, Pose
from training.render.parcels_mesh import Camera, Floats, Light, Patch, Pixels, as_pixels, extent, render, shadow, unit

SIZE = (540, 960)  # height, width
FPS = 10
FRAMES = 500
SPEED = 0.4  # metres a second
LENGTH = SPEED * FRAMES / FPS  # the loop closes after the last frame
TILE = 2.0  # metres of belt after which its texture repeats
TEXELS = 260  # a metre of belt and floor
BELT = 0.74  # metres wide


@dataclass(frozen=True)
class Place:
    """A stretch of conveyor and the camera over it."""

    name: str
    rise: float  # degrees above the horizon
    turn: float  # degrees: -90 looks along +y, the belt running left to right
    away: float  # metres
    across: float  # metres of belt in the picture's width
    light: Light
    rollers: bool
    belt: tuple[float, float, float]
    frame: tuple[float, float, float]
    floor: tuple[float, float, float]
    noise: float
    exposure: float
    seed: int

    def camera(self, size: tuple[int, int] = SIZE) -> Camera:
        """The camera, for a picture of `size` (height, width)."""
        rise, turn = np.deg2rad(self.rise), np.deg2rad(self.turn)
        target = np.array([0, 0, 0.06], np.float32)
        ray = np.array([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)], np.float32)
        return Camera(target + self.away * ray, target, size[1] * self.away / self.across, size)


def lamp(turn: float, rise: float, key: float, sky: float, warm: float) -> Light:
    """A lamp by its direction in degrees; `warm` above 0 is yellow, below 0 blue."""
    a, b = np.deg2rad(turn), np.deg2rad(rise)
    direction = np.array([np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b)], np.float32)
    return Light(direction, key, sky, (1 + warm, 1.0, 1 - warm))


INBOUND = Place(
    "inbound",
    61,
    -86,
    2.4,
    1.34,
    lamp(-130, 58, 0.62, 0.5, -0.025),
    False,
    (46, 50, 50),
    (150, 154, 158),
    (118, 118, 114),
    2.0,
    1.0,
    11,
)
OUTBOUND = Place(
    "outbound",
    53,
    94,
    2.6,
    1.40,
    lamp(40, 48, 0.7, 0.42, 0.045),
    True,
    (128, 130, 134),
    (190, 120, 40),
    (92, 88, 84),
    2.6,
    1.08,
    23,
)


def random_place(rng: np.random.Generator) -> Place:
    """Some other place: any belt, any light, the camera on either side. Models learn from these, not from the demo's two."""
    grey = rng.uniform(25, 120)
    belt = np.clip(grey + rng.normal(0, 10, 3), 10, 200) if rng.random() < 0.75 else rng.uniform(20, 170, 3)
    return Place(
        "any", rng.uniform(42, 80), rng.choice([-90, 90]) + rng.normal(0, 12), rng.uniform(1.8, 3.4), rng.uniform(0.95, 2.1),
        lamp(rng.uniform(-180, 180), rng.uniform(30, 80), rng.uniform(0.3, 0.85), rng.uniform(0.35, 0.65), rng.normal(0, 0.05)),
        bool(rng.random() < 0.4), tuple(belt.tolist()), tuple(rng.uniform(30, 220, 3).tolist()),
        tuple((rng.uniform(50, 190) + rng.normal(0, 12, 3)).clip(0, 255).tolist()), rng.uniform(1, 6),
        float(np.exp(rng.normal(0, 0.15))), int(rng.integers(1 << 31)),
    )  # fmt: skip


class Stage:
    """A place's still parts, painted once: the floor picture, the belt strip and where the belt lies in the picture."""

    def __init__(self, place: Place, size: tuple[int, int] = SIZE) -> None:
        self.place, self.camera = place, place.camera(size)
        rng = np.random.default_rng(place.seed)
        self.strip = _rollers(rng, place) if place.rollers else _rubber(rng, place)
        self.still = _warp(_hall(rng, place), self.camera, (-3.0, -2.0))
        outline = np.array([[[-9, -BELT / 2, 0], [9, -BELT / 2, 0], [9, BELT / 2, 0], [-9, BELT / 2, 0]]], np.float32)
        corners = self.camera.project(outline)[0][0]
        mask = np.zeros(size, np.uint8)
        cv2.fillConvexPoly(mask, np.clip(corners, -30000, 30000).astype(np.int32), 255, cv2.LINE_AA)
        self.belt_mask = mask.astype(np.float32)[..., None] / 255
        y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
        lean = rng.normal(0, 0.08, 2)
        self.falloff = (1 - 0.10 * (x**2 + y**2) / 2 + lean[0] * x + lean[1] * y)[..., None].astype(
            np.float32
        ) * place.exposure

    def empty(self, travelled: float) -> Floats:
        """The scene without parcels after the belt has moved by metres."""
        moved = 0.0 if self.place.rollers else travelled % TILE
        belt = _warp(self.strip, self.camera, (-3.0 - TILE + moved, -BELT / 2))
        lit = self.place.light.sky + self.place.light.key * float(self.place.light.direction[2])
        return (
            (self.still * (1 - self.belt_mask) + belt * self.belt_mask)
            * lit
            * np.array(self.place.light.tint, np.float32)
        )

    def picture(
        self, travelled: float, lying: list[tuple[list[Patch], Pose]], rng: np.random.Generator
    ) -> tuple[Pixels, list[tuple[float, float, float, float]]]:
        """RGB uint8, and each parcel's box in pixels, not clipped to the picture."""
        scene = self.empty(travelled)
        boxes = []
        for patches, pose in lying:
            there = parcels.placed(patches, pose)
            boxes.append(extent(there, self.camera))
            _paint(scene, there, boxes[-1], self.camera, self.place.light)
        scene = scene * self.falloff + rng.normal(0, self.place.noise, (*scene.shape[:2], 1)).astype(np.float32)
        return as_pixels(scene), boxes


def _paint(
    scene: Floats, there: list[Patch], box: tuple[float, float, float, float], camera: Camera, light: Light
) -> None:
    """Shadow and parcel, worked out only where they fall."""
    pad = 0.45 * max(box[2] - box[0], box[3] - box[1])
    x1, y1 = (max(0, int(value - pad)) for value in box[:2])
    x2, y2 = min(camera.size[1], int(box[2] + pad)), min(camera.size[0], int(box[3] + pad))
    if x2 - x1 < 2 or y2 - y1 < 2:
        return
    view = camera.window(x1, y1, x2, y2)
    part = scene[y1:y2, x1:x2]
    part *= 1 - 0.6 * shadow(there, view, light, 0.012 * camera.size[1])[..., None]
    layer = render(there, view, light)
    part[:] = part * (1 - layer[..., 3:]) + layer[..., :3]


def _warp(picture: Pixels, camera: Camera, corner: tuple[float, float]) -> Floats:
    """A picture of the ground whose first texel lies at `corner` (x, y in metres), as the camera sees it."""
    to_ground = np.array([[1 / TEXELS, 0, corner[0]], [0, 1 / TEXELS, corner[1]], [0, 0, 1]], np.float64)
    seen = cv2.warpPerspective(
        picture,
        camera.ground().astype(np.float64) @ to_ground,
        camera.size[::-1],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(seen, np.float32)


def _rubber(rng: np.random.Generator, place: Place) -> Pixels:
    """A rubber belt with scuffs and a lacing, repeating every TILE metres; long enough to be shifted by one tile."""
    shape = (round(BELT * TEXELS), round(TILE * TEXELS))
    grain = parcels_surface.noise(rng, shape, 6, 4) * 3 + rng.normal(0, 2, shape)
    tile = np.array(place.belt, np.float32) + grain[..., None]
    for _ in range(rng.integers(6, 24)):
        start = (rng.uniform(0, 1, 2) * [shape[1], shape[0]]).astype(int)
        end = start + (rng.normal(0, 1, 2) * [90, 6]).astype(int)
        cv2.line(
            tile,
            tuple(start.tolist()),
            tuple(end.tolist()),
            tuple((np.array(place.belt) * rng.uniform(1.05, 1.5)).tolist()),
            1,
            cv2.LINE_AA,
        )
    tile[:, :3] *= 0.5
    tile[:, 3:6] = tile[:, 3:6] * 0.6 + 60
    tile[:4] *= 0.6
    tile[-4:] *= 0.6
    return as_pixels(np.tile(tile, (1, 5, 1)))


def _rollers(rng: np.random.Generator, place: Place) -> Pixels:
    """Steel rollers with dark gaps; they turn but do not travel."""
    shape = (round(BELT * TEXELS), round(TILE * TEXELS))
    pitch = TILE * TEXELS / 20
    phase = (np.arange(shape[1]) % pitch) / pitch
    bright = np.where(phase < 0.72, 0.55 + 0.6 * np.sin(np.pi * np.minimum(phase / 0.72, 1)) ** 0.8, 0.16)
    tile = bright[None, :, None] * np.array(place.belt) + rng.normal(0, 2.5, (*shape, 1))
    tile[:6] = tile[-6:] = 30
    return as_pixels(np.tile(tile, (1, 5, 1)))


def _hall(rng: np.random.Generator, place: Place) -> Pixels:
    """The floor and the conveyor's side frames, 6 × 4 metres around the middle."""
    shape = (4 * TEXELS, 6 * TEXELS)
    hall = np.array(place.floor, np.float32) + parcels_surface.noise(rng, shape, 5, 5)[..., None] * 8
    middle = shape[0] // 2
    for side in (-1, 1):
        near = middle + side * round((BELT / 2 + 0.045) * TEXELS)
        far = middle + side * round((BELT / 2 + 0.012) * TEXELS)
        low, high = min(near, far) - 8, max(near, far) + 8
        hall[low:high] = np.array(place.frame) * np.linspace(0.8, 1.1, high - low)[:, None, None]
        hall[low:high, ::130] *= 0.6
        edge = near + side * 12
        hall[min(edge, edge + side * 26) : max(edge, edge + side * 26)] *= 0.55  # the frame's shadow on the floor
    stripe = middle + round(rng.choice([-1, 1]) * (BELT / 2 + rng.uniform(0.3, 0.45)) * TEXELS)
    if rng.random() < 0.6:
        hall[stripe : stripe + 14] = hall[stripe : stripe + 14] * 0.3 + np.array([206, 172, 40]) * 0.7
    return as_pixels(hall)


# ---- a picture to learn from ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What one picture holds of one parcel."""

    parcel: Parcel
    box: tuple[float, float, float, float]  # unclipped


def scenes(seed: int, size: tuple[int, int], count: int, harmed: float = 0.3) -> Iterator[tuple[Pixels, list[Seen]]]:
    """`count` pictures of one random place, each with up to five of its six parcels lying anywhere on the belt."""
    rng = np.random.default_rng([seed, 4])
    place = random_place(rng)
    stage = Stage(place, size)
    density = 1.2 * stage.camera.focal / place.away
    side = _towards(stage, Pose())
    stock = [(parcel, parcels.build(parcel, density, side)) for parcel in (_any_parcel(rng, harmed) for _ in range(6))]
    for _ in range(count):
        lying = _scattered(rng, stock, place.across * 0.65)
        picture, boxes = stage.picture(rng.uniform(0, LENGTH), [(patches, pose) for _, patches, pose in lying], rng)
        photo = parcels.photograph(rng, picture.astype(np.float32), 0.5)
        yield photo, [Seen(parcel, box) for (parcel, _, _), box in zip(lying, boxes, strict=True)]


def _scattered(
    rng: np.random.Generator, stock: list[tuple[Parcel, list[Patch]]], spread: float
) -> list[tuple[Parcel, list[Patch], Pose]]:
    """Some of the stock, laid so that none touches another."""
    wanted = rng.choice([0, 1, 2, 3, 4, 5], p=[0.05, 0.2, 0.25, 0.22, 0.16, 0.12])
    lying: list[tuple[Parcel, list[Patch], Pose]] = []
    for index in rng.permutation(len(stock))[:wanted]:
        parcel, patches = stock[index]
        pose = Pose(
            float(rng.uniform(-spread, spread)), float(rng.uniform(-0.16, 0.16)), float(rng.uniform(-np.pi, np.pi))
        )
        if all(np.hypot(pose.x - at.x, pose.y - at.y) > _reach(parcel) + _reach(other) for other, _, at in lying):
            lying.append((parcel, patches, pose))
    return lying


def _reach(parcel: Parcel) -> float:
    return float(np.hypot(*parcel.size[:2])) / 2


def _any_parcel(rng: np.random.Generator, harmed: float) -> Parcel:
    parcel = parcels.draw(
        rng, f"{rng.integers(10**7, 10**8)}", str(rng.choice(parcels.KINDS, p=[0.4, 0.22, 0.19, 0.19]))
    )
    parcel = replace(parcel, label_scale=float(rng.uniform(0.5, 1)), labelled=bool(rng.random() < 0.85))
    return parcels.damaged(parcel, rng) if rng.random() < harmed else parcel


def _towards(stage: Stage, pose: Pose) -> Floats:
    """The horizontal direction to the camera, in the parcel's own frame."""
    ray = stage.camera.eye - np.array([pose.x, pose.y, 0], np.float32)
    turned = Pose(0, 0, -pose.turn).place(ray)
    return unit(np.array([turned[0], turned[1], 0], np.float32))


# ---- the demo's clips ----------------------------------------------------------------------------------------------

#: Which of the 24 parcels come to harm between the two places: kind, severity, seed.
HARM: dict[int, tuple[str, float, int]] = {3: ("crushed", 0.85, 2), 8: ("torn", 0.85, 5), 17: ("wet", 0.85, 1)}
COUNT = 24
SKIN = 1400.0  # texels a metre: the same at both places, so that a parcel's skin is the same
SEED = 20


def cast() -> list[Parcel]:
    """The demo's parcels as they come in, all intact."""
    rng = np.random.default_rng(SEED)
    kinds = ("carton", "carton", "bag", "carton", "tote", "carton", "tube", "carton")
    drawn = [parcels.draw(rng, f"{10420100 + 7 * number}", kinds[number % len(kinds)]) for number in range(COUNT)]
    return [_easy_to_read(parcel) for parcel in drawn]


def _easy_to_read(parcel: Parcel) -> Parcel:
    """Cartons wide enough for a label that can be read at the clip's resolution."""
    if parcel.kind != "carton":
        return parcel
    width, depth, height = parcel.size
    return replace(parcel, size=(max(width, 0.3), max(depth, 0.24), height))


def harmed(arrived: list[Parcel]) -> list[Parcel]:
    """The same parcels as they leave."""
    return [
        replace(parcel, damage=parcels.Damage(*HARM[number])) if number in HARM else parcel
        for number, parcel in enumerate(arrived)
    ]


def frames(
    place: Place, passing: list[Parcel], count: int = FRAMES
) -> Iterator[tuple[Pixels, list[dict[str, object]]]]:
    """The clip's pictures, RGB uint8, and what is in each: id, kind, box, damaged, whole."""
    stage = Stage(place)
    rng = np.random.default_rng(place.seed + 1)
    poses = [
        Pose(LENGTH * (number + rng.uniform(-0.08, 0.08)) / COUNT, rng.uniform(-0.07, 0.07), rng.uniform(-0.45, 0.45))
        for number in range(len(passing))
    ]
    upright = np.pi if place.turn > 0 else 0.0  # labels are read by the people on the camera's side
    poses = [replace(pose, turn=pose.turn + upright) for pose in poses]
    built = [
        parcels.build(parcel, SKIN, _towards(stage, replace(pose, x=0.0)))
        for parcel, pose in zip(passing, poses, strict=True)
    ]
    for number in range(count):
        travelled = SPEED * number / FPS
        here = [replace(pose, x=(pose.x + travelled + LENGTH / 2) % LENGTH - LENGTH / 2) for pose in poses]
        near = [index for index, pose in enumerate(here) if abs(pose.x) < 0.75 * place.across]
        picture, boxes = stage.picture(travelled, [(built[index], here[index]) for index in near], rng)
        found = [_truth(passing[index], box) for index, box in zip(near, boxes, strict=True)]
        yield picture, [truth for truth in found if truth is not None]


def _truth(parcel: Parcel, box: tuple[float, float, float, float]) -> dict[str, object] | None:
    """A line's entry, or None where less than a sliver is in the picture."""
    clipped = np.clip(np.array(box), 0, [SIZE[1], SIZE[0], SIZE[1], SIZE[0]])
    if clipped[2] - clipped[0] < 12 or clipped[3] - clipped[1] < 12:
        return None
    whole = bool(np.abs(clipped - np.array(box)).max() < 0.5)
    return {
        "id": parcel.ident,
        "kind": parcel.kind,
        "box": [round(float(value), 1) for value in clipped],
        "damaged": parcel.damage is not None,
        "whole": whole,
    }


def write_clip(place: Place, passing: list[Parcel], folder: Path, count: int = FRAMES) -> None:
    """NAME.mp4 (H.264, yuv420p) and NAME.jsonl in `folder`."""
    av = importlib.import_module("av")  # needed to write clips, by nobody else
    with av.open(str(folder / f"{place.name}.mp4"), "w") as clip, (folder / f"{place.name}.jsonl").open("w") as truth:
        stream = clip.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"crf": "25", "preset": "slow", "threads": "1", "movflags": "faststart"}
        for number, (picture, entries) in enumerate(frames(place, passing, count)):
            line = {"frame": number, "time": round(number / FPS, 3), "parcels": entries}
            truth.write(json.dumps(line) + "\n")
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        clip.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=FRAMES)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    arrived = cast()
    write_clip(INBOUND, arrived, options.out, options.frames)
    write_clip(OUTBOUND, harmed(arrived), options.out, options.frames)


if __name__ == "__main__":
    main()
