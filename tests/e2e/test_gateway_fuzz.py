"""Nothing that is sent makes the gateway break: seeded nonsense in every string that a caller controls."""

import random
from pathlib import Path
from urllib.parse import quote_from_bytes

from eyeline.gateway import docs
from tests.gateways import jpeg, running

NASTY = [
    b"", b"\x00", b"..", b"../../../../etc/passwd", b"..%2f..%2f", b"..\\..\\", b"CON", b"/etc/passwd", b"a" * 5000,
    b"\xe2\x80\xaereversed", b"\xff\xfe\xfd", b"\r\nX: y", b"\x1b[31mred", b"' OR 1=1 --", b"${jndi:ldap://x}", b"NaN",
    b"-1", b"1e999", b"99999999999999999999", b"<script>alert(1)</script>", b"{{7*7}}", b"%s%n", b"\xf0\x9f\x92\xa9",
]  # fmt: skip
LISTS = [
    "/v1/results",
    "/v1/results/export",
    "/v1/results/summary",
    "/v1/results/words",
    "/v1/review",
    "/v1/items",
    "/v1/counts",
    "/v1/alerts",
    "/v1/events",
    "/v1/cameras",
    "/v1/sites",
]
NAMES = [
    "site", "camera", "pipeline", "label", "min_score", "status", "ref", "code", "since", "until", "cursor", "limit",
    "format", "state", "after", "kinds", "wait", "meta.x", "captured_at", "lane", "deadline", "overlay", "width", "by", "bucket",
    "q", "token", "text",
]  # fmt: skip


async def test_nonsense_is_refused_and_breaks_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    async with running(tmp_path) as here:
        for name in NAMES:
            for value in chance.sample(NASTY, 6):
                query = f"{name}={quote_from_bytes(value)}"
                path = chance.choice([each for each in LISTS if each != "/v1/events" or name in {"after", "kinds"}])
                if path != "/v1/events" or value not in {b"", b"99999999999999999999"}:
                    async with here.client.stream("GET", f"{path}?{query}") as answer:
                        assert answer.status_code < 500, (path, query)
                answer = await here.client.post(f"/v1/images?{query}", content=b"no picture")
                assert 400 <= answer.status_code < 500, query
        for value in NASTY:
            for path in (
                "/v1/jobs/{}",
                "/v1/results/{}",
                "/v1/results/{}/image",
                "/v1/items/{}",
                "/v1/alerts/{}/deliveries",
                "/{}",
            ):
                answer = await here.client.get(path.format(quote_from_bytes(value, safe="")))
                assert answer.status_code < 500, (path, value)
            answer = await here.client.put("/v1/cameras/x/status", content=value)
            assert answer.status_code < 500, value
            for media in (
                "application/json",
                "multipart/form-data; boundary=x",
                "multipart/form-data",
                "image/svg+xml",
            ):
                answer = await here.client.post("/v1/images", content=value, headers={"Content-Type": media})
                assert 400 <= answer.status_code < 500, (media, value)
        assert (await here.client.get("/readyz")).status_code == 200
    after = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    assert after == before  # nothing was written outside the data directory


async def test_random_bytes_after_a_good_head_are_refused_or_kept_never_a_500(tmp_path: Path) -> None:
    chance = random.Random(11)
    async with running(tmp_path) as here:
        for _ in range(60):
            picture = bytearray(jpeg(chance.randrange(1000)))
            for _ in range(chance.randrange(1, 20)):
                picture[chance.randrange(len(picture))] = chance.randrange(256)
            answer = await here.client.post("/v1/images", content=bytes(picture[: chance.randrange(len(picture))]))
            assert answer.status_code in {202, 413, 422}


def test_the_page_of_the_api_escapes_what_it_shows() -> None:
    operation = {"summary": "<script>", "parameters": [{"name": "<b>", "description": "<i>"}]}
    shown = docs.page({"paths": {"/<x>": {"get": operation}}})
    assert "<script>" not in shown
    assert "<b>" not in shown
