"""The limit of this machine: decode, model and boxes in a tight loop on every core, with no service around them.

Run as a program (one process for each core, so that no lock of the interpreter lowers the limit); prints JSON.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from eyeline.core.settings import InferenceSettings
from eyeline.inference.bundles import load_bundle
from eyeline.inference.runtimes import choose, open_runtimes
from eyeline.ops.bench.images import load_images
from eyeline.pipeline import decoders, geometry
from eyeline.pipeline.decode import decode, probe


def main(bundle_path: str, folder: str, seconds: float) -> None:
    """Loop for `seconds` after a warm-up of a quarter of that; prints {"images", "seconds", "cpu_seconds"}."""
    bundle = load_bundle(Path(bundle_path))
    contract = bundle.contract
    (runtime,) = open_runtimes(bundle, replace(choose(bundle, InferenceSettings()), instances=1))
    images = load_images(Path(folder))
    tensor = np.zeros((1, *contract.input.shape), contract.input.dtype)

    def one(data: bytes) -> None:
        info = probe(data)
        decoded = decode(data, at_least=geometry.needed_size(contract.input, info.width, info.height))
        placement = geometry.place(decoded.pixels, contract.input, tensor[0], region=decoded.region)
        outputs = runtime.infer({contract.input.name: tensor})
        if contract.gives_boxes:
            decoders.detections(outputs, contract, placement, 0)
        else:
            decoders.classifications(outputs, contract, 0)

    _loop(one, images, seconds / 4)
    print(json.dumps(_loop(one, images, seconds)))


def _loop(one: object, images: list[bytes], seconds: float) -> dict[str, float]:
    assert callable(one)  # noqa: S101 - a function, handed over as it is
    count, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        one(images[count % len(images)])
        count += 1
    return {"images": count, "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
