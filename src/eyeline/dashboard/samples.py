"""The bundled clips as single pictures, for a first look without a camera."""

import asyncio
from importlib.resources import files
from pathlib import Path

import cv2
from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.errors import NotFound
from eyeline.core.settings import Settings
from eyeline.core.telemetry import printable

CLIPS = Path(str(files("eyeline") / "bundled" / "clips"))
#: Clip → the pipeline that it is made for.
PIPELINES = {"outbound": "parcels", "boards": "pcb-defects"}
#: Pictures of a clip's second; after its end it begins anew.
EVERY_SECOND = 2.0
QUALITY = 85


def samples(settings: Settings) -> dict[str, str]:
    """The clips that this installation can look at, with their pipelines."""
    there = {pipeline.name for pipeline in settings.pipelines}
    return {
        clip: pipeline
        for clip, pipeline in PIPELINES.items()
        if pipeline in there and (CLIPS / f"{clip}.mp4").is_file()
    }


async def serve(request: Request) -> Response:
    """GET /samples/{clip}/{number}: one picture, as a camera would send it."""
    clip, number = str(request.path_params["clip"]), int(request.path_params["number"])
    if clip not in PIPELINES:
        raise NotFound(f"no sample is called {printable(clip, 40)!r}; there are: {', '.join(PIPELINES)}")
    picture = await asyncio.to_thread(_picture, clip, number)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(picture, headers=headers, media_type="image/jpeg")


def _picture(clip: str, number: int) -> bytes:
    """Some milliseconds for a picture, so that the first one is there at once and nothing is kept."""
    video = cv2.VideoCapture(str(CLIPS / f"{clip}.mp4"))
    try:
        frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) or 1
        step = max(1, round(video.get(cv2.CAP_PROP_FPS) / EVERY_SECOND))
        video.set(cv2.CAP_PROP_POS_FRAMES, number * step % frames)
        there, frame = video.read()
        if not there:
            raise NotFound(f"the sample {clip!r} has no picture {number}; begin with 0")
        return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    finally:
        video.release()
