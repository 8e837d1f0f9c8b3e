"""The built wheel holds what the folder holds: models, clips and migrations too, and stays small."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_holds_every_file_of_the_package_and_is_under_45_megabytes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 45_000_000
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("eyeline/")}
    package = ROOT / "src" / "eyeline"
    there = {
        f"eyeline/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there
    assert any(name.endswith("clips/inbound.mp4") for name in packed)
    assert any(name.endswith("pcb-defects/weights.onnx") for name in packed)
