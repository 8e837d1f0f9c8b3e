"""What people say of results, on every result store: nothing is overwritten, the last word counts, the queue is in order."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest

from eyeline.core.clock import utcnow
from eyeline.core.types import Classification, Detection, ModelRef, Result
from eyeline.ops.audit import trail
from eyeline.ops.audit.sealer import Sealer
from eyeline.stores.results import open_results
from eyeline.stores.results.base import NewJob, ResultQuery, ResultStore
from eyeline.stores.results.review import Doubt, KeptVerdict, NewVerdict, ReviewQuery, Said
from tests.contract.test_results import make_job, make_result

FOUND = Detection("dent", 0.4, (1.0, 2.0, 30.0, 40.0), "find")
MODEL = ModelRef("finder", "1.4.2+0123456789ab", "onnxruntime", "fp32")
DRAWN = Said([Detection("scratch", 1.0, (5.0, 5.0, 25.0, 35.0), "human")], [Classification("bad", 1.0, "human")])


@pytest.fixture
async def store(results_url: str) -> AsyncIterator[ResultStore]:
    opened = open_results(results_url)
    await opened.upgrade()
    yield opened
    await opened.close()


async def recorded(store: ResultStore, *doubts: Doubt | None, site: str = "north") -> list[Result]:
    """One result for each doubt, with a box and a model."""
    jobs = [msgspec.structs.replace(make_job(number, camera="belt-1"), site=site) for number in range(len(doubts))]
    await store.keep_jobs([NewJob(job=job) for job in jobs])
    made = [make_result(job, detections=[FOUND], models=[MODEL]) for job in jobs]
    chosen = {result.id: doubt for result, doubt in zip(made, doubts, strict=True) if doubt is not None}
    await store.save_many(made, chosen)
    return made


async def said(store: ResultStore, new: NewVerdict) -> KeptVerdict:
    kept = await store.add_verdict(new)
    assert kept is not None
    return kept


async def verdict_of(store: ResultStore, ident: str) -> str | None:
    found = await store.get(ident)
    assert found is not None
    listed, _ = await store.find(ResultQuery())
    several = await store.get_many([ident])
    assert found == several[ident] == next(each for each in listed if each.id == ident)
    return None if found.verdict is None else found.verdict.kind


async def test_a_correction_keeps_what_stood_there_and_who_said_it(store: ResultStore) -> None:
    (result,) = await recorded(store, None)
    new = NewVerdict(result_id=result.id, kind="corrected", by="ana", comment="a scratch", after=DRAWN)
    record = (await said(store, new)).record
    found = await store.get(result.id)
    assert found is not None
    assert found.detections == [FOUND]  # what was recorded never changes
    assert found.verdict is not None
    assert (found.verdict.id, found.verdict.kind, found.verdict.by) == (record.id, "corrected", "ana")
    assert (found.verdict.detections, found.verdict.classifications) == (DRAWN.detections, DRAWN.classifications)
    assert await store.verdicts(result.id) == [record]
    assert (record.before, record.after, record.models) == (Said([FOUND], []), DRAWN, [MODEL])
    again = await said(store, NewVerdict(result_id=result.id, kind="confirmed", by="ben"))
    assert again.record.before == DRAWN


async def test_each_is_an_action_of_the_audit_and_can_be_verified(store: ResultStore) -> None:
    (result,) = await recorded(store, None)
    kept = await said(store, NewVerdict(result_id=result.id, kind="rejected", by="ana", comment="glare"))
    waiting = await store.unsealed(10, bodies=True)
    assert [(record.kind, record.id) for record in waiting] == [("result", result.id), ("action", kept.record.id)]
    body = json.loads(waiting[1].body or b"")
    expected = {"what": "verdict", "by": "ana", "kind": "rejected", "result_id": result.id, "comment": "glare"}
    assert body.items() >= expected.items()
    await Sealer(store).seal_all()
    assert (await trail.verify(store)).good


async def test_the_last_word_counts_and_an_undo_is_another_record(store: ResultStore) -> None:
    (result,) = await recorded(store, None)
    confirmed = await said(store, NewVerdict(result_id=result.id, kind="confirmed", by="ana"))
    rejected = await said(store, NewVerdict(result_id=result.id, kind="rejected", by="ben"))
    await said(store, NewVerdict(result_id=result.id, kind="comment", by="cem", comment="look at the edge"))
    assert await verdict_of(store, result.id) == "rejected"
    undo = await said(store, NewVerdict(result_id=result.id, kind="undo", by="ben", undoes=rejected.record.id))
    assert await verdict_of(store, result.id) == "confirmed"
    again = await said(store, NewVerdict(result_id=result.id, kind="undo", by="cem", undoes=rejected.record.id))
    assert (again.existing, again.record) == (True, undo.record)
    await said(store, NewVerdict(result_id=result.id, kind="undo", by="ana", undoes=confirmed.record.id))
    assert await verdict_of(store, result.id) is None
    told = [(record.kind, record.undone_by is not None) for record in await store.verdicts(result.id)]
    assert told == [
        ("confirmed", True), ("rejected", True), ("comment", False), ("undo", False), ("undo", False),
    ]  # fmt: skip


async def test_what_is_not_there_is_told(store: ResultStore) -> None:
    one, other = await recorded(store, None, None)
    assert await store.add_verdict(NewVerdict(result_id=make_job().id, kind="confirmed")) is None
    kept = await said(store, NewVerdict(result_id=one.id, kind="confirmed"))
    undo = NewVerdict(result_id=other.id, kind="undo", undoes=kept.record.id)
    assert await store.add_verdict(undo) is None  # of another result
    assert await store.verdicts(other.id) == []
    assert await store.hold_review(make_job().id, "ana", 60) is None


async def test_an_idempotency_key_gives_the_record_that_is_there(store: ResultStore) -> None:
    (result,) = await recorded(store, None)
    new = NewVerdict(result_id=result.id, kind="confirmed", by="ana", key="k1")
    first, second = await said(store, new), await said(store, new)
    assert (second.existing, second.record, second.digest) == (True, first.record, new.digest)
    other = NewVerdict(result_id=result.id, kind="rejected", by="ana", key="k1")
    kept = await said(store, other)
    assert kept.existing
    assert kept.digest != other.digest
    assert not (await said(store, NewVerdict(result_id=result.id, kind="rejected", by="ben", key="k1"))).existing
    assert len(await store.verdicts(result.id)) == 2


async def test_what_waits_is_in_the_order_of_its_value_until_it_is_decided(store: ResultStore) -> None:
    made = await recorded(store, Doubt(0.2, "low score"), None, Doubt(1.0, "new label"), Doubt(0.01, "sample"))
    (elsewhere,) = await recorded(store, Doubt(0.5, "low score"), site="south")

    async def ids(**query: object) -> list[str]:
        return [each.result.id for each in await store.to_review(ReviewQuery(**query))]  # type: ignore[arg-type]

    assert await ids() == [made[2].id, elsewhere.id, made[0].id, made[3].id]
    assert await ids(limit=1) == [made[2].id]
    assert await ids(sites=["north"]) == [made[2].id, made[0].id, made[3].id]
    assert await ids(site="south") == [elsewhere.id]
    first = (await store.to_review(ReviewQuery(limit=1)))[0]
    assert (first.result, first.doubt) == (made[2], Doubt(1.0, "new label"))
    since = utcnow() - timedelta(minutes=5)
    kept = await said(store, NewVerdict(result_id=made[2].id, kind="confirmed", by="ana"))
    assert await ids() == [elsewhere.id, made[0].id, made[3].id]
    progress = await store.review_progress(ReviewQuery(), since)
    assert (progress.waiting, progress.decided) == (3, 1)
    assert (await store.review_progress(ReviewQuery(sites=["south"]), since)).decided == 0
    await said(store, NewVerdict(result_id=made[2].id, kind="undo", by="ana", undoes=kept.record.id))
    assert await ids(site="north") == [made[2].id, made[0].id, made[3].id]
    assert (await store.review_progress(ReviewQuery(), since)).decided == 0


async def test_who_is_unsure_leaves_it_to_another(store: ResultStore) -> None:
    (result,) = await recorded(store, None)
    await said(store, NewVerdict(result_id=result.id, kind="unsure", by="ana"))
    assert await store.to_review(ReviewQuery(by="ana")) == []
    (waiting,) = await store.to_review(ReviewQuery(by="ben"))
    assert (waiting.result.id, waiting.doubt.reason) == (result.id, "unsure")


async def test_one_who_looks_holds_it_for_a_while_and_keeps_nobody_from_deciding(store: ResultStore) -> None:
    (result,) = await recorded(store, Doubt(0.5, "low score"))
    assert ((await store.hold_review(result.id, "ana", 60)) or [""])[0] == "ana"
    assert ((await store.hold_review(result.id, "ben", 60)) or [""])[0] == "ana"
    (waiting,) = await store.to_review(ReviewQuery(by="ben"))
    assert waiting.held_by == "ana"
    await store.hold_review(result.id, "ana", -1)  # her time is over
    assert (await store.to_review(ReviewQuery()))[0].held_by is None
    assert ((await store.hold_review(result.id, "ben", 60)) or [""])[0] == "ben"
    await said(store, NewVerdict(result_id=result.id, kind="confirmed", by="ana"))
    assert await store.to_review(ReviewQuery()) == []


async def test_a_record_waits_where_another_version_says_otherwise_and_nobody_decided(store: ResultStore) -> None:
    waits, sampled, same, other, decided, valued = await recorded(
        store, None, Doubt(0.01, "sample"), None, None, None, Doubt(1.0, "new label")
    )
    await said(store, NewVerdict(result_id=decided.id, kind="confirmed", by="ana"))
    scratch, dent = [DRAWN.detections[0]], [msgspec.structs.replace(FOUND, score=0.9)]
    answers = [(waits, scratch), (sampled, []), (same, dent), (other, scratch), (decided, scratch), (valued, scratch)]
    asked = [msgspec.structs.replace(make_job(number, camera="belt-1"), site="north") for number in range(len(answers))]
    await store.keep_jobs([NewJob(job=job) for job in asked])
    asides = [
        make_result(
            job,
            detections=found,
            aside=True,
            replay_of=record.id,
            pipeline="lids" if record is other else record.pipeline,
        )
        for job, (record, found) in zip(asked, answers, strict=True)
    ]
    await store.save_many(asides)
    found = {each.result.id: each.doubt for each in await store.to_review(ReviewQuery())}
    disagree = Doubt(0.9, "models disagree")
    assert found == {waits.id: disagree, sampled.id: disagree, valued.id: Doubt(1.0, "new label")}


async def test_labels_that_many_results_bear_are_known(store: ResultStore) -> None:
    await recorded(store, *[None] * 20)
    assert await store.known_labels(["dent", "scratch"]) == {"dent"}


async def test_what_was_said_of_a_result_is_erased_with_it_and_the_audit_still_verifies(store: ResultStore) -> None:
    one, other = await recorded(store, Doubt(0.5, "low score"), None)
    await said(store, NewVerdict(result_id=one.id, kind="rejected", by="ana", comment="Jo Doe is on it"))
    stays = await said(store, NewVerdict(result_id=other.id, kind="confirmed", by="ana"))
    await Sealer(store).seal_all()
    assert await store.erase([one.id]) == {one.id}
    assert await store.verdicts(one.id) == []
    assert await store.to_review(ReviewQuery()) == []
    assert await store.verdicts(other.id) == [stays.record]
    await Sealer(store).seal_all()
    report = await trail.verify(store)
    assert (report.good, report.erased) == (True, 2)
    told = [json.dumps(line) for part in [part async for part in trail.lines(store)] for line in part]
    assert not any("Jo Doe" in line for line in told)


async def test_a_reviewers_own_decisions_and_what_had_to_be_looked_at_are_found_by_time(store: ResultStore) -> None:
    since = utcnow() - timedelta(minutes=5)
    made = await recorded(store, Doubt(0.5, "low score"), Doubt(0.5, "low score"), None)
    (elsewhere,) = await recorded(store, Doubt(0.5, "low score"), site="south")
    for result, by in ((made[0], "ana"), (made[1], "ben"), (elsewhere, "ana")):
        kept = await said(store, NewVerdict(result_id=result.id, kind="confirmed", by=by))
    await said(store, NewVerdict(result_id=made[2].id, kind="comment", by="ana", comment="glare"))
    here = ReviewQuery(by="ana", sites=["north"])
    assert [len(await store.decisions(query, since)) for query in (here, ReviewQuery(by="ana"))] == [1, 2]
    assert await store.decisions(here, utcnow() + timedelta(minutes=1)) == []
    (first, last) = await store.decisions(ReviewQuery(by="ana"), since)
    assert since < first <= last <= utcnow()
    await said(store, NewVerdict(result_id=elsewhere.id, kind="undo", by="ana", undoes=kept.record.id))
    assert len(await store.decisions(ReviewQuery(by="ana"), since)) == 1
    later = utcnow() + timedelta(minutes=1)
    counts = [await store.count_doubted(query, since, later) for query in (ReviewQuery(), ReviewQuery(site="south"))]
    assert (counts, await store.count_doubted(ReviewQuery(), later, later + timedelta(days=1))) == ([3, 1], 0)
