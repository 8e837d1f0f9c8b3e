"""People decide on pictures in a real browser: by keys alone, by mouse, by fields; and nothing they decided is lost."""

import io
import json
import re
import sys
import time
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pypdf
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from eyeline.core.clock import utcnow
from eyeline.core.types import Result
from eyeline.gateway import events
from eyeline.inference.bundles import pinned
from eyeline.stores.results import finding
from eyeline.stores.results.review import Doubt, ReviewQuery
from tests.browsers import AWAY, Desk, Watched, watched_page
from tests.dashboards import (
    CORRECTED,
    HOSTILE,
    ITEM,
    Site,
    dashboard,
    detection,
    made_result,
    parcel_finder,
    settings_of,
)

SITES = [{"name": "north", "timezone": "Europe/Berlin"}]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A dashboard of its own: what waits is decided here."""
    with dashboard(settings_of(tmp_path_factory.mktemp("review"), sites=SITES)) as running:
        yield running


@pytest.fixture
def watched(desk: Desk, site: Site) -> Iterator[Watched]:
    with desk.lent(site.url) as each:
        yield each


@pytest.fixture
def waiting(site: Site) -> list[Result]:
    """Three pictures that wait, in this order, before anything that other tests left."""
    made = [
        made_result(
            None,
            "north",
            ref=HOSTILE,
            detections=[detection("carton", 0.4), detection("bag", 0.3, (300, 60, 500, 200))],
        )
        for _ in range(3)
    ]
    first = utcnow().timestamp()
    site.keep(made, doubts={one.id: Doubt(first - number * 1e-3, "low score") for number, one in enumerate(made)})
    return made


def kinds(site: Site, result: Result) -> list[str]:
    return [record.kind for record in site.run(site.results.verdicts(result.id))]


def decided(page: Page, site: Site, result: Result, *expected: str) -> None:
    """Waits in the page's own loop: what it sends goes through it."""
    deadline = time.monotonic() + 30
    while kinds(site, result) != list(expected):
        assert time.monotonic() < deadline, f"{kinds(site, result)} are not {expected}"
        page.wait_for_timeout(50)


def opened(page: Page, site: Site, path: str = "/review") -> Page:
    page.goto(f"{site.url}{path}")
    page.wait_for_selector("#stage:not([hidden])")
    return page


def test_a_picture_is_corrected_by_keys_alone(watched: Watched, site: Site, waiting: list[Result]) -> None:
    page = opened(watched.page, site)
    press = page.keyboard.press
    press("Tab")  # the second box
    press("1")  # the first of the model's classes
    for key in ("Shift+ArrowLeft", "ArrowDown", "Alt+ArrowRight", "b", "ArrowRight"):
        press(key)
    assert page.locator("#boxes tr").count() == 3
    assert page.locator("[data-run=confirm]").inner_text().startswith("Save correction")
    assert "Box 3 of 3" in page.locator("#said").inner_text()
    press("y")
    decided(page, site, waiting[0], "corrected")
    verdict = site.run(site.results.verdicts(waiting[0].id))[0]
    assert verdict.after is not None
    kept, changed, drawn = verdict.after.detections
    assert (kept.step, kept.score, kept.box) == ("find", 0.4, (40, 40, 200, 160))
    assert (changed.step, changed.box) == ("human", (290, 61, 491, 201))
    assert changed.label != "bag"
    assert drawn.step == "human"
    page.wait_for_selector("#saving[data-state=saved]")
    press("n")  # the next picture is there already
    press("z")  # and is taken back
    decided(page, site, waiting[1], "rejected", "undo")
    page.wait_for_selector(f"#record[href='/audit/{waiting[1].id}']")
    press("y")
    decided(page, site, waiting[1], "rejected", "undo", "confirmed")


def test_what_is_seen_is_changed_by_keys_and_what_is_unsure_is_left_to_another(
    watched: Watched, site: Site, waiting: list[Result]
) -> None:
    site.run(site.results.hold_review(waiting[1].id, "Ana", 60))
    page = opened(watched.page, site)
    press = page.keyboard.press

    def seen() -> str:
        """What the canvas shows once it stays as it is."""
        before, now = "", ""
        while not now or now != before:
            page.wait_for_timeout(30)
            before, now = now, page.locator("#canvas").evaluate("canvas => canvas.toDataURL('image/jpeg', 0.5)")
        return now

    page.evaluate(f"fetch('/v1/results/{waiting[0].id}/image?width=1600').then(answer => answer.blob())")
    usual = seen()
    for key in ("+", "i"):
        press(key)
        assert seen() != usual
        press("-" if key == "+" else "i")
        assert seen() == usual
    for key in ("+", "+", "0"):
        press(key)
    assert seen() == usual
    page.keyboard.down("h")
    assert seen() != usual
    page.keyboard.up("h")
    assert seen() == usual
    press("Space")
    page.wait_for_selector(f"#record[href='/audit/{waiting[1].id}']")
    assert page.locator("#held").inner_text() == "Ana is reviewing this picture"
    press("Backspace")
    page.wait_for_selector(f"#record[href='/audit/{waiting[0].id}']")
    assert page.locator("#held").is_hidden()
    done = int(page.locator("#progress").inner_text().split()[0])
    press("c")
    page.keyboard.type("glare")
    press("Enter")
    press("u")
    decided(page, site, waiting[0], "unsure")
    assert site.run(site.results.verdicts(waiting[0].id))[0].comment == "glare"
    assert page.locator("#progress").inner_text().startswith(f"{done + 1} of ")
    page.reload()
    page.wait_for_selector(f"#record[href='/audit/{waiting[1].id}']")  # for this reviewer the other one is done
    queues = [site.run(site.results.to_review(ReviewQuery(by=by))) for by in ("", "ben")]
    assert [waiting[0].id in [each.result.id for each in queue] for queue in queues] == [False, True]


def test_a_box_is_drawn_and_moved_by_mouse_and_typed_in_fields(
    watched: Watched, site: Site, waiting: list[Result]
) -> None:
    page = opened(watched.page, site)
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    scale = min(stage["width"] / 512, stage["height"] / 288, 2)
    left, top = stage["x"] + (stage["width"] - 512 * scale) / 2, stage["y"] + (stage["height"] - 288 * scale) / 2

    def drag(x1: float, y1: float, x2: float, y2: float) -> None:
        page.mouse.move(left + x1 * scale, top + y1 * scale)
        page.mouse.down()
        page.mouse.move(left + x2 * scale, top + y2 * scale, steps=4)
        page.mouse.up()

    drag(120, 100, 130, 110)  # the first box is moved
    drag(250, 220, 290, 280)  # where there is none, one is drawn
    rows = page.locator("#boxes tr")
    assert [rows.nth(0).locator(f"[data-f={name}]").input_value() for name in "xywh"] == ["50", "50", "160", "120"]
    assert [rows.nth(2).locator(f"[data-f={name}]").input_value() for name in "xywh"] == ["250", "220", "40", "60"]
    rows.nth(2).locator("[data-f=w]").fill("9999")
    rows.nth(2).locator("[data-f=label]").fill("torn label")
    rows.nth(2).locator("[data-f=label]").press("Tab")
    page.locator("[data-run=confirm]").click()
    decided(page, site, waiting[0], "corrected")
    after = site.run(site.results.verdicts(waiting[0].id))[0].after
    assert after is not None
    assert (after.detections[2].label, after.detections[2].box[2]) == ("torn label", 512)


def test_news_that_were_missed_and_a_session_that_ends_lose_nothing_that_was_drawn_written_or_decided(
    watched: Watched, site: Site, waiting: list[Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    holds: list[Route] = []
    watched.page.route("**/hold", lambda route: holds.append(route))  # noqa: PLW0108 - a builtin cannot be marked
    page = opened(watched.page, site)
    page.keyboard.press("ArrowDown")
    page.locator("#comment").fill("glue")
    with monkeypatch.context() as patched:
        patched.setattr(events, "FURTHEST", -1)  # whoever comes back is told to load everything anew
        watched.allowed += AWAY
        site.stop()
        site.start()
        expect(page.locator("#fresh")).to_have_text("● New data")
    signed_out = '{"title": "Unauthorised", "status": 401, "detail": "sign in again", "code": "unauthorised"}'
    away = re.compile(r"/v1/results/.*/verdicts$")

    def refuse(route: Route) -> None:
        route.fulfill(status=401, content_type="application/problem+json", body=signed_out)

    watched.allowed += ["401"]
    refuse(holds[0])
    expect(page.locator("#toasts")).to_contain_text("Sign in in another tab")
    assert page.locator("#comment").input_value() == "glue"
    page.locator("#comment").press("Enter")
    page.route(away, refuse)
    with page.expect_navigation(url=re.compile("/login")):  # and from there back
        page.keyboard.press("y")
    assert kinds(site, waiting[0]) == []
    page.unroute(away)
    decided(page, site, waiting[0], "corrected")
    assert site.run(site.results.verdicts(waiting[0].id))[0].comment == "glue"
    page.wait_for_selector("#saving[data-state=saved]")  # by the page that it came back to, which asks for the next one
    page.wait_for_selector(f"#record[href='/audit/{waiting[1].id}']")
    watched.allowed += ["ERR_INTERNET_DISCONNECTED"]
    page.context.set_offline(True)
    page.keyboard.press("n")
    page.wait_for_selector("#saving[data-state=failed]")
    page.context.set_offline(False)  # and nobody presses anything
    decided(page, site, waiting[1], "rejected")
    page.wait_for_selector("#saving[data-state=saved]")


def test_without_a_script_a_form_decides(browser: Browser, site: Site, waiting: list[Result]) -> None:
    with watched_page(browser, base_url=site.url, java_script_enabled=False) as watched:
        watched.page.goto("/review")
        watched.page.locator("button[value=rejected]").click()
        decided(watched.page, site, waiting[0], "rejected")


def test_a_record_prints_on_one_page_with_its_hash(page: Watched, full: Site, tmp_path: Path) -> None:
    result = full.run(full.results.get(CORRECTED))
    assert result is not None
    assert result.image is not None
    weights = pinned(full.settings.inference.models, "parcel-finder", parcel_finder())
    assert weights is not None
    late = {"state": "live", "health": {"conditions": {"clock": "the camera's clock is 7 s behind this one"}}}
    full.run(full.results.report_camera(result.camera or "", result.site, late))
    full.alert(result, rule="settled long ago", state="resolved", disposition="real")
    page.page.goto(f"/audit/{CORRECTED}")
    page.page.locator(".record__frame img").evaluate("image => image.decode()")
    printed = pypdf.PdfReader(io.BytesIO(page.page.pdf(prefer_css_page_size=True)))
    assert len(printed.pages) == 1
    text = printed.pages[0].extract_text()
    for digest in (result.image.sha256, weights["weights.onnx"], weights["model.toml"]):
        assert " ".join(re.findall("....", digest)) in re.sub(r"\s+", " ", text)
    assert "7 s behind" in text
    assert CORRECTED in text
    assert "verified" in text.replace("ﬁ", "fi")
    assert HOSTILE in text
    assert re.search("settled long ago.*Resolved.*Real", text)
    assert "Pause" not in text


def test_a_record_shows_what_was_corrected_and_its_way_and_gives_its_pack_and_address(page: Watched) -> None:
    tab = page.page
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto(f"/audit/{CORRECTED}")
    tab.get_by_role("link", name="Difference").click()
    tab.wait_for_url("**show=difference")
    changes = [f".record__boxes tr:nth-child({number}) td:last-child" for number in (1, 2, 3)]
    assert [tab.locator(each).inner_text() for each in changes] == ["removed", "added", "added"]
    drawn = [
        tab.locator(f".record__frame .box{kind}").count() for kind in ("--removed", "--added", "--struck", "--inner")
    ]
    assert drawn == [1, 2, 1, 1]
    stages = tab.locator(".record__timings tr")
    assert stages.locator("th").all_inner_texts() == ["fetch", "decode", "preprocess", "infer", "postprocess"]
    bars = stages.locator("rect").evaluate_all(
        "found => found.map(each => [each.x, each.width].map(of => of.baseVal.value))"
    )
    ends = [sum(bar) for bar in bars]
    assert [bar[0] for bar in bars] == pytest.approx([0, *ends[:-1]], abs=0.05)
    assert ends[-1] == pytest.approx(100, abs=0.05)
    tab.get_by_role("button", name="Copy link").click()
    expect(tab.locator(".toast")).to_have_text("The address is copied")
    assert tab.evaluate("navigator.clipboard.readText()") == tab.url
    with tab.expect_download() as waited:
        tab.get_by_role("link", name="Evidence pack").click()
    with zipfile.ZipFile(waited.value.path()) as pack:
        assert {"original.jpeg", "corrected.png", "record.json"} <= set(pack.namelist())


def test_a_search_is_typed_narrowed_and_says_what_excluded_everything(page: Watched) -> None:
    tab = page.page
    tab.goto("/audit")
    tab.keyboard.press("/")
    tab.keyboard.press("Control+a")
    tab.keyboard.type("verdict:corrected by:ana")
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile("q=verdict"))
    assert tab.locator("#results tbody tr").count() == 1
    assert "PAL-7" in tab.locator("#results").inner_text()
    tab.goto("/audit?verdict=corrected&score=<0.1")
    assert tab.locator("[data-search]").input_value() == "score:<0.1 verdict:corrected"
    tab.locator(".empty a", has_text="score:<0.1").click()
    tab.wait_for_url(re.compile("q=verdict"))  # and its scripts
    assert tab.locator("#results tbody tr").count() == 1
    tab.locator("[data-search]").fill("camera:belt-0")
    tab.wait_for_selector("#words option", state="attached")
    words = tab.locator("#words option").evaluate_all("found => found.map(each => each.value)")
    assert words[:2] == ["camera:belt-01", "camera:belt-02"]
    tab.goto(f"/audit?q=ref:{ITEM}")
    newest = tab.locator("#results a[href^='/audit/']").first.get_attribute("href")
    tab.locator("#order").click()
    tab.wait_for_url(re.compile("order=oldest"))
    assert tab.locator("#results tbody tr").last.locator("a").first.get_attribute("href") == newest
    tab.locator(".audit__columns summary").click()
    tab.locator(".audit__columns a", has_text="Found").click()
    tab.wait_for_url(re.compile("cols="))
    heads = tab.locator("#results th").all_inner_texts()
    assert ("Captured" in heads, "Found" in heads) == (True, False)
    tab.keyboard.press("t")
    tab.wait_for_url(re.compile("view=gallery.*order=oldest"))
    assert tab.locator("ul#results li").count() == 3


def test_a_search_is_narrowed_by_hand_exported_and_made_a_rule(
    page: Watched, full: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab, now = page.page, utcnow()
    for minutes in (0, 60, 120):
        full.result("belt-01", ref="narrow", at=now - timedelta(minutes=minutes))
    tab.goto("/audit?q=ref:narrow+score:>=0.5&cols=ref,found")
    rows, brush = tab.locator("#results tbody tr"), tab.locator("#brush[tabindex]")
    tab.wait_for_selector("#brush[tabindex]")
    tab.keyboard.press("h")
    for key, told in (
        ("ArrowLeft", "1 result, "),
        ("Shift+ArrowRight", "1 result, "),
        ("Shift+ArrowLeft", "1 result, "),
    ):
        tab.keyboard.press(key)
        assert tab.locator("#brushed").inner_text().startswith(told)
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile("from.*cols=ref"))
    assert rows.count() == 1
    tab.go_back()
    tab.wait_for_selector("#brush[tabindex]")
    box = brush.bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + 2, box["y"] + 50)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20, steps=3)
    assert tab.locator("#brushed").inner_text().startswith("2 results, ")
    tab.mouse.up()
    tab.wait_for_url(re.compile("from"))
    assert rows.count() == 2
    with tab.expect_download() as waited:
        tab.get_by_role("link", name="Export CSV").click()
    assert waited.value.suggested_filename == "results.csv"
    assert waited.value.path().read_text().count("narrow") == 2
    monkeypatch.setattr(finding, "COUNTED", 1)  # more than are counted: in the background
    tab.reload()
    tab.get_by_role("button", name="Export CSV").click()
    tab.wait_for_url(re.compile("#exports"))
    with tab.expect_download() as waited:
        tab.locator("[data-f=file]").first.click()
    assert waited.value.path().read_text().count("narrow") == 2
    tab.locator("[data-f=remove]").first.click()
    expect(tab.locator("#exports li", has_text="narrow")).to_have_count(0)
    with full.client() as client:
        assert [each["state"] for each in client.get("/v1/exports").json()["exports"]] == ["done", "failed"]
    tab.wait_for_selector("#brush[tabindex]")
    tab.keyboard.press("n")
    tab.wait_for_url(re.compile("/rules/edit"))
    assert tab.locator("[name=when]").input_value() == "ref == 'narrow' and score >= 0.5"
    assert re.findall("(from|until):20", tab.locator("#carried li").all_inner_texts().__str__()) == ["from", "until"]


def test_an_export_is_recorded_and_says_what_is_missing(full: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"format": "csv", "limit": "2", "q": f"ref:{ITEM}"}
    with full.client() as client:
        assert client.get("/v1/results/export", params=asked).text.count(ITEM) == 2
        said = [json.loads(row.body or b"{}") for row in full.run(full.results.unsealed(1000, bodies=True))]
        [export] = [each for each in said if each.get("what") == "export" and each.get("limit") == 2]
        assert (export["format"], export["q"]) == ("csv", f"ref:{ITEM}")
        assert "format=parquet" in client.get("/audit").text
        monkeypatch.setattr("eyeline.dashboard.pages.audit.parquet_here", lambda: False)
        page = client.get("/audit").text
        assert ("format=parquet" in page, "Parquet needs pip install &#39;eyeline[parquet]&#39;" in page) == (
            False,
            True,
        )
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        refused = client.get("/v1/results/export", params=asked | {"format": "parquet"})
        assert (refused.status_code, "eyeline[parquet]" in refused.json()["detail"]) == (400, True)


def test_a_thing_is_followed_and_its_first_damage_is_marked(page: Watched) -> None:
    tab = page.page
    tab.goto("/audit?q=ref:PAL-*")
    tab.locator("#results a", has_text="PAL-7").first.click()
    tab.wait_for_url(re.compile("/items/PAL-7"))
    assert tab.locator("h1").inner_text() == "PAL-7"
    assert tab.locator(".item__pictures li").count() == 3
    assert "belt-02" in tab.locator("#first-damage").inner_text()
    with tab.expect_download() as waited:
        tab.locator("a[download]").click()
    assert waited.value.suggested_filename.endswith(".zip")
