"""Full is said: by count, by expected wait, and never because of jobs that merely take several attempts."""

from dataclasses import dataclass, field
from typing import cast

import pytest

from eyeline.core.errors import Overloaded
from eyeline.core.types import Lane
from eyeline.gateway.limits import PATIENCE, POLL, UNHURRIED, Admission, ByteBudget
from eyeline.stores.results.base import ResultStore, Unfinished


@dataclass
class Line:
    """A line of jobs, an admission that watches it, and a clock that we turn."""

    now: float = 0.0
    jobs: list[str] = field(default_factory=list)
    bulk: int = 0
    number: int = 0
    max_unfinished: int = 100
    max_wait: float = 0.8
    takes: float = 0.0  # seconds that each job needs, however few there are
    sent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.admission = Admission(
            cast("ResultStore", self),
            max_unfinished=self.max_unfinished,
            max_wait=self.max_wait,
            clock=lambda: self.now,
        )

    async def unfinished(self) -> Unfinished:
        live = len(self.jobs)
        return Unfinished(count=live + self.bulk, oldest=None, by_lane={"live": live, "bulk": self.bulk})

    def send(self, lane: Lane = "live") -> bool:
        """Whether a job gets in."""
        try:
            place = self.admission.enter(lane)
        except Overloaded:
            return False
        self.number += 1
        self.admission.kept(lane, str(self.number))
        place.leave()
        if lane == "live":
            self.jobs.append(str(self.number))
            self.sent[str(self.number)] = self.now
        else:
            self.bulk += 1
        return True

    def complete(self, count: int) -> None:
        for _ in range(min(count, len(self.jobs))):
            if self.sent[self.jobs[0]] + self.takes > self.now:
                return
            self.admission.completed(self.jobs.pop(0))

    async def run(self, seconds: float, offered: float, capacity: float) -> tuple[int, int, int]:
        """A steady load: (accepted, refused, longest line)."""
        accepted = refused = longest = 0
        debt = work = 0.0
        for tick in range(int(seconds / 0.02)):
            self.now += 0.02
            debt += offered * 0.02
            while debt >= 1:
                debt -= 1
                if self.send():
                    accepted += 1
                else:
                    refused += 1
            work = work + capacity * 0.02 if self.jobs else 0.0
            self.complete(int(work))
            work -= int(work)
            longest = max(longest, len(self.jobs))
            if tick % round(POLL / 0.02) == 0:
                await self.admission.look()
        return accepted, refused, longest


async def test_a_line_that_workers_keep_up_with_refuses_nobody() -> None:
    line = Line()
    assert (await line.run(10, offered=90, capacity=100))[1] == 0


async def test_a_slow_trickle_refuses_nobody() -> None:
    line = Line()
    assert (await line.run(20, offered=0.5, capacity=2))[1] == 0


@pytest.mark.parametrize("offered", [200, 300])
async def test_under_overload_the_goodput_stays_and_the_line_stays_within_the_wait(offered: float) -> None:
    line = Line(max_unfinished=1000)
    await line.run(5, offered=offered, capacity=100)
    accepted, refused, longest = await line.run(10, offered=offered, capacity=100)
    assert accepted >= 0.95 * 100 * 10
    assert refused > 0
    assert longest <= 100  # a second's worth


async def test_after_overload_everyone_is_let_in_again() -> None:
    line = Line(max_unfinished=1000)
    await line.run(5, offered=300, capacity=100)
    await line.run(1, offered=0, capacity=100)
    assert (await line.run(5, offered=50, capacity=100))[1] == 0


async def test_after_an_outage_everyone_is_let_in_again_though_each_job_takes_its_time() -> None:
    line = Line(max_unfinished=1000, takes=0.4)
    await line.run(5, offered=50, capacity=100)
    await line.run(30, offered=50, capacity=0)
    await line.run(5, offered=50, capacity=100)
    assert (await line.run(5, offered=50, capacity=100))[1] == 0


async def test_the_count_is_bounded_also_before_anything_was_measured() -> None:
    line = Line(max_unfinished=10)
    assert [line.send() for _ in range(12)] == [True] * 10 + [False] * 2


async def test_requests_on_their_way_in_count() -> None:
    line = Line(max_unfinished=2)
    line.admission.enter("live")
    place = line.admission.enter("live")
    with pytest.raises(Overloaded, match="2 jobs are unfinished"):
        line.admission.enter("live")
    place.leave()
    line.admission.enter("live")


async def test_who_lets_the_line_wait_loses_the_place_and_gets_another_where_there_is_one() -> None:
    line = Line(max_unfinished=2)
    slow, prompt = line.admission.enter("live"), line.admission.enter("live")
    prompt.arrived()
    line.now = PATIENCE + 0.1
    assert line.admission.waiting() == 1  # the one that is all here keeps its place for as long as it takes
    other = line.admission.enter("live")
    with pytest.raises(Overloaded):
        slow.arrived()
    other.leave()
    slow.arrived()
    assert line.admission.waiting() == 2
    for place in (slow, other, prompt):
        place.leave()
    assert line.admission.waiting() == 0


async def test_bulk_is_refused_first() -> None:
    line = Line(max_unfinished=10)
    assert [line.send("bulk") for _ in range(6)] == [True] * 5 + [False]
    assert line.send("live")


async def test_a_pipeline_that_is_stuck_leaves_half_of_the_line_to_the_others() -> None:
    line = Line(max_unfinished=100)
    line.admission.queued({"stuck.live": 30, "stuck.bulk": 21, "a.b.live": 3})
    with pytest.raises(Overloaded, match="51 jobs wait for the pipeline 'stuck'"):
        line.admission.enter("live", "stuck")
    line.admission.enter("live", "a.b")
    line.admission.queued({"stuck.live": 40})
    line.admission.enter("live", "stuck")


async def test_a_few_jobs_that_are_tried_again_and_again_close_no_door() -> None:
    line = Line()
    stuck = [f"poison-{n}" for n in range(10)]
    await line.run(3, offered=50, capacity=100)
    for _ in range(300):  # a picture each second comes back at once, ten others never do
        line.now += 0.2
        line.jobs = list(stuck)
        await line.admission.look()
        assert line.send()
        line.now += 0.05
        line.admission.completed(str(line.number))
        line.now += 0.75


async def test_when_nothing_comes_back_any_more_jobs_are_refused_until_something_does() -> None:
    line = Line()
    await line.run(3, offered=200, capacity=100)
    accepted, refused, _ = await line.run(6, offered=20, capacity=0)
    assert refused > accepted
    await line.run(3, offered=20, capacity=100)
    assert (await line.run(3, offered=20, capacity=100))[1] == 0


async def test_a_refusal_says_when_to_come_back() -> None:
    line = Line(max_unfinished=1)
    line.send()
    with pytest.raises(Overloaded) as refused:
        line.admission.enter("live")
    assert 1.0 <= refused.value.retry_after <= 5.0


def test_bodies_share_a_budget_and_give_it_back() -> None:
    budget = ByteBudget(100)
    with budget.hold(60) as hold:
        with budget.hold(60):
            assert budget.free == 100  # what is announced takes no room
        hold.grow(60)
        with pytest.raises(Overloaded), budget.hold(60):
            pass
        with budget.hold(0) as other, pytest.raises(Overloaded):
            other.grow(60)
    assert budget.free == 100
    with budget.hold(0) as hold:
        hold.grow(30)
        hold.grow(20)
        assert budget.free == 70
    assert budget.free == 100


def test_a_body_that_takes_long_is_refused_once_memory_is_short() -> None:
    now = 0.0
    budget = ByteBudget(100, lambda: now)
    with budget.hold(0) as slow, budget.hold(0) as other:
        now = UNHURRIED + 1
        slow.grow(40)
        with budget.hold(0) as prompt:
            prompt.grow(20)
            with pytest.raises(Overloaded, match="not here after 11 s"):
                slow.grow(41)
        other.grow(1)
