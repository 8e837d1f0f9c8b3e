"""Put on the path as `sitecustomize`: the time of day is off by what the file in CHAOS_CLOCK says. Nothing else changes.

The two clocks that Eyeline reads are replaced before anybody takes them by name; what counts seconds (monotonic, boot time)
is left alone, as it is when somebody sets a machine's clock.
"""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

_time = time.time
_read = [0.0, 0.0]  # when the file was read last, and what it said


def _jumped() -> float:
    now = time.monotonic()
    if now - _read[0] > 0.1:
        _read[:] = [now, float(Path(os.environ["CHAOS_CLOCK"]).read_text() or 0)]
    return _time() + _read[1]


if "CHAOS_CLOCK" in os.environ:
    from eyeline.core import clock

    time.time = _jumped
    clock.utcnow = lambda: datetime.fromtimestamp(_jumped(), UTC)
