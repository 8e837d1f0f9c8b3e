"""Results as data sets that train models: COCO and YOLO. What people corrected stands in the place of what models said.

Pictures are called `<id of the result>.jpg`; `eyeline export --images` fetches them beside. Failed results show nothing and
are left out.
"""

import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import msgspec

from eyeline.core.clock import isoformat
from eyeline.core.types import Classification, Detection, ImageInfo, Result
from eyeline.stores.results.review import shown

#: Annotations that wait for the end of the file stay in memory up to so many bytes; then they lie on the disk.
IN_MEMORY = 4_000_000
_CHUNK = 1 << 18


def said(result: Result) -> tuple[Sequence[Detection], Sequence[Classification]]:
    """What stands on the picture: the last word of a person, or what the models said."""
    if result.verdict is not None and result.verdict.kind == "rejected":
        return (), ()
    stands = shown(result, result.verdict)
    return stands.detections, stands.classifications


def labels_said(result: Result) -> list[str]:
    """The labels of all that stands on the picture."""
    detections, classifications = said(result)
    return sorted({each.label for each in detections} | {each.label for each in classifications})


def pictured(results: Sequence[Result]) -> Iterator[tuple[Result, ImageInfo]]:
    """Those with a picture that was looked at; it is there once, so what was answered aside is left out."""
    for result in results:
        image = None if result.aside or result.status != "completed" else result.image
        if image is not None and image.width and image.height:
            yield result, image


class _Numbers:
    """Label → number, in the order in which they come."""

    def __init__(self, first: int) -> None:
        self._first = first
        self.known: dict[str, int] = {}

    def __call__(self, label: str) -> int:
        return self.known.setdefault(label, len(self.known) + self._first)


class Coco:
    """One JSON object: images, annotations with boxes and, where there are masks, polygons; categories by their first use."""

    media_type, ending = "application/json", "coco.json"

    def __init__(self) -> None:
        self._begun = False
        self._images = self._annotations = 0
        self._category = _Numbers(1)
        self._later: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed with the export

    def rows(self, results: Sequence[Result]) -> bytes:
        """Images now; their annotations wait for the end."""
        written = [] if self._begun else [b'{"info":{"description":"Exported from Eyeline"},"images":[']
        self._begun = True
        for result, image in pictured(results):
            written += [b",\n" if self._images else b"\n", self._image(result, image)]
            for found in said(result)[0]:
                self._later.write((b",\n" if self._annotations else b"\n") + self._annotation(found))
        return b"".join(written)

    def end(self) -> Iterator[bytes]:
        """Annotations and categories."""
        yield b'\n],"annotations":['
        self._later.seek(0)
        while chunk := self._later.read(_CHUNK):
            yield chunk
        categories = [{"id": number, "name": label} for label, number in self._category.known.items()]
        yield b'\n],"categories":' + msgspec.json.encode(categories) + b"}\n"

    def close(self) -> None:
        """The file on the disk goes."""
        self._later.close()

    def _image(self, result: Result, image: ImageInfo) -> bytes:
        self._images += 1
        told: dict[str, Any] = {
            "id": self._images,
            "file_name": f"{result.id}.jpg",
            "width": image.width,
            "height": image.height,
            "date_captured": isoformat(result.captured_at),
            "result_id": result.id,
            "sha256": image.sha256,
            "site": result.site,
            "camera": result.camera,
            "ref": result.ref,
            "labels": [each.label for each in said(result)[1]],
            "verdict": result.verdict and result.verdict.kind,
        }
        return msgspec.json.encode(told)

    def _annotation(self, found: Detection) -> bytes:
        self._annotations += 1
        left, top, right, bottom = found.box
        mask: Mapping[str, Any] = found.attributes.get("mask", {})
        told: dict[str, Any] = {
            "id": self._annotations,
            "image_id": self._images,
            "category_id": self._category(found.label),
            "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
            "area": mask.get("area", round((right - left) * (bottom - top), 2)),
            "segmentation": mask.get("polygons", []),
            "iscrowd": 0,
            "score": found.score,
        }
        if found.attributes.get("mask_dropped"):
            told["mask_dropped"] = True  # it had an outline before a person drew the box anew
        return msgspec.json.encode(told)


class Yolo:
    """A tar: `labels/<id>.txt` with `class cx cy w h` as shares of the picture, and `data.yaml` at the end."""

    media_type, ending = "application/x-tar", "yolo.tar"

    def __init__(self) -> None:
        self._class = _Numbers(0)
        self._sink = io.BytesIO()
        self._tar = tarfile.open(mode="w|", fileobj=self._sink, bufsize=512)  # noqa: SIM115 - closed with the export

    def rows(self, results: Sequence[Result]) -> bytes:
        """A file for each picture, also where nothing is on it: it teaches what is none."""
        for result, image in pictured(results):
            lines = [f"{self._class(found.label)} {self._place(found, image)}\n" for found in said(result)[0]]
            self._file(f"labels/{result.id}.txt", "".join(lines), int(result.captured_at.timestamp()))
        return self._take()

    def end(self) -> Iterator[bytes]:
        """The classes."""
        names = "".join(f"  {number}: {json.dumps(label)}\n" for label, number in self._class.known.items())
        self._file("data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names or '  {}'}", 0)
        self._tar.close()
        yield self._take()

    def close(self) -> None:
        """Nothing is held but memory."""

    def _place(self, found: Detection, image: ImageInfo) -> str:
        left, top, right, bottom = found.box
        shares = (
            (left + right) / 2 / image.width,
            (top + bottom) / 2 / image.height,
            (right - left) / image.width,
            (bottom - top) / image.height,
        )
        return " ".join(f"{share:.6f}" for share in shares)

    def _file(self, name: str, text: str, at: int) -> None:
        data = text.encode()
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime = len(data), at
        self._tar.addfile(entry, io.BytesIO(data))
        self._tar.members.clear()  # type: ignore[attr-defined]  # it would remember every file

    def _take(self) -> bytes:
        data = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return data


class YoloMasks(Yolo):
    """The same with outlines, `class x y x y …`: a mask's largest polygon, or the box where there is no mask."""

    def _place(self, found: Detection, image: ImageInfo) -> str:
        left, top, right, bottom = found.box
        polygons = found.attributes.get("mask", {}).get("polygons", ())
        polygon = polygons[0] if polygons else (left, top, right, top, right, bottom, left, bottom)
        sides = (image.width, image.height)
        return " ".join(f"{value / sides[at % 2]:.6f}" for at, value in enumerate(polygon))
