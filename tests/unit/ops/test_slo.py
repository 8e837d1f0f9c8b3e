"""The service level table, from Prometheus text written down here."""

import pytest

from eyeline.core.figures import quantile
from eyeline.ops.slo import merged, read, table

PAGE = """
# TYPE eyeline_api_request_seconds histogram
eyeline_api_request_seconds_bucket{le="0.1",route="images",status="202"} 98
eyeline_api_request_seconds_bucket{le="0.3",route="images",status="202"} 100
eyeline_api_request_seconds_bucket{le="+Inf",route="images",status="202"} 100
eyeline_api_request_seconds_sum{route="images",status="202"} 5
eyeline_api_request_seconds_count{route="images",status="202"} 100
# TYPE eyeline_queue_wait_seconds histogram
eyeline_queue_wait_seconds_bucket{lane="live",le="1.0"} 10
eyeline_queue_wait_seconds_bucket{lane="live",le="5.0"} 100
eyeline_queue_wait_seconds_bucket{lane="live",le="+Inf"} 100
eyeline_queue_wait_seconds_sum{lane="live"} 200
eyeline_queue_wait_seconds_count{lane="live"} 100
# TYPE eyeline_stage_seconds histogram
eyeline_stage_seconds_bucket{stage="decode",le="+Inf"} 10
eyeline_stage_seconds_sum{stage="decode"} 0.05
eyeline_stage_seconds_count{stage="decode"} 10
eyeline_stage_seconds_bucket{stage="infer",le="+Inf"} 10
eyeline_stage_seconds_sum{stage="infer"} 2.0
eyeline_stage_seconds_count{stage="infer"} 10
# TYPE eyeline_images_total counter
eyeline_images_total{status="completed"} 98
eyeline_images_total{status="failed"} 2
"""


def test_the_table_has_five_rows_with_verdicts_and_the_stage_to_blame() -> None:
    rows = {row.name: row for row in table(read(PAGE), elapsed=10.0)}
    assert rows["API response p99"].verdict == "ok"
    assert rows["queue wait p99"].verdict == "missed"
    assert rows["queue wait p99"].blame == "infer (200.0 ms on average)"
    assert rows["error rate"].verdict == "missed"
    assert rows["GPU utilisation"].verdict == "not measured"
    assert rows["images per second"].measured == 10.0


def test_nothing_seen_is_not_measured_rather_than_fine() -> None:
    assert {row.verdict for row in table(read(""), elapsed=10.0)} == {"not measured"}


def test_a_quantile_is_linear_within_its_bucket() -> None:
    assert quantile({1.0: 50.0, 2.0: 100.0, float("inf"): 100.0}, 0.75) == pytest.approx(1.5)
    assert quantile({}, 0.99) is None


def test_histograms_of_replicas_add_up() -> None:
    assert merged([{1.0: 1.0, 2.0: 2.0}, {1.0: 3.0, 2.0: 4.0}]) == {1.0: 4.0, 2.0: 6.0}


def test_requests_that_asked_to_wait_say_nothing_about_how_fast_the_api_is() -> None:
    waited = PAGE.replace('route="images"', 'route="/v1/jobs/{id}?wait"').replace("0.1", "20").replace("0.3", "30")
    rows = {row.name: row for row in table(read(waited), elapsed=10.0)}
    assert rows["API response p99"].verdict == "not measured"
