"""The job that rides the queue stays small, whatever a request says: every backend's messages have room for it."""

from datetime import timedelta
from urllib.parse import urlencode

import msgspec
import pytest

from eyeline.core.access import Principal
from eyeline.core.clock import utcnow
from eyeline.core.errors import TooLarge
from eyeline.core.ids import uuid7
from eyeline.core.settings import load_settings
from eyeline.core.telemetry import new_traceparent
from eyeline.core.types import BlobRef, Job
from eyeline.gateway.params import ImageParams, Known
from eyeline.gateway.relay import message_of
from eyeline.queues.sqs import Envelope

LONGEST = "n" * 64
LARGEST_JOB = 4000
DIGEST = "f" * 64
ANYONE = Principal("ana", "admin", None)


def parsed(meta: dict[str, str], ref: str) -> ImageParams:
    """What a request says that says as much as it may."""
    settings = load_settings(
        environ={},
        overrides={
            "sites": [{"name": LONGEST}],
            "cameras": [{"name": LONGEST, "url": "file:///x", "site": LONGEST, "pipeline": LONGEST}],
            "pipelines": [{"name": LONGEST, "steps": [{"name": "find", "model": "finder"}]}],
        },
    )
    said = {"camera": LONGEST, "captured_at": utcnow().isoformat(), "lane": "bulk", "deadline": "3600", "ref": ref}
    return Known(settings).parse(
        urlencode(said | {f"meta.{key}": value for key, value in meta.items()}).encode(), ANYONE
    )


def fields(letter: str) -> dict[str, str]:
    """As many fields of that letter as are kept together, each as long as it may be."""
    wide = len(msgspec.json.encode(letter)) - 2
    each = 2000 // 16 // wide - 4
    return {f"{number:04}": letter * each for number in range(16)}


@pytest.mark.parametrize("letter", ["x", '"', "\\", "ü", "漢", "\U0001f4f7"])
def test_the_largest_job_is_under_4_kb_in_every_alphabet(letter: str) -> None:
    params = parsed(fields(letter), letter * 200)
    now = utcnow()
    job = Job(
        id=uuid7(),
        site=params.site,
        pipeline=params.pipeline,
        lane=params.lane,
        blob=BlobRef(f"{params.site}/{DIGEST}", 2**40, DIGEST),
        received_at=now,
        captured_at=params.captured_at or now,
        camera=params.camera,
        ref=params.ref,
        meta=params.meta,
        deadline=now + timedelta(seconds=params.deadline or 0),
        trace=new_traceparent(),
        replay_of=uuid7(),
        aside=f"{LONGEST}@{'9' * 32}+{DIGEST[:12]}",
        pipeline_digest=DIGEST,
        min_reader=99,
        schema_version=99,
    )
    message = message_of(job)
    assert msgspec.json.decode(message.body, type=Job) == job
    assert all(getattr(job, name) for name in job.__struct_fields__)  # a new field belongs here, too
    assert len(message.body) < LARGEST_JOB
    assert (
        len(msgspec.json.encode(Envelope(message.id, message.group, message.body))) < 1.4 * LARGEST_JOB
    )  # SQS: base64


@pytest.mark.parametrize("letter", ["x", '"', "\\", "漢"])
def test_meta_that_would_make_it_larger_is_refused(letter: str) -> None:
    most = fields(letter)
    for number in range(16):
        most[f"{number:04}"] += letter * 5
    with pytest.raises(TooLarge, match="over 2000 bytes together"):
        parsed(most, "")
