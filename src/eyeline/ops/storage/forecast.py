"""How much will be kept, and when the disk is full: what came each day, carried on, and let go as retention says. Pure.

A straight line through what is kept would see a full disk where retention is about to let go as much as comes. So what comes is
forecast (a mean for each day of the week, and the trend of the last weeks, which is not believed for ever), and every
day of it, past or to come, is followed through its stages.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from eyeline.ops.storage.policy import Terms

#: Days of the past that tell what comes on each day of the week.
LOOK_BACK = 56
#: Weeks that tell the trend: at least, at most. Days for which it is carried on, the share of it that is believed (what looks
#: like a trend is noise as often as not), and the most that it may add or take in a week.
TREND_WEEKS, TREND_DAYS, BELIEVED, TREND_MOST = (6, 16), 90, 0.6, 0.05
DAY = 86_400.0

Days = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Came:
    """What came on a day: images, and bytes of pictures of their own."""

    images: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What was measured: the share of a picture's bytes that encoding anew leaves, and evidence; bytes of a result."""

    reencoded: float = 1.0
    evidence: float = 0.05
    result: float = 2000.0


History = Mapping[date, Mapping[str, Came]]


@dataclass(frozen=True)
class Outlook:
    """Bytes kept at the end of each day from `first` on: pictures with what was made of them, and the database."""

    first: date
    pictures: Days
    database: Days

    def on(self, day: date) -> float:
        """All of them."""
        index = (day - self.first).days
        return float(self.pictures[index] + self.database[index])


def outlook(history: History, classes: Sequence[Terms], shares: Shares, today: date, days: int) -> Outlook:
    """From the first day of the history to so many days after `today`, which is not over and not believed."""
    first = min(history, default=today)
    known = max(0, (today - first).days)
    pictures, database = np.zeros(known + days + 1), np.zeros(known + days + 1)
    for terms in classes:
        came = [history.get(first + timedelta(days=each), {}).get(terms.name, Came()) for each in range(known)]
        size = _carried_on(np.array([each.bytes for each in came]), first, days + 1)
        images = _carried_on(np.array([each.images for each in came]), first, days + 1)
        pictures += _kept(size, _picture_shares(terms, shares, len(size)))
        database += _kept(images * shares.result, _until(terms.results, len(size)))
    return Outlook(first, pictures, database)


def full_on(view: Outlook, today: date, room: float) -> date | None:
    """The day on which what is kept has grown by `room` bytes since today; None within the outlook."""
    now = view.on(today)
    start = (today - view.first).days
    for index in range(start, len(view.pictures)):
        if view.pictures[index] + view.database[index] - now > room:
            return view.first + timedelta(days=index)
    return None


def _carried_on(came: Days, first: date, days: int) -> Days:
    """What came, and what is likely to come on so many days after."""
    recent = came[-LOOK_BACK:]
    if not len(recent):
        return np.zeros(len(came) + days)
    weekday = (first.weekday() + len(came) - len(recent) + np.arange(len(recent))) % 7
    usual = np.array([_middle(recent[weekday == each] if (weekday == each).any() else recent) for each in range(7)])
    ahead = np.arange(days)
    distance = np.minimum(ahead, TREND_DAYS) + len(recent) / 2
    coming = usual[(first.weekday() + len(came) + ahead) % 7] * np.maximum(0.0, 1.0 + _trend(came) * distance / 7)
    return np.concatenate([came, coming])


def _middle(values: Days) -> float:
    """The mean of the middle half: a plant that was closed for a week is no habit."""
    ordered = np.sort(values)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def _trend(came: Days) -> float:
    """The change from week to week as a share of a usual week; by Theil and Sen, so that no single week rules."""
    least, most = TREND_WEEKS
    weeks = min(most, len(came) // 7)
    if weeks < least:
        return 0.0
    sums = came[len(came) - 7 * weeks :].reshape(weeks, 7).sum(1)
    slopes = [(sums[b] - sums[a]) / (b - a) for a in range(weeks) for b in range(a + 1, weeks)]
    usual = float(np.median(sums))
    growth = float(np.median(slopes)) / usual if usual else 0.0
    return float(np.clip(BELIEVED * growth, -TREND_MOST, TREND_MOST))


def _kept(came: Days, share: Days) -> Days:
    """How much is there at the end of each day, where `share` says what is left of a day's after so many days."""
    kept: Days = np.convolve(came, share)[: len(came)]
    return kept


def _until(seconds: float, days: int) -> Days:
    """Everything, until then; in the day that it ends half of it, for a day's images come all day long."""
    if math.isinf(seconds):
        return np.ones(days)
    return np.clip(seconds / DAY - np.arange(days) + 0.5, 0.0, 1.0)


def _picture_shares(terms: Terms, shares: Shares, days: int) -> Days:
    """What is left of a picture's bytes after so many days: as received, encoded anew, evidence, nothing."""
    originals = _until(terms.originals, days)
    received = np.minimum(_until(terms.reencode, days), originals)
    evidence = np.maximum(0.0, _until(terms.evidence, days) - originals) if terms.makes_evidence else np.zeros(days)
    kept: Days = received + (originals - received) * shares.reencoded + evidence * shares.evidence
    return kept


def byte_seconds(terms: Terms, shares: Shares, picture: float, within: float) -> float:
    """Bytes that one image takes, times seconds, within so many seconds of its reception: what storage is paid by."""
    originals, evidence = min(terms.originals, within), min(terms.evidence, within)
    received = min(terms.reencode, originals)
    size = received + (originals - received) * shares.reencoded
    if terms.makes_evidence:
        size += (evidence - originals) * shares.evidence
    return picture * size + shares.result * min(terms.results, within)
