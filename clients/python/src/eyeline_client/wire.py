"""Between the conversations' words and httpx's."""

from collections.abc import Mapping
from typing import Any

import httpx

from eyeline_client.protocol import Answer, Ask, Lost

LOCAL = "http://127.0.0.1:8080"


def settings(url: str, key: str | None, http: Mapping[str, Any]) -> dict[str, Any]:
    """What an httpx client is made with."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url={url!r}: give the gateway's address with its scheme, such as {LOCAL}")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": url, "headers": headers, **http}


def request_of(ask: Ask, timeout: float) -> dict[str, Any]:
    """The arguments of `request` and `stream`. What the gateway holds on purpose is no silence."""
    return {
        "method": ask.method,
        "url": ask.path,
        "params": dict(ask.params),
        "headers": dict(ask.headers),
        "content": ask.content,
        "timeout": httpx.Timeout(timeout, read=timeout + ask.wait),
    }


def answer_of(response: httpx.Response) -> Answer:
    """A response that was read."""
    return Answer(
        response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content
    )


def lost(error: httpx.TransportError) -> Lost:
    """What came instead of an answer."""
    return Lost(f"{type(error).__name__} {error}".strip())
