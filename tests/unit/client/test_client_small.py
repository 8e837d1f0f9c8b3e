"""The client's distribution is what it says: small, and of nobody else."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "clients/python"
#: What programs that only send pictures must not load.
LARGE = {"aiohttp", "cv2", "eyeline", "numpy", "onnxruntime", "PIL", "pydantic"}


def test_its_wheel_holds_the_package_and_asks_for_three_small_things(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 50_000
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (about,) = (packed.read(name).decode() for name in names if name.endswith("/METADATA"))
    assert set(re.findall(r"^Requires-Dist: ([a-z]+)", about, re.MULTILINE)) == {"anyio", "httpx", "msgspec"}
    there = {f"eyeline_client/{path.name}" for path in (FOLDER / "src/eyeline_client").glob("*.*")}
    assert {name for name in names if name.startswith("eyeline_client/")} == there
    assert any(name.endswith("/LICENSE") for name in names)


def test_importing_it_loads_nothing_large() -> None:
    code = f"import sys, eyeline_client; sys.exit(repr({LARGE!r} & set(sys.modules)) if {LARGE!r} & set(sys.modules) else 0)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=FOLDER / "src", capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
