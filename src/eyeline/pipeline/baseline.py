"""What is usual for a number that is measured again and again: hourly means of up to 14 days. Pure."""

import statistics

import msgspec

HOUR = 3600
LONGEST = 14 * 24
#: Hours that must be known before anything is called unusual.
ENOUGH = 24
#: Hours of the same time of day that must be known to compare with them alone.
SAME_TIME = 5
#: Deviations from what is usual that are called a drift.
FAR = 4.0


class Drift(msgspec.Struct, frozen=True):
    """Now against what is usual; `hours` is how many hours that stands on."""

    now: float
    usual: float
    hours: int


class Baseline(msgspec.Struct):
    """Hour (Unix time / 3600) → (how many values, their mean): some 336 pairs, whatever the rate."""

    hours: dict[int, tuple[int, float]] = {}

    def add(self, value: float, moment: float) -> None:
        """Count a value measured at `moment` (Unix seconds)."""
        hour = int(moment // HOUR)
        count, mean = self.hours.get(hour, (0, 0.0))
        self.hours[hour] = (count + 1, mean + (value - mean) / (count + 1))
        if len(self.hours) > LONGEST:
            for old in [known for known in self.hours if known <= hour - LONGEST]:
                del self.hours[old]

    def drift(self, moment: float, floor: float) -> Drift | None:
        """The last hour, where it lies FAR deviations from what is usual; None where it does not, or where too little is known.

        Compared with the same time of day where enough days are known, since most places have their own day and night.
        `floor` is the least deviation that is taken for real, so that a number that never moved may move a little.
        """
        hour = int(moment // HOUR)
        recent = [self.hours[each] for each in (hour - 1, hour) if each in self.hours]
        older = {each: mean for each, (_, mean) in self.hours.items() if hour - LONGEST < each < hour - 1}
        if not recent or len(older) < ENOUGH:
            return None
        same = [mean for each, mean in older.items() if min((each - hour) % 24, (hour - each) % 24) <= 1]
        usual = same if len(same) >= SAME_TIME else list(older.values())
        count = sum(number for number, _ in recent)
        now = sum(number * mean for number, mean in recent) / count
        middle = statistics.fmean(usual)
        far = abs(now - middle) > FAR * max(statistics.pstdev(usual), floor)
        return Drift(now, middle, len(usual)) if far else None
