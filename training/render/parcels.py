"""One parcel: its kind, size, dress and damage, as patches to render; and close-up pictures of one, on many grounds.

Everything follows from a `Parcel` (seeds inside), so a parcel looks the same at two cameras, and its damaged twin
differs by the damage alone: no background, view or dress says which is which.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from training.render import parcels_damage, parcels_surface
from training.render.parcels_damage import Blow
from training.render.parcels_mesh import Camera, Floats, Light, Patch, Pixels, as_pixels, extent, render, shadow, unit
from training.render.parcels_surface import Skin

KINDS = ("carton", "bag", "tube", "tote")
GRID = 26  # points along a face's side

#: Name, direction of the face's normal, and its right-hand direction as seen from outside.
FACES: tuple[tuple[str, tuple[int, int, int], tuple[int, int, int]], ...] = (
    ("top", (0, 0, 1), (1, 0, 0)),
    ("front", (0, -1, 0), (1, 0, 0)),
    ("back", (0, 1, 0), (-1, 0, 0)),
    ("right", (1, 0, 0), (0, 1, 0)),
    ("left", (-1, 0, 0), (0, -1, 0)),
)


@dataclass(frozen=True)
class Damage:
    """What happened, how badly (0..1), and the seed of its details."""

    kind: str  # one of parcels_damage.DAMAGES
    severity: float
    seed: int


@dataclass(frozen=True)
class Parcel:
    """All that decides how a parcel looks, apart from where it lies and who looks."""

    ident: str  # an even number of digits, on the label
    kind: str
    size: tuple[float, float, float]  # metres: x, y, z
    seed: int
    damage: Damage | None = None
    labelled: bool = True
    label_scale: float = 1.0
    wear: float = 0.5


def draw(rng: np.random.Generator, ident: str, kind: str | None = None) -> Parcel:
    """A parcel at random, undamaged."""
    chosen = kind or str(rng.choice(KINDS, p=[0.62, 0.16, 0.1, 0.12]))
    sizes: dict[str, Callable[[], tuple[float, float, float]]] = {
        "carton": lambda: (rng.uniform(0.22, 0.46), rng.uniform(0.2, 0.36), rng.uniform(0.06, 0.3)),
        "bag": lambda: (rng.uniform(0.26, 0.42), rng.uniform(0.22, 0.34), rng.uniform(0.03, 0.09)),
        "tube": lambda: (rng.uniform(0.4, 0.62), (d := rng.uniform(0.1, 0.15)), d),
        "tote": lambda: (rng.uniform(0.36, 0.46), rng.uniform(0.27, 0.33), rng.uniform(0.12, 0.24)),
    }
    size = tuple(float(value) for value in sizes[chosen]())
    return Parcel(ident, chosen, (size[0], size[1], size[2]), int(rng.integers(1 << 31)), wear=float(rng.uniform(0, 1)))


def damaged(parcel: Parcel, rng: np.random.Generator, kind: str | None = None, least: float = 0.15) -> Parcel:
    """The same parcel after a mishap."""
    chosen = kind or str(rng.choice(parcels_damage.DAMAGES, p=[0.2, 0.34, 0.32, 0.14]))
    return replace(parcel, damage=Damage(chosen, float(rng.uniform(least, 1)), int(rng.integers(1 << 31))))


@dataclass(frozen=True)
class Pose:
    """Where a parcel lies: x, y in metres, turned by `turn` radians about the vertical."""

    x: float = 0.0
    y: float = 0.0
    turn: float = 0.0

    def place(self, points: Floats) -> Floats:
        """Local → world."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        turned = np.stack(
            [
                points[..., 0] * cos - points[..., 1] * sin,
                points[..., 0] * sin + points[..., 1] * cos,
                points[..., 2],
            ],
            -1,
        )
        return np.asarray((turned + np.array([self.x, self.y, 0])).astype(np.float32))


def build(parcel: Parcel, density: float, side: Floats | None = None) -> list[Patch]:
    """Patches in the parcel's own frame, `density` texels a metre; `side` (unit, towards the viewer) is where damage falls."""
    towards = side if side is not None else np.array([0.3, -0.95, 0.0], np.float32)
    return _BUILDERS[parcel.kind](parcel, density, towards)


def placed(patches: list[Patch], pose: Pose) -> list[Patch]:
    """The patches moved to where the parcel lies."""
    return [Patch(pose.place(p.points), p.texture, p.slope, p.gloss, p.closed, p.cut) for p in patches]


def _face(
    size: tuple[float, float, float], normal: tuple[int, int, int], right: tuple[int, int, int]
) -> tuple[Floats, float, float]:
    """Points [GRID, GRID, 3] of a box face, rows from its upper edge, and its height and width in metres."""
    n, r = np.array(normal, np.float32), np.array(right, np.float32)
    up = np.cross(n, r)
    dims = np.array(size, np.float32)
    height, width = float(abs(up) @ dims), float(abs(r) @ dims)
    down, along = np.meshgrid(np.linspace(0.5, -0.5, GRID), np.linspace(-0.5, 0.5, GRID), indexing="ij")
    middle = np.array([0, 0, size[2] / 2], np.float32) + n * dims / 2
    return (
        (middle + along[..., None] * r * width + down[..., None] * up * height).astype(np.float32),
        height,
        width,
    )


def _strike(parcel: Parcel, side: Floats) -> tuple[list[Blow], set[str]]:
    """The blows of the parcel's damage and the faces whose skin it reaches."""
    if parcel.damage is None:
        return [], set()
    rng = np.random.default_rng(parcel.damage.seed)
    facing = [name for name, normal, _ in FACES if name == "top" or float(np.array(normal) @ side) > 0.3]
    if parcel.damage.kind == "wet":
        return parcels_damage.blows(rng, "wet", parcel.size, parcel.damage.severity, side), set(facing)
    return parcels_damage.blows(rng, parcel.damage.kind, parcel.size, parcel.damage.severity, side), {
        str(rng.choice(facing))
    }


def _hurt(parcel: Parcel, skin: Skin, face: str, reached: set[str]) -> None:
    """The damage's marks on one face's skin."""
    if parcel.damage is None or face not in reached:
        return
    rng = np.random.default_rng([parcel.damage.seed, sum(face.encode())])
    severity = parcel.damage.severity
    if parcel.damage.kind == "torn":
        parcels_damage.tear(rng, skin, severity)
        if rng.random() < 0.3:
            parcels_damage.tear(rng, skin, severity * 0.7)
    elif parcel.damage.kind == "wet":
        parcels_damage.soak(rng, skin, severity, from_below=face != "top")
    elif parcel.damage.kind == "crushed":
        parcels_damage.crumple_skin(rng, skin, severity)
        if rng.random() < 0.5:
            parcels_damage.tear(rng, skin, severity * 0.5)


def _carton(parcel: Parcel, density: float, side: Floats) -> list[Patch]:
    rng = np.random.default_rng(parcel.seed)
    style = _carton_style(rng)
    struck, reached = _strike(parcel, side)
    bulge = rng.normal(0, 0.012 + 0.012 * parcel.wear) * min(parcel.size)
    patches = []
    for name, normal, right in FACES:
        points, height, width = _face(parcel.size, normal, right)
        skin = _carton_skin(
            np.random.default_rng([parcel.seed, sum(name.encode())]),
            style,
            name,
            height,
            width,
            density,
            parcel,
        )
        _hurt(parcel, skin, name, reached)
        points = points + _bulge(points, normal, parcel.size, bulge)
        for blow in struck:
            points = blow.apply(points)
        points[..., 2] = np.maximum(points[..., 2], 0)
        patches.append(Patch(points, skin.texture, skin.slope, style.gloss))
    return patches


@dataclass(frozen=True)
class _Style:
    colour: parcels_surface.Colour
    ink: parcels_surface.Colour
    artwork: bool
    ribs: bool
    taped: bool
    tape_seed: int
    pouch: bool
    hand_holes: bool
    straps: int
    gloss: float


_BROWNS = (
    (190, 146, 100),
    (176, 130, 84),
    (205, 164, 118),
    (164, 122, 82),
    (198, 158, 120),
    (182, 142, 104),
    (150, 112, 76),
)
_WHITES = ((232, 230, 226), (214, 210, 202), (240, 238, 236))


def _carton_style(rng: np.random.Generator) -> _Style:
    paint = rng.random()
    if paint < 0.66:
        colour = np.array(_BROWNS[rng.integers(len(_BROWNS))]) + rng.normal(0, 8, 3)
    elif paint < 0.82:
        colour = np.array(_WHITES[rng.integers(len(_WHITES))]) + rng.normal(0, 4, 3)
    else:
        colour = rng.uniform(15, 240, 3)
    ink = np.array([(30, 26, 24), (40, 50, 90), (150, 30, 28), (34, 90, 52), (60, 44, 34)][rng.integers(5)])
    art = bool(rng.random() < (0.06 if paint < 0.66 else 0.6))
    return _Style(tuple(np.clip(colour, 5, 250).tolist()), tuple(ink.tolist()), art,
                  bool(rng.random() < 0.6 and not art), bool(rng.random() < 0.8), int(rng.integers(1 << 31)),
                  bool(rng.random() < 0.12), bool(rng.random() < 0.1), int(rng.random() < 0.1) * int(rng.integers(1, 3)),
                  float(rng.uniform(0, 0.12) if not art else rng.uniform(0, 0.5)))  # fmt: skip


def _carton_skin(
    rng: np.random.Generator,
    style: _Style,
    face: str,
    height: float,
    width: float,
    density: float,
    parcel: Parcel,
) -> Skin:
    skin = parcels_surface.cardboard(rng, height, width, density, style.colour, style.ribs)
    if style.artwork:
        parcels_surface.artwork(rng, skin)
    elif rng.random() < 0.5:
        parcels_surface.print_marks(rng, skin, style.ink, int(rng.integers(1, 4)))
    if face == "top" and rng.random() < 0.85:
        parcels_surface.flap_seam(rng, skin, across=False)
    if face in {"left", "right"} and style.hand_holes:
        parcels_surface.hand_hole(rng, skin)
    parcels_surface.wear(rng, skin, parcel.wear)
    _tape_up(style, skin, face, height, width)
    if style.pouch and face in {"top", "front"}:
        parcels_surface.pouch(
            rng,
            skin,
            (width * rng.uniform(0.25, 0.75), height * rng.uniform(0.3, 0.7)),
            (min(0.2, width * 0.6), min(0.13, height * 0.6)),
        )
    if face == "top" and parcel.labelled:
        _label(rng, skin, parcel.ident, height, width, parcel.label_scale)
    elif rng.random() < 0.25:
        _label(rng, skin, f"{rng.integers(10**7, 10**8)}", height, width, scale=rng.uniform(0.4, 0.9))
    return skin


def _tape_up(style: _Style, skin: Skin, face: str, height: float, width: float) -> None:
    rng = np.random.default_rng(style.tape_seed)  # the same on every face: one strip goes round
    half = rng.uniform(0.018, 0.032)
    if style.taped and face == "top":
        parcels_surface.tape(rng, skin, across=False, at=height / 2, half=half)
    elif style.taped and face in {"left", "right"}:
        parcels_surface.tape(rng, skin, across=True, at=width / 2, half=half, reach=rng.uniform(0.04, 0.12))
    for strap in range(style.straps):
        strap_rng = np.random.default_rng(style.tape_seed + 5)
        if face in {"top", "front", "back"}:
            parcels_surface.tape(strap_rng, skin, across=True, at=width * (0.3 + 0.4 * strap), half=0.006)


def _label(rng: np.random.Generator, skin: Skin, ident: str, height: float, width: float, scale: float = 1.0) -> None:
    """A label as large as the face allows, at most 0.21 m wide, a little askew."""
    across = min(0.21, 0.88 * width, 1.5 * 0.88 * height) * scale
    tall = across / 1.5
    x = width / 2 + rng.uniform(-1, 1) * max(0.0, width - across * 1.06) / 2
    y = height / 2 + rng.uniform(-1, 1) * max(0.0, height - tall * 1.06) / 2
    parcels_surface.stamp(
        skin, parcels_surface.shipping_label(rng, ident), (x, y), (across, tall), float(rng.normal(0, 2))
    )


def _bulge(points: Floats, normal: tuple[int, int, int], size: tuple[float, float, float], amount: float) -> Floats:
    """Sides that swell or sag a little while the edges stay."""
    centred = (points - np.array([0, 0, size[2] / 2])) / np.array(size)
    inner = np.prod(
        [np.cos(np.pi * np.clip(centred[..., axis], -0.5, 0.5)) for axis in range(3) if normal[axis] == 0],
        axis=0,
    )
    return np.asarray(inner[..., None] * np.array(normal, np.float32) * amount, np.float32)


def _bag(parcel: Parcel, density: float, _side: Floats) -> list[Patch]:
    """A poly mailer: a pillow with flat sealed rims, shiny and wrinkled."""
    rng = np.random.default_rng(parcel.seed)
    width, height, thick = parcel.size
    colour = [
        (225, 226, 228),
        (205, 208, 212),
        (58, 60, 64),
        (88, 92, 98),
        (60, 92, 150),
        (206, 188, 60),
        (190, 150, 108),
        (186, 70, 80),
    ][rng.integers(8)]
    skin = parcels_surface.blank(height, width, density, colour)
    if rng.random() < 0.5:
        parcels_surface.print_marks(
            rng, skin, (30, 30, 34) if sum(colour) > 330 else (230, 230, 232), int(rng.integers(1, 4))
        )
    skin.slope += parcels_surface.slopes(
        np.abs(parcels_surface.noise(rng, skin.shape, 7, 4)), rng.uniform(2, 5) * density / 1000
    )
    if parcel.labelled:
        _label(rng, skin, parcel.ident, height, width, parcel.label_scale)
    grid = np.linspace(-1, 1, GRID)
    y, x = np.meshgrid(-grid, grid, indexing="ij")
    pillow = np.maximum((1 - np.abs(x) ** 4) * (1 - np.abs(y) ** 4), 0) ** 0.6
    lumps = cv2.resize(rng.normal(0, 0.12, (5, 5)).astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_CUBIC)
    z = np.maximum(thick * pillow * (1 + lumps), 0) + 0.004
    points = np.stack([x * width / 2, y * height / 2, z], -1).astype(np.float32)
    if parcel.damage is not None:
        damage = np.random.default_rng(parcel.damage.seed)
        _hurt(
            replace(parcel, damage=replace(parcel.damage, kind="torn" if parcel.damage.kind != "wet" else "wet")),
            skin,
            "top",
            {"top"},
        )
        if parcel.damage.kind == "crushed":
            parcels_damage.tear(damage, skin, parcel.damage.severity)
    return [Patch(points, skin.texture, skin.slope, float(rng.uniform(0.15, 0.8)))]


def _tube(parcel: Parcel, density: float, side: Floats) -> list[Patch]:
    """A mailing tube on its side, with end caps."""
    rng = np.random.default_rng(parcel.seed)
    length, _, across = parcel.size
    radius = across / 2
    colour = [(186, 150, 108), (230, 228, 224), (160, 126, 90), (70, 90, 130)][rng.integers(4)]
    skin = parcels_surface.cardboard(rng, np.pi * across, length, density, colour, ribs=False)
    if rng.random() < 0.5:
        parcels_surface.tape(rng, skin, across=True, at=length * rng.uniform(0.05, 0.2), half=0.025)
    parcels_surface.wear(rng, skin, parcel.wear)
    if parcel.labelled:
        label = parcels_surface.shipping_label(rng, parcel.ident)
        wide = min(0.2, 1.7 * across)
        parcels_surface.stamp(skin, label, (length / 2, np.pi * across * 0.5), (wide, wide / 1.5), 0.0)
    struck, _ = _strike(parcel, side)
    reached = {"body"} if parcel.damage is not None else set()
    _hurt(parcel, skin, "body", reached)
    turn, along = np.meshgrid(
        np.linspace(-np.pi, np.pi, 2 * GRID), np.linspace(-length / 2, length / 2, GRID), indexing="ij"
    )
    body = np.stack([along, -np.sin(turn) * -radius * -1, radius + np.cos(turn) * radius], -1).astype(np.float32)
    bend = _kink(parcel, length)
    patches = [Patch(_batter(body + bend(body), struck), skin.texture, skin.slope, 0.08)]
    cap = parcels_surface.blank(across, across, density, (232, 232, 230) if rng.random() < 0.6 else (40, 40, 44))
    spread, about = np.meshgrid(np.linspace(1, 0.02, 6), np.linspace(-np.pi, np.pi, 2 * GRID), indexing="ij")
    for end in (-1, 1):
        disc = np.stack(
            [
                np.full_like(spread, end * length / 2),
                end * np.sin(about) * radius * spread,
                radius + np.cos(about) * radius * spread,
            ],
            -1,
        ).astype(np.float32)
        patches.append(Patch(_batter(disc + bend(disc), struck), cap.texture, cap.slope, 0.3, closed=False))
    return patches


def _kink(parcel: Parcel, length: float) -> Callable[[Floats], Floats]:
    """How a crushed or dented tube bends in the middle."""
    amount = 0.0
    if parcel.damage is not None and parcel.damage.kind in {"crushed", "dented"}:
        amount = 0.3 * parcel.size[2] * (0.5 + parcel.damage.severity)

    def bend(points: Floats) -> Floats:
        drop = np.zeros_like(points)
        near = np.exp(-((points[..., 0] / (0.16 * length)) ** 2))
        drop[..., 1] = amount * near
        drop[..., 2] = -near * amount * 0.8 * np.clip(points[..., 2] / parcel.size[2], 0, 1)
        return drop

    return bend


def _batter(points: Floats, struck: list[Blow]) -> Floats:
    for blow in struck:
        points = blow.apply(points)
    points[..., 2] = np.maximum(points[..., 2], 0)
    return points


def _tote(parcel: Parcel, density: float, side: Floats) -> list[Patch]:
    """A plastic tote with sloping ribbed sides and a two-part lid."""
    rng = np.random.default_rng(parcel.seed)
    colour = [(46, 84, 150), (120, 126, 132), (170, 44, 40), (52, 120, 76), (66, 70, 76), (214, 170, 50)][
        rng.integers(6)
    ]
    struck, reached = _strike(parcel, side)
    patches = []
    for name, normal, right in FACES:
        points, height, width = _face(parcel.size, normal, right)
        skin = parcels_surface.blank(height, width, density, colour)
        face_rng = np.random.default_rng([parcel.seed, sum(name.encode())])
        _mould(face_rng, skin, lid=name == "top")
        if name == "top" and parcel.labelled:
            _label(face_rng, skin, parcel.ident, height, width, parcel.label_scale)
        _hurt_plastic(parcel, skin, name, reached)
        taper = 0.9 + 0.1 * points[..., 2:] / parcel.size[2]
        points = np.concatenate([points[..., :2] * taper, points[..., 2:]], -1).astype(np.float32)
        patches.append(Patch(_batter(points, struck), skin.texture, skin.slope, 0.35))
    return patches


def _mould(rng: np.random.Generator, skin: Skin, *, lid: bool) -> None:
    """Ribs, a rim and a grip moulded into plastic; the lid has a zigzag where its halves meet."""
    rows, columns = skin.shape
    heights = np.zeros((rows, columns), np.float32)
    pitch = max(4, round(0.06 * skin.density))
    thick = max(1, round(0.005 * skin.density))
    if lid:
        zigzag = np.array(
            [
                [column, rows // 2 + (thick * 3 if step % 2 else -thick * 3)]
                for step, column in enumerate(range(0, columns + pitch, pitch))
            ]
        )
        cv2.polylines(heights, [zigzag.astype(np.int32)], isClosed=False, color=-1.0, thickness=thick)
        cv2.rectangle(heights, (thick * 3, thick * 3), (columns - thick * 3, rows - thick * 3), 1.0, thick)
    else:
        for column in range(pitch // 2, columns, pitch):
            cv2.line(heights, (column, rows // 4), (column, rows), 1.0, thick)
        cv2.rectangle(heights, (0, 0), (columns, max(2, rows // 7)), 1.0, -1)
    skin.slope += parcels_surface.slopes(cv2.GaussianBlur(heights, (0, 0), max(0.8, thick / 2)), 1.6)
    dark = np.clip(-heights, 0, 1)
    parcels_surface.blend(skin, dark, (20, 20, 22), 0.6)
    parcels_surface.wear(rng, skin, 0.6)


def _hurt_plastic(parcel: Parcel, skin: Skin, face: str, reached: set[str]) -> None:
    """Plastic does not soak or peel: it cracks and loses chunks."""
    if parcel.damage is not None and face in reached:
        rng = np.random.default_rng([parcel.damage.seed, sum(face.encode())])
        parcels_damage.tear(rng, skin, parcel.damage.severity)


_BUILDERS: dict[str, Callable[[Parcel, float, Floats], list[Patch]]] = {
    "carton": _carton,
    "bag": _bag,
    "tube": _tube,
    "tote": _tote,
}


# ---- close-ups -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CloseUp:
    """A picture of one parcel: RGB uint8 [size, size, 3], its box in pixels (unclipped) and the parcel."""

    image: Pixels
    box: tuple[float, float, float, float]
    parcel: Parcel


def close_up(parcel: Parcel, view_seed: int, size: int, background: Pixels | None = None) -> CloseUp:
    """A square picture of a parcel; the view, light and ground follow from `view_seed` alone."""
    rng = np.random.default_rng(view_seed)
    turn, rise = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(12, 72))
    away = rng.uniform(0.8, 2.4)
    target = np.array([0, 0, parcel.size[2] * 0.45], np.float32)
    eye = target + away * np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)], np.float32)
    side = unit(np.array([eye[0], eye[1], 0], np.float32))
    camera = _framed(rng, parcel, Camera(eye, target, float(size), (size, size)))
    patches = build(parcel, 1.25 * camera.focal / away, side)
    light = random_light(rng)
    scene = background if background is not None else ground(rng, camera)
    return CloseUp(*_expose(rng, scene, patches, camera, light), parcel)


def _framed(rng: np.random.Generator, parcel: Parcel, camera: Camera) -> Camera:
    """The camera with its focal length and aim set so that the box fills 55 to 105 % of the picture."""
    points, _, _ = zip(*(_face(parcel.size, normal, right) for _, normal, right in FACES), strict=True)
    at = camera.project(np.concatenate(points))[0].reshape(-1, 2)
    span = float((at.max(0) - at.min(0)).max())
    focal = camera.focal * camera.size[0] * rng.uniform(0.55, 1.05) / span
    shift = rng.normal(0, 0.04, 3).astype(np.float32) * min(parcel.size)
    return Camera(camera.eye, camera.target + shift, focal, camera.size)


def _expose(
    rng: np.random.Generator, scene: Pixels, patches: list[Patch], camera: Camera, light: Light
) -> tuple[Pixels, tuple[float, float, float, float]]:
    dark = shadow(patches, camera, light, camera.size[0] * rng.uniform(0.008, 0.05)) * rng.uniform(0.25, 0.8)
    layer = render(patches, camera, light)
    base = scene * (1 - dark[..., None])
    image = base * (1 - layer[..., 3:]) + layer[..., :3]
    return photograph(rng, image), extent(patches, camera)


def random_light(rng: np.random.Generator) -> Light:
    """Any daylight or lamp."""
    turn, rise = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(25, 80))
    direction = np.array([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)], np.float32)
    warm = rng.normal(0, 0.05)
    return Light(direction, rng.uniform(0.15, 0.85), rng.uniform(0.35, 0.75), (1 + warm, 1.0, 1 - warm))


def photograph(rng: np.random.Generator, image: Floats, strength: float = 1.0) -> Pixels:
    """What a camera makes of a scene: exposure, vignette, blur, shake, noise."""
    height, width = image.shape[:2]
    exposed = image * np.exp(rng.normal(0, 0.14) * strength)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    exposed = exposed * (1 - rng.uniform(0, 0.22) * strength * (x**2 + y**2)[..., None] / 2)
    if rng.random() < 0.4 * strength:
        exposed = cv2.GaussianBlur(exposed.astype(np.float32), (0, 0), rng.uniform(0.3, 1.1) * width / 192)
    if rng.random() < 0.25 * strength:
        exposed = motion_blur(exposed, rng.uniform(1, 4) * width / 192, rng.uniform(0, 180))
    grain = rng.normal(0, 1, (height, width, 3)) + rng.normal(0, 0.6, (height, width, 1))
    exposed = exposed + grain * np.sqrt(np.maximum(exposed, 0) / 255 + 0.1) * rng.uniform(0.5, 6) * strength
    return as_pixels(exposed)


def motion_blur(image: Floats, length: float, angle: float) -> Floats:
    """Blur along a line of `length` pixels."""
    side = max(3, int(length) * 2 + 1)
    kernel = np.zeros((side, side), np.float32)
    reach = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))]) * length / 2
    start, end = side // 2 - reach, side // 2 + reach
    cv2.line(
        kernel,
        tuple(np.round(start).astype(int).tolist()),
        tuple(np.round(end).astype(int).tolist()),
        1.0,
        1,
        cv2.LINE_AA,
    )
    return np.asarray(cv2.filter2D(image.astype(np.float32), -1, kernel / kernel.sum()))


def ground(rng: np.random.Generator, camera: Camera) -> Pixels:
    """A floor, table, carpet, doorstep, lawn or studio sweep, in perspective, with the wall or clutter behind it."""
    tile = GROUNDS[rng.integers(len(GROUNDS))](rng)
    scale = rng.uniform(0.0018, 0.006)  # metres a texel
    rows, columns = tile.shape[:2]
    to_ground = np.array([[scale, 0, -scale * columns / 2], [0, scale, -scale * rows / 2], [0, 0, 1]], np.float64)
    floor = cv2.warpPerspective(
        tile,
        camera.ground().astype(np.float64) @ to_ground,
        camera.size[::-1],
        flags=cv2.INTER_AREA | cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return _backdrop(rng, as_pixels(floor), camera)


def _backdrop(rng: np.random.Generator, floor: Pixels, camera: Camera) -> Pixels:
    """A wall above a horizon, and blurred boxes standing about."""
    height, width = camera.size
    scene = floor
    if rng.random() < 0.45:
        horizon = int(height * rng.uniform(-0.1, 0.45))
        wall = cv2.resize(GROUNDS[rng.integers(len(GROUNDS))](rng), (width, height))
        wall = cv2.GaussianBlur(wall, (0, 0), rng.uniform(0.6, 4))
        scene[: max(horizon, 0)] = wall[: max(horizon, 0)]
    if rng.random() < 0.5:
        clutter = scene.copy()
        for _ in range(rng.integers(1, 6)):
            corners = cv2.boxPoints(
                (
                    tuple(rng.uniform(-0.1, 1.1, 2) * width),
                    tuple(rng.uniform(0.1, 0.6, 2) * width),
                    float(rng.uniform(0, 90)),
                )
            )
            cv2.fillConvexPoly(
                clutter,
                corners.astype(np.int32),
                tuple(
                    (
                        np.array(_BROWNS[rng.integers(7)]) * rng.uniform(0.4, 1.1)
                        if rng.random() < 0.5
                        else rng.uniform(10, 240, 3)
                    )
                    .clip(0, 255)
                    .tolist()
                ),
                cv2.LINE_AA,
            )
        scene = as_pixels(cv2.GaussianBlur(clutter, (0, 0), rng.uniform(0.5, 5)))
    return scene


def _studio(rng: np.random.Generator) -> Pixels:
    base = rng.uniform(215, 255) if rng.random() < 0.7 else rng.uniform(10, 230)
    tint = rng.normal(0, 3, 3) if rng.random() < 0.7 else rng.normal(0, 40, 3)
    ramp = np.linspace(0, rng.uniform(-30, 10), 256)[:, None, None]
    return as_pixels(base + tint + ramp + np.zeros((256, 256, 3)))


def _concrete(rng: np.random.Generator) -> Pixels:
    grey = (
        rng.uniform(60, 200)
        + rng.normal(0, 6, 3)
        + parcels_surface.noise(rng, (384, 384), 4, 5)[..., None] * rng.uniform(4, 20)
    )
    return as_pixels(grey + rng.normal(0, 5, (384, 384, 1)))


def _carpet(rng: np.random.Generator) -> Pixels:
    base = rng.uniform(20, 200, 3) * rng.uniform(0.5, 1)
    speck = parcels_surface.noise(rng, (384, 384), 90, 2)[..., None] * rng.uniform(10, 45)
    return as_pixels(base + speck + rng.normal(0, rng.uniform(4, 16), (384, 384, 1)))


def _wood(rng: np.random.Generator) -> Pixels:
    base = np.array([(150, 108, 70), (196, 158, 116), (96, 64, 42), (214, 190, 158), (120, 112, 104)][rng.integers(5)])
    grain = cv2.resize(parcels_surface.noise(rng, (384, 24), 40, 3), (384, 384))[..., None]
    wood = base + grain * rng.uniform(6, 20) + parcels_surface.noise(rng, (384, 384), 3)[..., None] * 5
    plank = int(rng.integers(40, 130))
    for row in range(0, 384, plank):
        wood[row : row + plank] += rng.normal(0, 9)
        wood[row : row + 2] *= rng.uniform(0.3, 0.9)
    return as_pixels(wood)


def _paving(rng: np.random.Generator) -> Pixels:
    """Bricks, tiles or setts with joints."""
    base = np.array(
        [(150, 84, 64), (150, 148, 144), (190, 180, 164), (96, 96, 100), (222, 218, 210)][rng.integers(5)],
        np.float32,
    )
    field = np.zeros((384, 384, 3), np.float32) + base * rng.uniform(0.4, 1.2)
    step = int(rng.integers(26, 100))
    wide = int(step * rng.choice([1, 2]))
    for number, row in enumerate(range(0, 384, step)):
        for column in range(-(number % 2) * wide // 2, 384, wide):
            field[row + 2 : row + step, max(column + 2, 0) : max(column + wide, 0)] = base + rng.normal(0, 9)
    field += parcels_surface.noise(rng, (384, 384), 12, 4)[..., None] * rng.uniform(3, 14)
    return as_pixels(field)


def _lawn(rng: np.random.Generator) -> Pixels:
    """Grass, gravel, leaves: busy and sharp."""
    base = np.array([(86, 110, 56), (128, 118, 104), (110, 96, 60), (70, 74, 70)][rng.integers(4)])
    busy = parcels_surface.noise(rng, (384, 384), 40, 4)
    return as_pixels(base + busy[..., None] * rng.uniform(14, 45) + rng.normal(0, 10, (384, 384, 3)))


def _rollers(rng: np.random.Generator) -> Pixels:
    """A roller conveyor or a slatted belt."""
    pitch = rng.uniform(14, 44)
    wave = np.sin(np.arange(384) / pitch * 2 * np.pi)
    profile = np.clip(wave + rng.uniform(-0.2, 0.6), -1, 1)
    tone = rng.uniform(60, 170) + profile * rng.uniform(10, 60)
    field = np.repeat(tone[None], 384, 0)[..., None] + rng.normal(0, 4, (384, 384, 1)) + rng.normal(0, 4, 3)
    return as_pixels(field)


def _shelf(rng: np.random.Generator) -> Pixels:
    """Other boxes side by side: brown in front of brown."""
    field = np.zeros((384, 384, 3), np.float32)
    row = 0
    while row < 384:
        tall, column = int(rng.integers(40, 150)), 0
        while column < 384:
            wide = int(rng.integers(40, 180))
            field[row : row + tall, column : column + wide] = np.array(_BROWNS[rng.integers(7)]) * rng.uniform(
                0.5, 1.05
            )
            field[row : row + 3, column : column + wide] *= 0.4
            field[row : row + tall, column : column + 2] *= 0.4
            column += wide
        row += tall
    return as_pixels(field + parcels_surface.noise(rng, (384, 384), 10, 3)[..., None] * 5)


GROUNDS: tuple[Callable[[np.random.Generator], Pixels], ...] = (
    _studio,
    _studio,
    _concrete,
    _carpet,
    _wood,
    _paving,
    _lawn,
    _rollers,
    _shelf,
)
