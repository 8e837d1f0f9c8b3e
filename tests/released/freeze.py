"""Freeze the rooms that touch the results database as they are in a commit: the release that a rolling update meets.

    python tests/released/freeze.py COMMIT

writes `eyeline-<newest migration>.zip` beside this file; `tests/contract/test_results_release.py` runs every one that lies
here. At each release, freeze it and remove those that nobody updates from any more.
"""

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOMS = re.compile(r"src/(eyeline/(__init__|(core|stores|ops/audit|alerts|items|pipeline)/.*|ops/__init__)\.py)")
EPOCH = (1980, 1, 1, 0, 0, 0)


def frozen(commit: str) -> Path:
    """The archive, the same bytes for the same commit."""
    words = ["git", "archive", "--format=zip", commit, "src/eyeline"]
    told = subprocess.run(words, cwd=HERE.parents[1], check=True, capture_output=True)
    source = zipfile.ZipFile(io.BytesIO(told.stdout))
    names = {found[1]: name for name in source.namelist() if (found := ROOMS.fullmatch(name))}
    head = max(Path(name).name[:4] for name in names if "/migrations/versions/0" in name)
    archive = HERE / f"eyeline-{head}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(names):
            target.writestr(zipfile.ZipInfo(name, EPOCH), source.read(names[name]), zipfile.ZIP_DEFLATED)
    return archive


if __name__ == "__main__":
    print(frozen(sys.argv[1]))
