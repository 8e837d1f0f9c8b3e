import pytest

from eyeline.core.errors import (
    BadImage,
    BlobError,
    CacheError,
    ConfigError,
    InferenceError,
    InferenceUnavailable,
    Overloaded,
    QueueError,
    StoreError,
    TooLarge,
)
from eyeline.worker.outcome import (
    Awaited,
    Charge,
    DecoderDied,
    Drop,
    Expired,
    Fail,
    HandBack,
    LeaseLost,
    NotServed,
    Undeliverable,
    outcome,
)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadImage("cut short", code="truncated"), "truncated: cut short"),
        (TooLarge("60000 × 60000 pixels"), "too_large: 60000 × 60000 pixels"),
        (Expired("too late"), "expired: too late"),
        (BlobError("not there", transient=False), "image_missing: not there"),
        (Undeliverable("101 times"), "undeliverable: 101 times"),
    ],
)
def test_what_no_retry_can_mend_fails_at_once_with_its_reason(error: Exception, reason: str) -> None:
    assert outcome(error, 1) == Fail(reason)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (DecoderDied("SIGABRT"), "decoder_crashed"),
        (InferenceError("NaN"), "inference_error"),
        (ZeroDivisionError("nobody foresaw it"), "internal_error"),
    ],
)
def test_what_may_be_the_images_fault_is_charged_to_it(error: Exception, word: str) -> None:
    decision = outcome(error, 1)
    assert isinstance(decision, Charge)
    assert decision.reason.startswith(f"{word}: ")


@pytest.mark.parametrize(
    "error",
    [
        InferenceUnavailable("down"),
        StoreError("locked"),
        StoreError("gone", transient=False),
        QueueError("away"),
        CacheError("away"),
        BlobError("timed out"),
        NotServed("not ready"),
        Awaited("another leads"),
        ConfigError("no such model"),
        Overloaded("full", retry_after=3.0),
    ],
)
def test_what_is_not_the_images_fault_is_handed_back_uncharged(error: Exception) -> None:
    decision = outcome(error, 1)
    assert isinstance(decision, HandBack)
    assert decision.delay > 0


def test_delays_grow_with_deliveries_but_have_an_end() -> None:
    waits = [outcome(Awaited("x"), attempt) for attempt in (1, 5, 50)]
    assert [round(each.delay, 2) for each in waits if isinstance(each, HandBack)] == [0.05, 0.25, 2.0]
    late = outcome(StoreError("down"), 60)
    assert isinstance(late, HandBack)
    assert late.delay <= 60.0


def test_a_lost_lease_drops_the_work() -> None:
    assert outcome(LeaseLost("another has it"), 1) == Drop()


def test_a_full_service_is_given_the_time_it_asks_for() -> None:
    decision = outcome(Overloaded("full", retry_after=7.0), 1)
    assert isinstance(decision, HandBack)
    assert decision.delay >= 7.0
