"""The bundled clips as single pictures, each with a rule, for a first look and a first alert without a camera."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from eyeline.core.errors import Conflict, NotFound
from eyeline.core.pages import principal_of
from eyeline.core.rulebook import Rulebook
from eyeline.core.settings import Settings
from eyeline.core.telemetry import printable

CLIPS = Path(str(files("eyeline") / "bundled" / "clips"))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A clip, the pipeline that it is made for, and a rule that its pictures meet. `begins`: the picture to begin with,
    shortly before there is something to find.
    """

    clip: str
    pipeline: str
    begins: int = 0
    rule: Mapping[str, object]


#: Of several that an installation can look at, the first is shown.
SAMPLES = {
    sample.clip: sample
    for sample in (
        Sample(
            clip="outbound",
            pipeline="parcels",
            begins=24,
            rule={
                "name": "damaged parcel (sample)",
                "when": "pipeline == 'parcels' and label == 'damaged' and score >= 0.9",
                "count": 3,
                "within": "10s",
                "severity": "critical",
            },
        ),
        Sample(
            clip="boards",
            pipeline="pcb-defects",
            rule={
                "name": "board defect (sample)",
                "when": "pipeline == 'pcb-defects' and score >= 0.6",
                "by": ["site"],
                "severity": "critical",
            },
        ),
    )
}
#: Pictures of a clip's second; after its end it begins anew.
EVERY_SECOND = 2.0
QUALITY = 85


def sample_for(settings: Settings) -> Sample | None:
    """What this installation can look at."""
    there = {pipeline.name for pipeline in settings.pipelines}
    return next(
        (each for each in SAMPLES.values() if each.pipeline in there and (CLIPS / f"{each.clip}.mp4").is_file()), None
    )


async def serve(request: Request) -> Response:
    """GET /samples/{clip}/{number}: one picture, as a camera would send it."""
    picture = await asyncio.to_thread(_picture, _sample(request), int(request.path_params["number"]))
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(picture, headers=headers, media_type="image/jpeg")


async def file_rule(request: Request, book: Rulebook) -> Response:
    """POST /samples/{clip}/rule: keep its rule, once. What people made of it since, its end too, is theirs."""
    rule = book.read(_sample(request).rule)
    try:
        await book.save(rule, 0, principal_of(request))
    except Conflict:
        return JSONResponse({"kept": False})
    return JSONResponse({"kept": True})


def _sample(request: Request) -> Sample:
    clip = str(request.path_params["clip"])
    if clip not in SAMPLES:
        raise NotFound(f"no sample is called {printable(clip, 40)!r}; there are: {', '.join(SAMPLES)}")
    return SAMPLES[clip]


def _picture(sample: Sample, number: int) -> bytes:
    """Some milliseconds for a picture, so that the first one is there at once and nothing is kept."""
    video = cv2.VideoCapture(str(CLIPS / f"{sample.clip}.mp4"))
    try:
        frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) or 1
        step = max(1, round(video.get(cv2.CAP_PROP_FPS) / EVERY_SECOND))
        video.set(cv2.CAP_PROP_POS_FRAMES, (sample.begins + number) * step % frames)
        there, frame = video.read()
        if not there:
            raise NotFound(f"the sample {sample.clip!r} has no picture {number}; begin with 0")
        return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    finally:
        video.release()
