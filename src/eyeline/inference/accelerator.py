"""How busy the accelerators of this machine are, from NVIDIA's management library; nothing where there is none."""

import asyncio
from typing import Any

from eyeline.core.telemetry import UTILISATION, logger

log = logger("inference")
PAUSE = 2.0


async def watch_utilisation() -> None:
    """Keep the gauge of each device's utilisation (0..1) until cancelled; return at once without a device.

    Where there is no driver or no `nvidia-ml-py` the gauge never appears, and the service levels say "not measured".
    """
    library = await asyncio.to_thread(nvidia)
    if library is None:
        return
    while True:
        for device, share in enumerate(await asyncio.to_thread(_shares, library)):
            UTILISATION.labels(str(device)).set(share)
        await asyncio.sleep(PAUSE)


def nvidia() -> Any | None:
    """NVIDIA's management library, begun; None where it, the driver or a device is missing."""
    try:
        import pynvml  # noqa: PLC0415 - an extra: pip install 'eyeline[gpu]'
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.info("no accelerator is measured", reason=str(error))
        return None
    return pynvml if pynvml.nvmlDeviceGetCount() else None


def _shares(library: Any) -> list[float]:
    handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
    return [library.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for handle in handles]
