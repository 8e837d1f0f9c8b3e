"""What the commands send."""

from pathlib import Path

import pytest

from eyeline.core.errors import InputError
from eyeline.ops.bench.images import unique
from eyeline.ops.submit import image_files
from eyeline.pipeline.decode import decode
from tests.pictures import jpeg


def test_folders_are_searched_for_pictures_and_named_files_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.jpg", "a/2.PNG", "a/notes.txt", "raw.bin"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in image_files([tmp_path / "a", tmp_path / "raw.bin"])] == ["1.jpg", "2.PNG", "raw.bin"]


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file or folder at"):
        image_files([tmp_path / "none.jpg"])


def test_a_unique_copy_has_other_bytes_and_the_same_pixels() -> None:
    original, copy = jpeg(), unique(jpeg(), 7)
    assert original != copy
    assert (decode(original).pixels == decode(copy).pixels).all()
