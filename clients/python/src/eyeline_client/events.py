"""The live stream without any I/O: bytes become events, and a cut becomes the next request, after the last event seen."""

import time
from collections.abc import Collection

import msgspec

from eyeline_client.protocol import TRY_AGAIN, Answer, Ask, Lost, Retry, given_up, refused, retry_after
from eyeline_client.types import Event, Kind

KINDS: tuple[Kind, ...] = ("result", "alert", "system")
#: The gateway says something at least every ten seconds; a stream that is silent for longer (seconds) is dead.
SILENCE = 25.0


class Feed:
    """Where a reader is in the stream. Events come once each and in order, over any number of connections."""

    def __init__(self, after: int | None, kinds: Collection[Kind], retry: Retry) -> None:
        self._after = after
        self._kinds = ",".join(kinds)
        self._retry = retry
        self._attempt = 0
        self._failed = 0.0  # since when nothing came
        self._rest = b""

    def request(self) -> Ask:
        """The request that goes on where the last one was cut."""
        self._rest = b""
        headers = {"Accept": "text/event-stream"}
        if self._after is not None:
            headers["Last-Event-ID"] = str(self._after)
        return Ask("GET", "/v1/events", {"kinds": self._kinds}, headers, wait=SILENCE)

    def feed(self, chunk: bytes) -> list[Event]:
        """What came from the network; the events that it completes.

        Lines end at line feeds alone: JSON may hold every other character that Python takes for the end of a line.
        """
        self._attempt = 0
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        return [event for event in map(self._event, blocks) if event is not None]

    def _event(self, block: bytes) -> Event | None:
        """One block of the stream. One with an id alone says where the stream began."""
        fields = dict(_field(line) for line in block.split(b"\n"))
        if not fields.get(b"id", b"").isdigit():
            return None
        self._after = int(fields[b"id"])
        if b"data" not in fields:
            return None
        body = msgspec.json.decode(fields[b"data"])
        return msgspec.convert({"seq": self._after, "kind": fields.get(b"event", b"").decode(), "body": body}, Event)

    def ended(self, how: Answer | Lost | None = None) -> float:
        """Seconds to wait before the next request; None: the gateway closed the stream. Raises what is for good."""
        if isinstance(how, Answer) and how.status not in TRY_AGAIN:
            raise refused(how)
        if not self._attempt:
            self._failed = time.monotonic()
        self._attempt += 1
        pause = self._retry.pause(self._attempt, retry_after(how) if isinstance(how, Answer) else 0.0)
        if time.monotonic() - self._failed + pause > self._retry.patience:
            raise given_up(how, self.request())
        return pause


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")
