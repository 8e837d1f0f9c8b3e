"""Several inference servers as one Predictor, without a load balancer: each request goes to one of them, and to another
when no answer came.

Two replicas are drawn, the one with fewer requests outstanding is asked (Mitzenmacher, "The Power of Two Choices",
2001). One that gives no answer is left out and probed, with longer and longer pauses, until it answers again.
docs/decisions/0013 says why it is so.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eyeline.core.errors import ConfigError, InferenceError, InferenceUnavailable
from eyeline.core.retry import backoff
from eyeline.core.settings import mask
from eyeline.core.telemetry import EJECTIONS, logger
from eyeline.inference.base import ModelChanged, Predictor, Rescued, ServedModel, SharedTensor, Tensor
from eyeline.inference.client import InferenceClient, Unanswered
from eyeline.inference.shm import Segment

log = logger("inference")

#: Seconds until the first probe of a replica that is left out, and the most between two.
FIRST_PROBE = 0.2
PROBES = 5.0


def urls_of(url: str) -> list[str]:
    """The URLs of `inference.url`, which separates them by commas. Raises ConfigError."""
    urls = [part.strip() for part in url.split(",")]
    if "" in urls or len(set(urls)) < len(urls):
        raise ConfigError(
            f"inference.url {mask(url)!r} has an empty or a repeated part; write http://HOST:PORT,http://HOST:PORT"
        )
    return urls


def open_predictor(url: str, models_dir: Path) -> Predictor:
    """Whom to ask: one URL by a plain client, several as replicas. Raises ConfigError."""
    urls = urls_of(url)
    return InferenceClient(url, models_dir) if len(urls) == 1 else Replicas(urls, models_dir)


@dataclass(eq=False)
class Replica:
    """One server and what is known of it."""

    url: str
    client: InferenceClient
    outstanding: int = 0
    failures: int = 0  # without an answer between
    served: dict[str, ServedModel] = field(default_factory=dict)
    segments: set[str] = field(default_factory=set)  # that it has mapped
    probing: "asyncio.Task[None] | None" = None

    @property
    def well(self) -> bool:
        """Not left out."""
        return self.probing is None

    def serves(self, model: str, fingerprint: str) -> bool:
        """Whether it gives the very answers of this fingerprint."""
        return model in self.served and self.served[model].fingerprint == fingerprint


class Replicas:
    """A Predictor over several servers; used within one event loop."""

    def __init__(self, urls: Sequence[str], models_dir: Path) -> None:
        self._replicas = [Replica(mask(url), InferenceClient(url, models_dir)) for url in urls]
        self._agreed: dict[str, ServedModel] = {}
        self._segments: dict[str, Segment] = {}
        self._told: set[tuple[str, str, str]] = set()

    async def model(self, name: str) -> ServedModel:
        """What most replicas serve under this name; the others are not asked for it. Raises InferenceUnavailable, ConfigError."""
        asked = self._asked()
        errors = await asyncio.gather(*(self._learn(replica, name) for replica in asked))
        served = [replica.served[name] for replica, error in zip(asked, errors, strict=True) if error is None]
        if not served:
            raise next(error for error in errors if error is not None)
        agreed = self._agreed[name] = agree(served, self._agreed.get(name))
        self._tell_strays(name, agreed)
        return agreed

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, Tensor | SharedTensor],
        *,
        outputs: Mapping[str, SharedTensor] | None = None,
        timeout: float,  # noqa: ASYNC109 - it travels with the request
        request_id: str = "",
        version: str = "",
    ) -> dict[str, Tensor]:
        """See `InferenceClient.predict`; `timeout` is for all tries together, `request_id` the same in each.

        Answers with `Rescued` where the room for outputs may still be written to. An error then is InferenceUnavailable,
        whatever the second replica found: the caller must take no slot for answered.
        """
        until = time.monotonic() + timeout
        wanted = await self._agreed_on(model, version)
        left = self._candidates(model, wanted.fingerprint)
        rooms, doubtful = outputs or {}, False
        while True:
            replica = _less_busy(left)
            left.remove(replica)
            given = {name: room for name, room in rooms.items() if room.segment in replica.segments}
            seconds = _share(until - time.monotonic(), len(left))
            try:
                sent = self._as_sent(replica, inputs)
                found = await self._ask(replica, model, sent, given, seconds, request_id, version)
                return Rescued(found) if doubtful else found
            except InferenceError as error:
                if doubtful:
                    raise InferenceUnavailable(
                        f"a second replica answered, and a first one may still: {error}"
                    ) from error
                raise
            except InferenceUnavailable as error:
                if isinstance(error, Unanswered) and error.sent and given:
                    doubtful, rooms = True, {}
                self._note(replica, model, error)
                if left and time.monotonic() < until:
                    continue
                if doubtful:  # a ModelChanged would count as an answer
                    raise InferenceUnavailable(str(error)) from error
                raise

    async def register(self, segment: str, size: int) -> bool:
        """Offer a segment to every replica on this host; others are sent its tensors. False where none is on this host."""
        near = [replica for replica in self._replicas if replica.client.near]
        if not near:
            return False
        if segment not in self._segments:
            self._segments[segment] = Segment.attach(segment)
        await asyncio.gather(*(self._offer(replica, segment, size) for replica in near if replica.well))
        return True

    async def unregister(self, segment: str) -> None:
        """Take it back from all. Idempotent."""
        held = self._segments.pop(segment, None)
        for replica in self._replicas:
            replica.segments.discard(segment)
        await asyncio.gather(*(replica.client.unregister(segment) for replica in self._replicas))
        if held is not None:
            held.close()

    async def ready(self) -> Sequence[str]:
        """Names of models that no replica has ready, empty when there is none. Raises InferenceUnavailable."""
        asked = self._asked()
        answers = await asyncio.gather(*(replica.client.ready() for replica in asked), return_exceptions=True)
        missing: list[set[str]] = []
        for replica, answer in zip(asked, answers, strict=True):
            if isinstance(answer, Unanswered):
                self._leave_out(replica, answer)
            elif not isinstance(answer, BaseException):
                missing.append(set(answer))
        if missing:
            return sorted(set.intersection(*missing))
        raise next(answer for answer in answers if isinstance(answer, BaseException))

    async def close(self) -> None:
        """Stop probing, give back connections and memory. Idempotent."""
        probes = [replica.probing for replica in self._replicas if replica.probing is not None]
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        await asyncio.gather(*(replica.client.close() for replica in self._replicas))
        while self._segments:
            self._segments.popitem()[1].close()

    # ------------------------------------------------------------ whom to ask
    def _asked(self) -> list[Replica]:
        """Those that are well; where none is, all: better a slow answer than none."""
        return [replica for replica in self._replicas if replica.well] or list(self._replicas)

    async def _agreed_on(self, model: str, version: str) -> ServedModel:
        wanted = self._agreed.get(model) or await self.model(model)
        if version and wanted.ref.version != version:
            raise ModelChanged(f"the replicas serve {model} {wanted.ref.version}, not {version}")
        return wanted

    def _candidates(self, model: str, fingerprint: str) -> list[Replica]:
        serving = [replica for replica in self._replicas if replica.serves(model, fingerprint)]
        if not serving:
            raise InferenceUnavailable(f"no replica serves the model {model!r} any more; see `eyeline check`")
        return [replica for replica in serving if replica.well] or serving

    async def _ask(
        self,
        replica: Replica,
        model: str,
        inputs: Mapping[str, Tensor | SharedTensor],
        rooms: Mapping[str, SharedTensor],
        seconds: float,
        request_id: str,
        version: str,
    ) -> dict[str, Tensor]:
        replica.outstanding += 1
        try:
            found = await replica.client.predict(
                model, inputs, outputs=rooms, timeout=seconds, request_id=request_id, version=version
            )
        finally:
            replica.outstanding -= 1
        replica.failures = 0
        return found

    def _as_sent(
        self, replica: Replica, inputs: Mapping[str, Tensor | SharedTensor]
    ) -> Mapping[str, Tensor | SharedTensor]:
        """In place for a replica that has the segment mapped, as tensors for the others."""
        return {
            name: self._segments[value.segment].view(value.offset, value.shape, value.dtype)
            if isinstance(value, SharedTensor) and value.segment not in replica.segments
            else value
            for name, value in inputs.items()
        }

    # ------------------------------------------------------------ what is known of them
    async def _learn(self, replica: Replica, name: str) -> Exception | None:
        """What it serves under this name, or why not."""
        try:
            replica.served[name] = await replica.client.model(name)
        except (InferenceUnavailable, ConfigError) as error:
            if isinstance(error, Unanswered):
                self._leave_out(replica, error)
            else:
                replica.served.pop(name, None)
            return error
        return None

    def _tell_strays(self, name: str, agreed: ServedModel) -> None:
        for replica in self._replicas:
            other = replica.served.get(name)
            if other is None or other.fingerprint == agreed.fingerprint:
                continue
            if (replica.url, name, other.fingerprint) not in self._told:
                self._told.add((replica.url, name, other.fingerprint))
                log.warning(
                    "a replica serves otherwise than most and is not asked", **_difference(replica, other, agreed)
                )

    def _note(self, replica: Replica, model: str, error: InferenceUnavailable) -> None:
        if isinstance(error, Unanswered):
            self._leave_out(replica, error)
        elif isinstance(error, ModelChanged):
            replica.served.pop(model, None)  # asked again within a second

    def _leave_out(self, replica: Replica, error: Exception) -> None:
        replica.failures += 1
        replica.segments.clear()  # whoever it is when it is back, it is offered them again
        if replica.probing is None:
            log.warning("an inference replica is left out", replica=replica.url, error=str(error))
            EJECTIONS.labels(replica=replica.url).inc()
            replica.probing = asyncio.create_task(self._until_back(replica))

    async def _until_back(self, replica: Replica) -> None:
        attempt = replica.failures
        while True:
            await asyncio.sleep(backoff(attempt, base=FIRST_PROBE, cap=PROBES))
            attempt += 1
            try:
                await self._welcome(replica)
            except InferenceUnavailable:
                continue
            log.info("an inference replica is back", replica=replica.url)
            replica.probing = None
            return

    async def _welcome(self, replica: Replica) -> None:
        """Ask who it is now, before any image is given to it."""
        await replica.client.alive()
        for name in list(self._agreed):
            replica.served.pop(name, None)
            try:
                replica.served[name] = await replica.client.model(name)
            except Unanswered:
                raise
            except (InferenceUnavailable, ConfigError):  # it loads still; `model` asks it again
                continue
        if replica.client.near:
            for name, held in list(self._segments.items()):
                await self._offer(replica, name, held.size)

    async def _offer(self, replica: Replica, segment: str, size: int) -> None:
        try:
            if await replica.client.register(segment, size):
                replica.segments.add(segment)
        except Unanswered as error:
            self._leave_out(replica, error)


def agree(served: Sequence[ServedModel], before: ServedModel | None) -> ServedModel:
    """What most replicas serve; where two are equal, what was served before, else the first. What any of those tries out is
    told by who does: it is asked of them alone.
    """
    votes = Counter(each.fingerprint for each in served)
    known = before.fingerprint if before is not None else ""
    return max(served, key=lambda each: (votes[each.fingerprint], each.fingerprint == known, each.canary is not None))


def _less_busy(replicas: Sequence[Replica]) -> Replica:
    drawn = random.sample(replicas, min(2, len(replicas)))
    return min(drawn, key=lambda replica: replica.outstanding)


def _share(seconds: float, others: int) -> float:
    """A try may take half of what is left while there is another replica to ask, and all of it otherwise."""
    return seconds / 2 if others else seconds


def _difference(replica: Replica, other: ServedModel, agreed: ServedModel) -> dict[str, str]:
    return {
        "replica": replica.url,
        "model": agreed.ref.name,
        "serves": f"{other.ref.version} ({other.fingerprint[:12]})",
        "most": f"{agreed.ref.version} ({agreed.fingerprint[:12]})",
    }
