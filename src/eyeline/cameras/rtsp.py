"""A camera over RTSP, read by PyAV (the extra `rtsp`): TCP unless the settings say otherwise, every wait limited.

A decoded frame is encoded once as JPEG. Frames that the decoder marks as damaged (lost packets, a broken stream) would
look like defects of the goods: they are dropped as `corrupt`. Redirects are followed by FFmpeg, which may use RTSP's own
protocols alone for them, no files and no HTTP.
"""

import contextlib
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import av
import av.error
import numpy as np
import simplejpeg

from eyeline.cameras.base import Frame, Memory
from eyeline.cameras.pace import Pace
from eyeline.cameras.pump import Pump
from eyeline.core.clock import utcnow
from eyeline.core.errors import CameraError
from eyeline.core.settings import CameraSettings, mask
from eyeline.pipeline.decode import MAX_PIXELS

#: Seconds until a camera that does not answer is given up: for connecting, and for each packet.
TIMEOUT = (5.0, 3.0)
DROPPED_CORRUPT = "corrupt"
#: Damaged packets in a row after which the stream is opened anew.
MOST_DAMAGED = 100

_PROTOCOLS = "rtsp,rtp,rtcp,tcp,udp,tls,srtp"


class RtspSource:
    """Live frames of rtsp:// or rtsps://user:password@host/path; newest first."""

    live = True

    def __init__(self, url: str, settings: CameraSettings, memory: Memory) -> None:
        self._pump = Pump(_Session(url, settings, memory), memory.dropped)

    def frames(self) -> AsyncGenerator[Frame, None]:
        """As the protocol says; never ends but by CameraError."""
        return self._pump.frames()

    async def close(self) -> None:
        """End the session."""
        await self._pump.close()


class _Session:
    """One connection; used by one thread."""

    def __init__(self, url: str, settings: CameraSettings, memory: Memory) -> None:
        self._url = url
        self._settings = settings
        self._dropped = memory.dropped
        self._pace = Pace(settings.fps)
        self._container: Any = None

    def open(self) -> None:
        options = {
            "rtsp_transport": self._settings.transport,
            "protocol_whitelist": _PROTOCOLS,
            "analyzeduration": "500000",  # what is analysed first comes late: half a second of it, not five
        }
        try:
            self._container = av.open(self._url, options=options, timeout=TIMEOUT)
        except (av.error.FFmpegError, OSError) as error:
            raise CameraError(f"{mask(self._url)}: {reason(error)}") from error
        if not self._container.streams.video:
            raise CameraError(f"{mask(self._url)} has no video; use the address of the camera's video stream")
        stream = self._container.streams.video[0]
        # an error is an error: concealed, it would be a smear on the goods
        stream.codec_context.options = {
            "max_pixels": str(MAX_PIXELS),
            "err_detect": "crccheck+bitstream+buffer+explode",
        }
        stream.thread_type = "NONE"  # frame threads hold pictures back; one camera must not take all cores
        self._frames = self._decoded(stream)

    def read(self) -> Frame | None:
        try:
            picture = next(self._frames)
        except StopIteration as error:
            raise CameraError(f"{mask(self._url)}: the camera ended the stream") from error
        except (av.error.FFmpegError, OSError) as error:
            raise CameraError(f"{mask(self._url)}: {reason(error)}") from error
        if not self._pace.takes(time.monotonic()):
            return None
        return Frame(_jpeg(picture.to_ndarray(format="rgb24"), self._settings.quality), utcnow())

    def close(self) -> None:
        if self._container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._container.close()

    def _decoded(self, stream: Any) -> Iterator[Any]:
        """Whole pictures. After damage nothing is whole until the next key frame: what follows is built on the damage."""
        whole, damaged = False, 0
        for packet in self._container.demux(stream):
            try:
                pictures = packet.decode()
            except av.error.InvalidDataError:
                whole, pictures = False, ()
                damaged = self._damaged(damaged)
            for picture in pictures:
                whole = (whole or picture.key_frame) and not picture.is_corrupt
                if whole:
                    damaged = 0
                    yield picture
                else:
                    damaged = self._damaged(damaged)

    def _damaged(self, before: int) -> int:
        """Count a frame that is lost. It is no lost camera, unless there is nothing else."""
        self._dropped(DROPPED_CORRUPT)
        if before + 1 >= MOST_DAMAGED:
            raise CameraError(f"{mask(self._url)}: {before + 1} frames in a row are damaged; look at cable and network")
        return before + 1


def reason(error: Exception) -> str:
    """What went wrong, for a tired operator."""
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return "the camera refuses the user name or the password; correct them in the camera's url"
    if isinstance(error, av.error.HTTPNotFoundError):
        return "the camera answers, but has no stream of this name; correct the path in the camera's url"
    if isinstance(error, av.error.ExitError | av.error.TimeoutError | TimeoutError):
        return "the camera does not answer in time: stalled, switched off, or behind a firewall"
    if isinstance(error, av.error.ConnectionRefusedError | ConnectionRefusedError):
        return "nothing listens there; check address and port, and that RTSP is switched on in the camera"
    if isinstance(error, av.error.InvalidDataError):
        return "it answers, but not with RTSP video; check address and port"
    text = getattr(error, "strerror", None) or type(error).__name__
    return f"cannot be reached ({text}); check the address and the network"


def _jpeg(pixels: Any, quality: int) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality, colorsubsampling="420")
    return data
