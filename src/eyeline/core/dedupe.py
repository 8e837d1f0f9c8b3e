"""Same bytes, same answer: the cache keys that gateway and worker share, and how a duplicate is written down.

The worker publishes `plan_key(pipeline)` → fingerprint (`written_plan`) and, for each completed job,
`answer_key(…)` → the result as msgspec JSON. The gateway answers from them; workers wait on `leader_key(…)`.
A fingerprint names everything that could change an answer: the pipeline and its digest, each bundle's digest,
runtime and precision. Keys begin with the site, so an answer never crosses sites.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from eyeline.core.types import Job, Result


def plan_key(pipeline: str) -> str:
    """Where the fingerprint of what a pipeline runs now is kept."""
    return f"plan/{pipeline}"


def written_plan(fingerprint: str, at_sites: Mapping[str, str]) -> bytes:
    """What a pipeline runs now: its fingerprint, and a line `fingerprint site` for each site at which that is another one."""
    lines = [fingerprint, *(f"{other} {site}" for site, other in sorted(at_sites.items()))]
    return "\n".join(lines).encode()


def read_plan(written: bytes, site: str) -> str:
    """The fingerprint that answers for this site."""
    everywhere, *others = written.decode().split("\n")
    return {at: other for other, _, at in (line.partition(" ") for line in others)}.get(site, everywhere)


def answer_key(site: str, sha256: str, fingerprint: str) -> str:
    """Where the answer for these bytes (hex SHA-256) at this site under this fingerprint is kept."""
    return answers_of(site, sha256) + fingerprint


def answers_of(site: str, sha256: str) -> str:
    """What every answer for these bytes at this site is kept under, whatever the fingerprint: the beginning of a key."""
    return f"answer/{site}/{sha256}/"


def leader_key(site: str, sha256: str, fingerprint: str) -> str:
    """Held, with a time to live, by the one job that computes the answer while its like wait."""
    return f"leader/{site}/{sha256}/{fingerprint}"


def duplicate(result: Result, job: Job, completed_at: datetime, timings: Mapping[str, float] | None = None) -> Result:
    """`result`'s answer as the result of `job`: own id, camera, times, ref and meta; `duplicate_of` the first one.

    `timings` are seconds by stage, as far as the duplicate had any. Raises ValueError for a failed result:
    failures are never reused.
    """
    if result.status != "completed":
        raise ValueError(f"result {result.id} is {result.status}; only completed results are reused")
    return msgspec.structs.replace(
        result,
        id=job.id,
        site=job.site,
        camera=job.camera,
        pipeline=job.pipeline,
        captured_at=job.captured_at,
        received_at=job.received_at,
        completed_at=completed_at,
        ref=job.ref,
        meta=dict(job.meta),
        timings=dict(timings or {}),
        duplicate_of=result.duplicate_of or result.id,
        replay_of=job.replay_of,
        chain=None,
    )
