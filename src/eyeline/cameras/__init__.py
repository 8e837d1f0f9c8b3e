"""Cameras: where frames come from. One line for each kind; a path or a file:// URL is a folder or a video by what lies there."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from eyeline.cameras.base import Asked, CameraSource, Memory
from eyeline.core.errors import ConfigError
from eyeline.core.registry import Registry
from eyeline.core.settings import CameraSettings

if TYPE_CHECKING:
    from eyeline.cameras.mqtt import Trigger

CAMERAS: Registry[CameraSource] = Registry(
    "camera",
    {
        "folder": "eyeline.cameras.folder:FolderSource",
        "video": "eyeline.cameras.video:VideoSource",
        "rtsp": "eyeline.cameras.rtsp:RtspSource",
        "rtsps": "eyeline.cameras.rtsp:RtspSource",
        "http": "eyeline.cameras.http:HttpSource",
        "https": "eyeline.cameras.http:HttpSource",
        "usb": "eyeline.cameras.usb:UsbSource",
        "sqs": "eyeline.cameras.sqs:SqsSource",
        "synthetic": "eyeline.cameras.synthetic:SyntheticSource",
    },
    extras={"rtsps": "rtsp"},
)


def open_camera(settings: CameraSettings, memory: Memory) -> CameraSource:
    """The source of this camera. Raises ConfigError for a scheme that is not known."""
    return CAMERAS.open(resolved(settings.url), settings, memory)


def open_trigger(settings: CameraSettings, broker: str, asked: Callable[[Asked], None]) -> "Trigger | None":
    """The MQTT trigger of this camera, where it has a topic. Raises ConfigError naming what is missing."""
    if settings.trigger_topic is None:
        return None
    if not broker:
        raise ConfigError(f"camera {settings.name!r} has a trigger_topic, but mqtt.url names no broker")
    try:
        from eyeline.cameras.mqtt import Trigger  # noqa: PLC0415 - its driver is an extra
    except ModuleNotFoundError as error:
        raise ConfigError(f"triggers need the package {error.name!r}: pip install 'eyeline[mqtt]'") from error
    return Trigger(broker, settings.trigger_topic, asked)


def resolved(url: str) -> str:
    """`url` with a scheme of the table: bare paths and file:// become folder:// or video://."""
    if "://" in url and urlsplit(url).scheme != "file":
        return url
    text = unquote(url.removeprefix("file://")) if url.startswith("file://") else url
    is_folder = text.endswith("/") or Path(text).expanduser().is_dir()
    return f"{'folder' if is_folder else 'video'}://{text}"


def path_of(url: str) -> Path:
    """The path in a folder:// or video:// URL of ours; relative ones stay relative to where the process runs."""
    return Path(url.partition("://")[2]).expanduser()
