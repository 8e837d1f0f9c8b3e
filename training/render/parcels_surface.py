"""What parcels wear: cardboard, plastic, print, tape, labels, barcodes and honest wear. Pictures are RGB uint8."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.render.parcels_mesh import Floats, Pixels, as_pixels

Colour = tuple[float, float, float]

#: Bar and space widths of Code 128, value 0 to 105, then stop (ISO/IEC 15417).
CODE128 = (  # noqa: SIM905  a table reads better than 107 quoted items
    "212222 222122 222221 121223 121322 131222 122213 122312 132212 221213 221312 231212 112232 122132 122231 113222 "
    "123122 123221 223211 221132 221231 213212 223112 312131 311222 321122 321221 312212 322112 322211 212123 212321 "
    "232121 111323 131123 131321 112313 132113 132311 211313 231113 231311 112133 112331 132131 113123 113321 133121 "
    "313121 211331 231131 213113 213311 213131 311123 311321 331121 312113 312311 332111 314111 221411 431111 111224 "
    "111422 121124 121421 141122 141221 112214 112412 122114 122411 142112 142211 241211 221114 413111 241112 134111 "
    "111242 121142 121241 114212 124112 124211 411212 421112 421211 212141 214121 412121 111143 111341 131141 114113 "
    "114311 411113 411311 113141 114131 311141 411131 211412 211214 211232 2331112"
).split()
START_C = 105

WORDS = ("FRAGILE", "THIS SIDE UP", "HANDLE WITH CARE", "NORTHWIND", "Kraft & Co", "ecobox", "PARTS", "50x40x30", "Lumen",
         "LOT 27", "Mira", "TOP", "do not bend", "QTY 12", "Harbour", "Orbit Tools", "PRIORITY", "heavy",
         "Fresh Daily", "Vela")  # fmt: skip
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_COMPLEX_SMALL,
)


@dataclass
class Skin:
    """One face while it is dressed: colour, slope (bump) and how many texels make a metre."""

    texture: Pixels
    slope: Floats
    density: float
    cut: Pixels | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.texture.shape[0], self.texture.shape[1]


def blank(height: float, width: float, density: float, colour: Colour) -> Skin:
    """A face of `height` × `width` metres in one colour."""
    rows, columns = max(round(height * density), 8), max(round(width * density), 8)
    texture = np.full((rows, columns, 3), np.array(colour), np.float32).astype(np.uint8)
    return Skin(texture, np.zeros((rows, columns, 2), np.float32), density)


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: float, octaves: int = 3) -> Floats:
    """Smooth noise around 0 (about ±1), its coarsest blobs a `cells`-th of the longer side."""
    total = np.zeros(shape, np.float32)
    longest = max(shape)
    for octave in range(octaves):
        step = longest / (cells * 2**octave)
        grid = (max(2, round(shape[0] / step) + 1), max(2, round(shape[1] / step) + 1))
        layer = rng.normal(0, 0.5**octave, grid).astype(np.float32)
        total += cv2.resize(layer, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return total * 0.8


def slopes(heights: Floats, strength: float) -> Floats:
    """The slope (u, v) of a height picture."""
    down, along = np.gradient(heights)
    return np.stack([along, down], -1).astype(np.float32) * strength


def cardboard(
    rng: np.random.Generator, height: float, width: float, density: float, colour: Colour, ribs: bool
) -> Skin:
    """Corrugated board: mottled, fibrous, with the ribs just visible and the folded edges worn lighter or darker."""
    skin = blank(height, width, density, colour)
    shape = skin.shape
    mottle = noise(rng, shape, rng.uniform(2, 9)) * rng.uniform(1, 4) + rng.normal(0, rng.uniform(0.5, 4), shape)
    if ribs:
        pitch = rng.uniform(0.005, 0.009) * density
        wave = np.sin(np.arange(shape[1]) / pitch * 2 * np.pi)[None] * rng.uniform(0.3, 2.5)
        mottle = mottle + (wave if rng.random() < 0.5 else cv2.resize(wave.T, shape[::-1]))
    _add(skin, mottle)
    skin.slope += slopes(noise(rng, shape, 5, 4), rng.uniform(0, 0.5))
    edge = _edge_distance(shape) / density
    _add(skin, np.exp(-edge / 0.002) * rng.uniform(-22, 26))
    return skin


def _add(skin: Skin, grey: NDArray[np.floating]) -> None:
    skin.texture[:] = np.clip(skin.texture + np.asarray(grey, np.float32)[..., None], 0, 255)


def _edge_distance(shape: tuple[int, int]) -> Floats:
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    near = np.minimum(np.minimum(rows, rows[::-1])[:, None], np.minimum(columns, columns[::-1])[None])
    return near.astype(np.float32)


def blend(skin: Skin, mask: Floats, colour: Pixels | Colour, opacity: float = 1.0) -> None:
    """Lays a colour (or picture of the skin's size) over the skin where `mask` 0..1 says."""
    alpha = (mask * opacity)[..., None]
    skin.texture[:] = skin.texture * (1 - alpha) + np.asarray(colour, np.float32) * alpha


def stamp(
    skin: Skin,
    picture: Pixels,
    centre: tuple[float, float],
    size: tuple[float, float],
    angle: float,
    opacity: float = 1.0,
) -> None:
    """Lays `picture` on the skin: centre (x, y) and size (width, height) in metres, angle in degrees."""
    matrix = _placement(picture.shape[:2], np.array(centre) * skin.density, np.array(size) * skin.density, angle)
    target = skin.shape[::-1]
    shrink = size[0] * skin.density / picture.shape[1]
    if shrink < 0.5:
        picture = as_pixels(cv2.resize(picture, None, fx=shrink * 1.5, fy=shrink * 1.5, interpolation=cv2.INTER_AREA))
        matrix = _placement(picture.shape[:2], np.array(centre) * skin.density, np.array(size) * skin.density, angle)
    placed = cv2.warpAffine(picture, matrix, target, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(np.ones(picture.shape[:2], np.float32), matrix, target, flags=cv2.INTER_LINEAR)
    blend(skin, mask, as_pixels(placed), opacity)
    skin.slope *= 1 - 0.6 * mask[..., None]


def _placement(
    shape: tuple[int, ...], centre: NDArray[np.floating], size: NDArray[np.floating], angle: float
) -> Floats:
    """The affine map from picture pixels to texels."""
    turn = np.deg2rad(angle)
    along = np.array([np.cos(turn), np.sin(turn)]) * size[0] / shape[1]
    down = np.array([-np.sin(turn), np.cos(turn)]) * size[1] / shape[0]
    start = centre - along * shape[1] / 2 - down * shape[0] / 2
    return np.stack([along, down, start], 1).astype(np.float32)


def code128(digits: str) -> Pixels:
    """A Code 128 C symbol of an even number of digits: one row of modules, 0 black or 255, with quiet zones.

    Raises:
        ValueError: the text is not an even number of digits.
    """
    if len(digits) % 2 or not digits.isdigit():
        raise ValueError(f"Code 128 C holds an even number of digits, not {digits!r}; pad with a leading 0")
    values = [START_C, *(int(digits[at : at + 2]) for at in range(0, len(digits), 2))]
    check = (values[0] + sum(place * value for place, value in enumerate(values[1:], 1))) % 103
    widths = "".join(CODE128[value] for value in [*values, check, 106])
    modules = [255] * 10
    for place, width in enumerate(widths):
        modules += [0 if place % 2 == 0 else 255] * int(width)
    return np.array([modules + [255] * 10], np.uint8)


def qr(text: str) -> Pixels:
    """A QR code, one pixel a module, with four modules of quiet zone, [n, n] 0 or 255."""
    drawn = np.asarray(cv2.QRCodeEncoder.create().encode(text), np.uint8)
    rows, columns = np.flatnonzero((drawn < 128).any(1)), np.flatnonzero((drawn < 128).any(0))
    drawn = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(drawn, 4, constant_values=255)


def shipping_label(rng: np.random.Generator, ident: str, linear: bool = True) -> Pixels:
    """A shipping label, 3:2: sender and receiver as lines, a QR code and (if `linear`) a Code 128 of `ident`."""
    label = np.full((400, 600, 3), rng.integers(236, 252), np.uint8)
    square = cv2.resize(qr(ident), (319, 319), interpolation=cv2.INTER_NEAREST)  # 11 pixels a module of version 1
    left = 275 if rng.random() < 0.5 else 6
    label[4:323, left : left + 319] = square[..., None]
    text_left = 14 if left > 100 else 336
    for line in range(4):
        word = "".join(rng.choice(list("abcdefghilmnoprstuv ")) for _ in range(rng.integers(6, 12)))
        cv2.putText(label, word, (text_left, 40 + 34 * line), FONTS[line % 2], 0.75, (25, 25, 30), 2, cv2.LINE_AA)
    cv2.rectangle(label, (text_left, 190), (text_left + 190, 300), (20, 20, 20), 3)
    cv2.putText(label, ident[-3:], (text_left + 25, 272), FONTS[1], 2.2, (15, 15, 15), 5, cv2.LINE_AA)
    if linear:
        bars = code128(ident)
        label[322:394, 6:594] = cv2.resize(bars, (588, 72), interpolation=cv2.INTER_NEAREST)[..., None]
    cv2.rectangle(label, (0, 0), (599, 399), (200, 200, 200), 1)
    return label


def tape(
    rng: np.random.Generator, skin: Skin, *, across: bool, at: float, half: float, reach: float | None = None
) -> None:
    """A strip of tape: along u at height `at` (metres), or across; `reach` is how far it comes from both ends."""
    rows, columns = skin.shape
    grid = np.arange(rows)[:, None] if not across else np.arange(columns)[None]
    rough = rng.normal(0, 0.4, (1, columns) if not across else (rows, 1))
    mask = np.broadcast_to(np.abs(grid - at * skin.density + rough) < half * skin.density, (rows, columns)).astype(
        np.float32
    )
    if reach is not None:
        other = np.arange(columns)[None] if not across else np.arange(rows)[:, None]
        length = columns if not across else rows
        mask = mask * (np.minimum(other, length - other) < reach * skin.density)
    colour, opacity = _TAPES[rng.integers(len(_TAPES))]
    blend(skin, mask, colour, opacity * rng.uniform(0.8, 1.0))
    creases = slopes(noise(rng, skin.shape, 24, 2), rng.uniform(0.2, 2.5)) * mask[..., None]
    skin.slope += creases
    if rng.random() < 0.25:
        _printed_tape(rng, skin, mask, across=across)


_TAPES: tuple[tuple[Colour, float], ...] = (
    ((214, 190, 150), 0.30), ((235, 230, 218), 0.35), ((150, 104, 58), 0.75), ((120, 84, 48), 0.6), ((236, 234, 226), 0.92),
    ((228, 214, 186), 0.7), ((34, 36, 40), 0.95), ((200, 40, 36), 0.9), ((60, 70, 96), 0.9), ((222, 178, 40), 0.85),
)  # fmt: skip


def _printed_tape(rng: np.random.Generator, skin: Skin, mask: Floats, *, across: bool) -> None:
    picture = skin.texture.copy()
    ink = tuple(int(value) for value in rng.integers(0, 200, 3))
    word, font = str(rng.choice(WORDS)), int(rng.choice(FONTS))
    target = picture if not across else np.ascontiguousarray(picture.transpose(1, 0, 2))
    inner = mask if not across else mask.T
    row = int(np.flatnonzero(inner.any(1)).mean()) if inner.any() else 0
    scale = max(float(inner.any(1).sum()) / 34, 0.2)
    for column in range(0, target.shape[1], max(int(19 * scale * len(word)), 20)):
        cv2.putText(
            target,
            word,
            (column, row + int(9 * scale)),
            font,
            scale * 0.8,
            ink,
            max(1, round(scale * 2)),
            cv2.LINE_AA,
        )
    skin.texture[:] = np.where(mask[..., None] > 0.5, target if not across else target.transpose(1, 0, 2), skin.texture)


def print_marks(rng: np.random.Generator, skin: Skin, ink: Colour, count: int) -> None:
    """Printed words, arrows, signs and blobs in one ink; they are dark like holes and must not be taken for them."""
    for _ in range(count):
        mark = _mark(rng)
        size = rng.uniform(0.1, 0.6) * min(skin.shape) / skin.density
        centre = rng.uniform(0.15, 0.85, 2) * np.array(skin.shape[::-1]) / skin.density
        coloured = np.broadcast_to(np.array(ink, np.float32), (*mark.shape, 3))
        width = size * mark.shape[1] / mark.shape[0] if mark.shape[0] >= mark.shape[1] else size
        height = width * mark.shape[0] / mark.shape[1]
        _ink(
            skin,
            mark,
            coloured,
            (centre[0], centre[1]),
            (width, height),
            float(rng.choice([0, 0, 0, 90, 180, 270]) + rng.normal(0, 1)),
        )


def _ink(
    skin: Skin,
    mark: Floats,
    colour: Floats,
    centre: tuple[float, float],
    size: tuple[float, float],
    angle: float,
) -> None:
    matrix = _placement(mark.shape, np.array(centre) * skin.density, np.array(size) * skin.density, angle)
    mask = cv2.warpAffine(mark.astype(np.float32), matrix, skin.shape[::-1], flags=cv2.INTER_AREA)
    blend(skin, mask, tuple(colour[0, 0].tolist()), 0.88)


def _mark(rng: np.random.Generator) -> Floats:
    """A mask 0..1 of a word, an arrow, a ring, a disc, a glass, a frame or a pattern of bars."""
    kind = rng.integers(9)
    mark = np.zeros((96, 96), np.uint8)
    if kind <= 2:
        word, font = str(rng.choice(WORDS)), int(rng.choice(FONTS))
        mark = np.zeros((48, 24 * len(word) + 16), np.uint8)
        cv2.putText(mark, word, (8, 36), font, 1.1, 255, int(rng.integers(2, 5)), cv2.LINE_AA)
    elif kind == 3:
        cv2.arrowedLine(mark, (30, 88), (30, 10), 255, 7, tipLength=0.35)
        cv2.arrowedLine(mark, (66, 88), (66, 10), 255, 7, tipLength=0.35)
        cv2.line(mark, (10, 92), (86, 92), 255, 6)
    elif kind == 4:
        cv2.circle(mark, (48, 48), 40, 255, int(rng.choice([4, 10, -1])), cv2.LINE_AA)
    elif kind == 5:
        cv2.fillPoly(mark, [np.array([[24, 8], [72, 8], [60, 50], [36, 50]])], 255)
        cv2.line(mark, (48, 50), (48, 86), 255, 6)
        cv2.line(mark, (30, 88), (66, 88), 255, 6)
    elif kind == 6:
        cv2.ellipse(mark, (48, 30), (42, 46), 0, 25, 155, 255, 9, cv2.LINE_AA)
    elif kind == 7:
        mark[:, :: int(rng.integers(5, 12))] = 255
        mark = as_pixels(cv2.dilate(mark, np.ones((1, 3))))
    else:
        cv2.rectangle(mark, (6, 6), (90, 90), 255, int(rng.choice([3, 8, -1])))
    return mark.astype(np.float32) / 255


def artwork(rng: np.random.Generator, skin: Skin) -> None:
    """A printed product box: blocks, bands, discs, gradients and words in a few bright colours."""
    rows, columns = skin.shape
    palette = rng.integers(0, 256, (4, 3))
    for _ in range(rng.integers(1, 6)):
        layer = np.zeros((rows, columns), np.float32)
        a, b = rng.uniform(-0.1, 1.1, (2, 2)) * np.array([columns, rows])
        form = rng.integers(4)
        if form == 0:
            cv2.rectangle(layer, tuple(a.astype(int).tolist()), tuple(b.astype(int).tolist()), 1.0, -1)
        elif form == 1:
            cv2.circle(
                layer,
                tuple(a.astype(int).tolist()),
                int(rng.uniform(0.1, 0.5) * min(rows, columns)),
                1.0,
                -1,
                cv2.LINE_AA,
            )
        elif form == 2:
            cv2.fillPoly(
                layer,
                [(rng.uniform(-0.2, 1.2, (int(rng.integers(3, 6)), 2)) * [columns, rows]).astype(np.int32)],
                1.0,
            )
        else:
            layer = np.clip(np.linspace(-0.5, 1, columns, dtype=np.float32), 0, 1)[None].repeat(rows, 0)
        blend(skin, layer, tuple(palette[rng.integers(4)].tolist()), rng.uniform(0.6, 1))
    print_marks(rng, skin, tuple(palette[rng.integers(4)].tolist()), int(rng.integers(1, 4)))


def pouch(rng: np.random.Generator, skin: Skin, centre: tuple[float, float], size: tuple[float, float]) -> None:
    """A packing-list pouch: a coloured border round a crumpled, shiny window. Wear, not damage."""
    border = np.array([(214, 60, 30), (235, 120, 30), (240, 240, 236)][rng.integers(3)])
    picture = np.full((120, 180, 3), border, np.uint8)
    picture[16:-16, 14:-14] = np.array((226, 222, 214)) if rng.random() < 0.6 else skin.texture.mean((0, 1))
    for line in range(rng.integers(0, 6)):
        cv2.line(picture, (26, 34 + 12 * line), (60 + int(rng.integers(0, 80)), 34 + 12 * line), (60, 60, 70), 2)
    before = skin.texture.astype(np.int16)
    stamp(skin, picture, centre, size, float(rng.normal(0, 4)))
    covered = cv2.blur((np.abs(skin.texture - before).max(-1) > 3).astype(np.float32), (5, 5))
    skin.slope += slopes(np.abs(noise(rng, skin.shape, 14, 3)), rng.uniform(1, 5)) * covered[..., None]


def wear(rng: np.random.Generator, skin: Skin, amount: float) -> None:
    """Scuffs, dirt, faint creases and rubbed edges that every delivered parcel has; none of it is damage."""
    rows, columns = skin.shape
    for _ in range(rng.poisson(5 * amount)):
        layer = np.zeros((rows, columns), np.float32)
        start = rng.uniform(0, 1, 2) * [columns, rows]
        end = start + rng.normal(0, 0.12, 2) * max(rows, columns)
        thick = max(1, round(rng.uniform(0.001, 0.005) * skin.density))
        cv2.line(layer, tuple(start.astype(int).tolist()), tuple(end.astype(int).tolist()), 1.0, thick, cv2.LINE_AA)
        blend(
            skin,
            cv2.GaussianBlur(layer, (0, 0), max(thick * 0.7, 0.6)),
            (215, 200, 180) if rng.random() < 0.5 else (70, 60, 55),
            rng.uniform(0.08, 0.4) * amount,
        )
    if rng.random() < 0.5 * amount:  # grime and stock stains: soft, faint
        _add(skin, -np.clip(noise(rng, skin.shape, 3) - 0.3, 0, 1) * rng.uniform(4, 20))
    edge = _edge_distance(skin.shape) / skin.density
    rubbed = np.clip(noise(rng, skin.shape, 12) + 0.2, 0, 1) * np.exp(-edge / rng.uniform(0.003, 0.009))
    blend(skin, rubbed.astype(np.float32), (206, 182, 150), rng.uniform(0, 0.5) * amount)
    skin.slope += slopes(noise(rng, skin.shape, rng.uniform(2, 6), 2), rng.uniform(0, 1.2) * amount)


def flap_seam(rng: np.random.Generator, skin: Skin, *, across: bool) -> None:
    """Where two flaps meet: a thin dark line with light lips."""
    rows, columns = skin.shape
    middle = (columns if across else rows) / 2 + rng.normal(0, 0.004) * skin.density
    grid = np.arange(columns)[None] if across else np.arange(rows)[:, None]
    gap = rng.uniform(0.0008, 0.003) * skin.density
    distance = np.broadcast_to(np.abs(grid - middle), (rows, columns)).astype(np.float32)
    blend(skin, np.exp(-((distance / (gap * 2.5)) ** 2)), (205, 176, 140), rng.uniform(0, 0.4))
    blend(skin, np.exp(-((distance / gap) ** 2)), (48, 34, 24), rng.uniform(0.4, 0.95))


def hand_hole(rng: np.random.Generator, skin: Skin) -> None:
    """An oval grip cut by the maker: dark, but clean-edged."""
    rows, columns = skin.shape
    layer = np.zeros((rows, columns), np.float32)
    axes = (max(3, round(0.042 * skin.density)), max(2, round(0.015 * skin.density)))
    cv2.ellipse(layer, (columns // 2, int(rows * rng.uniform(0.22, 0.4))), axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    blend(skin, layer, (26, 20, 16), 0.95)
