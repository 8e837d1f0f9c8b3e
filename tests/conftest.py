"""What all tests share: markers by folder, the shared data, no settings from the developer's environment."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
LEVELS = {"unit", "contract", "e2e", "web", "chaos", "benchmark"}
#: What says where things are on this machine; everything else would be a setting.
KEPT = {"EYELINE_SHARED_DATA", "EYELINE_CHROMIUM"}

for _name in [name for name in os.environ if name.startswith("EYELINE_") and name not in KEPT]:
    del os.environ[_name]

# how long examples take says how busy the machine is, not whether the code is right
settings.register_profile("eyeline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("eyeline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        level = item.path.relative_to(ROOT / "tests").parts[0]
        if level in LEVELS:
            item.add_marker(getattr(pytest.mark, level))


def pytest_collection_finish() -> None:
    """What four thousand collected tests are made of stays for good: the collector need not walk over it again and again."""
    gc.collect()
    gc.freeze()


def shared_data_folder() -> Path:
    """Where the real images lie, whether they are there or not."""
    return Path(os.environ.get("EYELINE_SHARED_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images, videos and weights that are not part of the repository."""
    folder = shared_data_folder()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set EYELINE_SHARED_DATA to a folder that holds it")
    return folder
