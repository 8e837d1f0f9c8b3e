"""The service most teams start with, for comparison: one sync FastAPI process, base64 JSON, Pillow's full decode and resize,
the model inside the request. Nothing is queued, kept or batched. Run as a program, which ends when its input does.
"""

import base64
import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from PIL import Image

from eyeline.inference.bundles import load_bundle
from eyeline.pipeline import decoders
from eyeline.pipeline.geometry import Placement


def naive_app(bundle_path: Path) -> FastAPI:
    """POST /predict with {"image": base64} answers the decoded detections or classes."""
    bundle = load_bundle(bundle_path)
    contract = bundle.contract
    session = onnxruntime.InferenceSession(bundle.weights, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    height, width = contract.input.size
    mean, scale = np.array(contract.input.mean, np.float32), np.array(contract.input.scale, np.float32)
    app = FastAPI()

    @app.post("/predict")
    def predict(body: dict[str, Any]) -> dict[str, Any]:
        picture = Image.open(io.BytesIO(base64.b64decode(body["image"]))).convert("RGB")
        ratio = min(width / picture.width, height / picture.height)
        inner = (round(picture.width * ratio), round(picture.height * ratio))
        canvas = Image.new("RGB", (width, height), (114, 114, 114))
        canvas.paste(picture.resize(inner), (0, 0))
        pixels = np.asarray(canvas)
        if contract.input.color == "bgr":
            pixels = pixels[:, :, ::-1]
        if contract.input.dtype == "float32":
            pixels = (pixels.astype(np.float32) - mean) * scale
        if contract.input.layout == "nchw":
            pixels = pixels.transpose(2, 0, 1)
        answers = session.run(names, {contract.input.name: np.ascontiguousarray(pixels)[None]})
        outputs = dict(zip(names, answers, strict=True))
        if contract.task == "classification":
            return {"classes": [(label, score) for label, score, _ in decoders.classifications(outputs, contract, 0)]}
        placement = Placement(ratio, ratio, 0.0, 0.0, picture.width, picture.height)
        found = decoders.detections(outputs, contract, placement, 0)
        return {"boxes": found.boxes.tolist(), "scores": found.scores.tolist()}

    return app


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()  # whoever started it is gone then, however it died
    uvicorn.run(naive_app(Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
