"""Channels: where alerts go. One line for each; `open_channel` finds it by the URL's scheme."""

from urllib.parse import urlsplit

from eyeline.alerts.channels.base import Channel, Pictures, no_picture
from eyeline.core.errors import ConfigError
from eyeline.core.registry import Registry
from eyeline.core.settings import ChannelSettings

CHANNELS: Registry[Channel] = Registry(
    "channel",
    {
        "https": "eyeline.alerts.channels.webhook:WebhookChannel",
        "http": "eyeline.alerts.channels.webhook:WebhookChannel",
        "log": "eyeline.alerts.channels.log:LogChannel",
        "smtp": "eyeline.alerts.channels.email:EmailChannel",
        "smtps": "eyeline.alerts.channels.email:EmailChannel",
        "mqtt": "eyeline.alerts.channels.mqtt:MqttChannel",
        "mqtts": "eyeline.alerts.channels.mqtt:MqttChannel",
        "apprise": "eyeline.alerts.channels.apprise:AppriseChannel",
    },
    extras={"mqtts": "mqtt"},
)

#: There without being defined.
LOG = ChannelSettings(name="log", url="log:")


def open_channel(settings: ChannelSettings, pictures: Pictures = no_picture) -> Channel:
    """The channel that `settings` describe. Raises ConfigError naming it."""
    try:
        make = CHANNELS.load(urlsplit(settings.url).scheme)
        channel: Channel = make(settings, pictures)  # type: ignore[call-arg] # a protocol says nothing of its constructors
    except ConfigError as error:
        raise ConfigError(f"alerts.channels {settings.name!r}: {error}") from error
    return channel
