"""The demo's clip of boards on a line: a strip of boards passes under the camera, some good, some with planted defects.

    python -m training.render.boards_clip FOLDER      writes boards.mp4 and boards.jsonl

One line of the truth is one frame: `{"frame": 3, "time": 0.3, "whole": "board-00", "boxes": [{"label", "box", "id"}]}`.
`whole` names the board that is wholly in the frame, or is null. A defect has the same `id` in every frame that shows it.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from training.render import boards

BOARDS, GOOD = 40, 3  # every third board is good
GAP, STEP, RATE = 60, 140, 10  # pixels between boards, pixels a frame, frames a second
PITCH = boards.SIZE + GAP
FIRST_SEED = 5_000_000


def line_of_boards() -> list[boards.Board]:
    """The boards in their order: each third one good, each fifth one grey."""
    return [
        boards.render(FIRST_SEED + i, "grey" if i % 5 == 4 else "binary", defects=0 if i % GOOD == 0 else 3 + i % 5)
        for i in range(BOARDS)
    ]


def frames(line: list[boards.Board]) -> Iterator[tuple[NDArray[np.uint8], dict[str, Any]]]:
    """Every frame with its truth. The strip is closed: the last frame leads back to the first."""
    strip = np.concatenate([np.pad(b.image, ((0, GAP), (0, 0)), constant_values=_bright(b.image)) for b in line])
    length = len(strip)
    for number in range(length // STEP):
        top = number * STEP
        rows = np.arange(top, top + boards.SIZE) % length
        whole, rest = divmod(top, PITCH)
        truth = {
            "frame": number,
            "time": round(number / RATE, 3),
            "whole": f"board-{whole:02d}" if rest == 0 else None,
            "boxes": _visible(line, top, length),
        }
        yield strip[rows], truth


def _bright(image: NDArray[np.uint8]) -> int:
    return int(np.percentile(image, 80))


def _visible(line: list[boards.Board], top: int, length: int) -> list[dict[str, Any]]:
    seen = []
    for i, board in enumerate(line):
        for j, defect in enumerate(board.defects):
            shift = (i * PITCH - top + boards.SIZE) % length - boards.SIZE
            x1, y1, x2, y2 = defect.box
            y1, y2 = y1 + shift, y2 + shift
            if defect.stroke[1] + shift >= 0 and defect.stroke[3] + shift <= boards.SIZE:
                box = [x1, max(y1, 0), x2, min(y2, boards.SIZE)]
                seen.append({"label": defect.label, "box": box, "id": f"board-{i:02d}/{j}"})
    return seen


def write(folder: Path) -> None:
    """Encode the clip (H.264, yuv420p) and write its truth beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with av.open(str(folder / "boards.mp4"), "w") as out, (folder / "boards.jsonl").open("w", encoding="utf-8") as told:
        stream = out.add_stream(
            "libx264", rate=RATE, options={"crf": "25", "preset": "slow", "g": "50", "bf": "0", "threads": "1"}
        )
        stream.width = stream.height = boards.SIZE
        stream.pix_fmt = "yuv420p"
        for image, truth in frames(line_of_boards()):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray").reformat(format="yuv420p")
            out.mux(stream.encode(picture))
            told.write(json.dumps(truth) + "\n")
        out.mux(stream.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
