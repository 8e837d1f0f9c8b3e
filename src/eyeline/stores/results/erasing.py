"""Erasure in the results database: a result goes, with all that tells of it; what the audit committed to stays. A part of the
SQL store.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
from sqlalchemy import Dialect, bindparam, delete, select, update

from eyeline.core.types import BlobRef, Job
from eyeline.stores.results import keeping, rows
from eyeline.stores.results.audit import note_action
from eyeline.stores.results.base import Action
from eyeline.stores.results.lines import Writer
from eyeline.stores.results.retaining import Tallies
from eyeline.stores.results.schema import (
    actions,
    audit,
    jobs,
    result_codes,
    result_labels,
    results,
    reviews,
    verdicts,
)
from eyeline.stores.results.statements import Prepared, Statements

#: Results in one transaction.
_MANY = 500
#: The picture of a job that says nothing any more.
_NOWHERE = BlobRef("", 0, "")


class EraseStatements:
    """What erasure needs, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.deletes_for_good = dialect.name == "sqlite"

        def prepared(clause: Any) -> Prepared:
            return Prepared(clause, dialect)

        which: Any = bindparam("which")
        self.forget_result = prepared(delete(results).where(results.c.id == which).returning(results.c.body))
        # by the whole key: by the result alone, each would be looked for among all
        self.forget_label = prepared(
            delete(result_labels).where(
                result_labels.c.label == bindparam("label"), result_labels.c.result_id == bindparam("result_id")
            )
        )
        self.forget_code = prepared(
            delete(result_codes).where(
                result_codes.c.code == bindparam("code"), result_codes.c.result_id == bindparam("result_id")
            )
        )
        self.forget_salt = prepared(
            update(audit).where(audit.c.id == which, audit.c.kind == "result").values(salt=bindparam("nothing"))
        )
        # what people said of it goes with it: comments may name somebody
        self.forget_verdicts = prepared(delete(verdicts).where(verdicts.c.result_id == which).returning(verdicts.c.id))
        self.forget_review = prepared(delete(reviews).where(reviews.c.result_id == which))
        self.forget_action = prepared(delete(actions).where(actions.c.id == which))
        self.forget_action_salt = prepared(
            update(audit).where(audit.c.id == which, audit.c.kind == "action").values(salt=bindparam("nothing"))
        )
        self.job_body = prepared(select(jobs.c.body).where(jobs.c.id == which))
        self.put_job = prepared(
            update(jobs).where(jobs.c.id == which).values(body=bindparam("body"), blob_hash=bindparam("blob_hash"))
        )
        self.forget_job = prepared(delete(jobs).where(jobs.c.id == which))


class _Store(Protocol):
    """What the store brings along."""

    _writer: Writer
    _erase: EraseStatements
    _statements: Statements


class Erasing:
    """The method of ResultStore that erases."""

    async def erase(
        self: _Store,
        ids: Sequence[str],
        *,
        by: str = "",
        reason: str = "",
        jobs: bool = False,
        tallies: Tallies | None = None,
    ) -> set[str]:
        """Each part of so many in a transaction of its own, with its action and tallies."""
        erased: set[str] = set()
        for start in range(0, len(ids), _MANY):
            part = sorted(set(ids[start : start + _MANY]))

            def erase(cursor: Any, part: Sequence[str] = part) -> set[str]:
                with _for_good(cursor, self._erase):
                    gone = _erased(cursor, self, part, jobs)
                    if gone:
                        keeping.add_tallies(cursor, self, () if tallies is None else tallies(set(gone)))
                        named = [*gone, *_unsaid(cursor, self._erase, gone)]
                        note_action(cursor, self, Action(what="erase", by=by, body={"reason": reason, "ids": named}))
                    return set(gone)

            erased |= await self._writer.write(erase)
        return erased


@contextlib.contextmanager
def _for_good(cursor: Any, do: EraseStatements) -> Iterator[None]:
    """SQLite leaves what it deletes in the file until the room is needed; here it is overwritten at once."""
    if do.deletes_for_good:
        cursor.execute("PRAGMA secure_delete = ON").fetchall()
    try:
        yield
    finally:
        if do.deletes_for_good:
            cursor.execute("PRAGMA secure_delete = OFF").fetchall()


def _erased(cursor: Any, store: _Store, ids: Sequence[str], jobs: bool) -> list[str]:
    do = store._erase  # noqa: SLF001 - a part of the same store
    ask = store._statements.result_by_id  # noqa: SLF001
    there = [rows.result_of(row["body"]) for row in ask.each(cursor, ({"id": ident} for ident in ids))]
    stay = keeping.held(cursor, store, there)
    gone = [result for result in there if result.id not in stay]
    which = [{"which": result.id} for result in gone]
    do.forget_result.many(cursor, which).fetchall()
    do.forget_label.many(cursor, (row for result in gone for row in rows.label_rows(result)))
    do.forget_code.many(cursor, (row for result in gone for row in rows.code_rows(result)))
    do.forget_salt.many(cursor, ({**row, "nothing": b""} for row in which))
    urls = _forget_jobs(cursor, do, [result.id for result in gone], jobs)
    keeping.of_result(cursor, store, gone, urls)
    return [result.id for result in gone]


def _unsaid(cursor: Any, do: EraseStatements, ids: Sequence[str]) -> list[str]:
    """What people said of those results goes with them. Returns the ids of the actions."""
    which = [{"which": ident} for ident in ids]
    said = sorted(row[0] for row in do.forget_verdicts.many(cursor, which).fetchall())
    do.forget_review.many(cursor, which)
    do.forget_action.many(cursor, ({"which": ident} for ident in said))
    do.forget_action_salt.many(cursor, ({"which": ident, "nothing": b""} for ident in said))
    return said


def _forget_jobs(cursor: Any, do: EraseStatements, ids: Sequence[str], altogether: bool) -> set[str]:
    """Take from the jobs what a client wrote on them, and which picture they were about; the URLs of those pictures.

    A bare row stays, unless they go altogether: it knows what was finished, should its message come once more.
    """
    there = [rows.job_of(row["body"]) for row in do.job_body.each(cursor, ({"which": ident} for ident in ids))]
    found = {job.id: job for job in there}
    if altogether:
        do.forget_job.many(cursor, ({"which": ident} for ident in found))
    else:
        do.put_job.many(cursor, (_bare(ident, job) for ident, job in found.items()))
    return {job.blob.url for job in found.values()} - {""}


def _bare(ident: str, job: Job) -> dict[str, Any]:
    bare = msgspec.structs.replace(job, ref=None, meta={}, trace=None, blob=_NOWHERE)
    return {"which": ident, "body": rows.encode(bare), "blob_hash": rows.blob_hash("")}
