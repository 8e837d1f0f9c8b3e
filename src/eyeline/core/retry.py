"""Waiting before the next try: exponential back-off with full jitter."""

import random


def backoff(attempt: int, *, base: float = 0.5, cap: float = 30.0) -> float:
    """Seconds to wait before try `attempt` + 1 (attempt counts from 1).

    Full jitter (Brooker, "Exponential Backoff and Jitter", 2015): uniform in 0..min(cap, base·2^(attempt−1)),
    but never under a tenth of that, so that a retry is never immediate.
    """
    ceiling = min(cap, base * 2.0 ** max(0, attempt - 1))
    return random.uniform(ceiling / 10, ceiling)
