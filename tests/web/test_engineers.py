"""People sign in with a real browser; engineers look at figures, models and the system, and change what they may."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect

from eyeline.core.backups import LAST, LastBackup
from eyeline.core.clock import isoformat, utcnow
from eyeline.core.ids import uuid7
from eyeline.core.types import Classification, ModelRef
from eyeline.dashboard.pages import system
from eyeline.gateway.auth import new_key
from eyeline.gateway.comparing import Asked, Comparison, Comparisons, Side
from eyeline.gateway.passwords import HASHER
from eyeline.gateway.recorder import rows_of
from eyeline.inference.bundles import bundled_folder
from eyeline.inference.servers import About, Servers
from eyeline.stores.results.base import (
    Action,
    DeliveryQuery,
    DeliveryRow,
    KeyRow,
    ReplicaRow,
    RuleRow,
    SeriesRow,
    UserRow,
)
from eyeline.stores.results.retaining import Hold
from eyeline.stores.results.review import Doubt
from tests.browsers import SCHEMES, WIDTHS, Desk, Watched, violations, watched_page
from tests.dashboards import (
    COMPARED,
    HOSTILE,
    SITES,
    Site,
    cameras,
    compare,
    dashboard,
    fill,
    made_result,
    settings_of,
)
from tests.fake_models import write_brightness_versions

PASSWORD = "correct horse battery"
NOTHING_YET = {"version": "1.0.0", "images": 0, "batch_size": None, "seconds_an_image": None}
HIDDEN = "CANARY1234"
expect.set_options(timeout=30_000)  # shared machines


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A line with two people, a key, failed jobs and figures."""
    folder = tmp_path_factory.mktemp("guarded")
    filed = [{"name": "filed", "sha256": "0" * 64, "role": "viewer"}]
    models = write_brightness_versions(folder / "models")
    inference = {"models": str(models), "url": "http://127.0.0.1:9"}  # nobody serves there
    channels = [{"name": "ops", "url": f"https://user:{HIDDEN}@ops.example.com/{HIDDEN}"}]
    tree: dict[str, Any] = {"keys": filed, "inference": inference, "alerts": {"channels": channels}}
    tree["outputs"] = [{"name": "wms", "url": f"mqtt://ops@10.1.0.5/{HIDDEN}", "secret": HIDDEN}]
    tree["retention"] = {"originals": "30d", "rules": [{"label": "damaged", "originals": "1y"}]}
    works = {"name": "works", "url": f"file://{bundled_folder()}/parcel-finder/golden", "site": "north"}
    with dashboard(settings_of(folder, sites=SITES, cameras=[*cameras(4), works], **tree)) as site:
        fill(site)
        compare(site)
        password = HASHER.hash(PASSWORD)
        for name, role in (("ana", "admin"), ("vic", "viewer")):
            row = UserRow(name=name, password=password, role=role, sites=(), created_at=utcnow())
            site.run(site.results.put_user(row))
        key = KeyRow(name="belt", sha256=new_key()[1], role="ingest", sites=("north",), created_at=utcnow())
        site.run(site.results.put_key(key))
        for number in range(2):
            site.result(
                "belt-01", status="failed", reason=f"corrupt: picture {number} {HOSTILE}", timings={"queue": 0.2}
            )
        add_figures(site)
        add_outlets(site)
        site.stop()
        site.start()  # with the people that there are now
        yield site


def add_figures(site: Site) -> None:
    """Add up what is there, without waiting for the recorder's next look."""
    events = site.run(site.results.tail(0, 500))
    rows: list[SeriesRow] = rows_of(events)
    assert rows
    while not site.run(
        site.results.add_series(rows, before=site.run(site.results.series_cursor()), after=events[-1].seq)
    ):
        pass  # the gateway's own recorder moved the cursor meanwhile


def add_outlets(site: Site) -> None:
    """A channel that gave one alert up, an output that is behind, a legal hold and a backup."""
    now, late = utcnow(), utcnow() - timedelta(hours=2)
    word: dict[str, Any] = {"alert_id": "", "channel": "ops", "payload": b"{}", "captured_at": late, "next_at": now}
    said = f"HTTP 500: {HOSTILE}"
    given_up = DeliveryRow(id=uuid7(), state="failed", attempts=10, last_error=said, site="north", **word)
    trouble = {"attempts": 3, "error": "not reached", "at": now}
    state = {"outputs/wms/cursor": b"1", "outputs/wms/trouble": msgspec.json.encode(trouble)}
    site.run(site.results.commit_alerts(state=state, alerts=[], deliveries=[given_up]))
    hold = Hold(id=uuid7(), placed_at=now, by="ana", reason=f"claim 12 {HOSTILE}", ref="order 7", site="north")
    site.run(site.results.place_hold(hold))
    last = LastBackup(at=isoformat(late), to="/srv/backups/monday", blobs=12, bytes=3_400_000)
    site.run(site.results.keep_state(LAST, msgspec.json.encode(last), Action(what="backup")))


@pytest.fixture
def visitor(desk: Desk, guarded: Site) -> Iterator[Watched]:
    """A page, signed in nowhere."""
    with desk.lent(guarded.url) as watched:
        yield watched


def sign_in(page: Page, name: str = "ana", password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def signed_in(page: Page, path: str, name: str = "ana") -> None:
    """To a page as somebody who signed in before."""
    answer = page.request.post("/v1/session", data={"name": name, "password": PASSWORD})
    assert answer.ok, answer.text()
    page.goto(path)


def test_a_page_leads_to_the_form_and_the_form_back_with_its_filters(visitor: Watched, guarded: Site) -> None:
    page = visitor.page
    page.goto("/operations?range=24h")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    sign_in(page, password="not the one")
    expect(page.get_by_role("alert").first).to_contain_text("do not go together")
    sign_in(page)
    expect(page.get_by_role("heading", name="Operations", exact=True)).to_be_visible()
    expect(page).to_have_url(f"{guarded.url}/operations?range=24h")
    kept = next(cookie for cookie in page.context.cookies() if cookie["name"] == "eyeline")
    assert kept["httpOnly"]
    assert kept["sameSite"] == "Strict"
    # the session ends elsewhere: the next step leads to the form, and from there to where it wanted to go
    user = next(user for user in guarded.run(guarded.results.users()) if user.name == "ana")
    guarded.run(guarded.results.put_user(user))
    visitor.allowed.append("401")
    expect_signed_out(guarded, kept["value"])
    page.keyboard.press("2")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    sign_in(page)
    # what a chart asks for by itself may have led to the form before the key did
    expect(page).to_have_url(re.compile(re.escape(guarded.url) + r"/operations\?range=(1h|24h)$"))
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto("/system")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def expect_signed_out(site: Site, token: str) -> None:
    from tests.system import until

    def refused() -> bool:
        return httpx.get(f"{site.url}/v1/session", headers={"Cookie": f"eyeline={token}"}).status_code == 401

    until(refused, 20, "the session is over")


def test_signing_in_needs_no_scripts(browser: Browser, guarded: Site) -> None:
    with watched_page(browser, base_url=guarded.url, java_script_enabled=False) as watched:
        watched.page.goto("/system")
        sign_in(watched.page)
        expect(watched.page.get_by_role("heading", name="System", exact=True)).to_be_visible()
        expect(watched.page).to_have_url(f"{guarded.url}/system")


def test_a_viewer_sees_how_it_is_and_no_way_to_change_it(visitor: Watched, guarded: Site) -> None:
    page = visitor.page
    signed_in(page, "/system", "vic")
    expect(page.get_by_role("heading", name="System", exact=True)).to_be_visible()
    for path in ("/system", "/models", "/operations"):
        page.goto(path)
        page.wait_for_selector("html[data-script=on]")
        assert page.locator("main [data-act]").count() == 0, path
        assert page.locator("main input[type=checkbox]").count() == 0, path
    assert page.get_by_text("API keys").count() == 0
    assert page.get_by_text("All settings").count() == 0
    page.goto("/system")
    assert page.locator("form[action^='/system']").count() == 0
    assert page.get_by_text("Legal holds").count() == 0
    page.get_by_label("Present password").fill("not my password")
    page.get_by_label("Password (10 characters or more)").fill("another horse battery")
    page.get_by_role("button", name="Change password").click()
    expect(page.locator("#you [role=status]")).to_contain_text("not your present password")


def test_an_operator_sees_what_does_not_get_out_and_sends_it_again_without_scripts(
    browser: Browser, guarded: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "TEST", 0.0)
    with watched_page(browser, base_url=guarded.url, java_script_enabled=False) as watched:
        page = watched.page
        signed_in(page, "/system")
        assert HIDDEN not in page.content()
        outlets = page.locator("#outlets")
        expect(
            outlets.get_by_role("row", name=re.compile("^ops channel of alerts Warning 1 has failed"))
        ).to_contain_text("HTTP 500")
        expect(outlets.get_by_role("row", name=re.compile("^wms output"))).to_contain_text("events behind")
        outlets.get_by_role("button", name="Send again").click()
        expect(outlets.get_by_role("status")).to_contain_text("waits to be sent")
        expect(outlets).to_contain_text("Nothing was given up")
        outlets.get_by_role("button", name="Test ops").click()
        expect(outlets.get_by_role("status")).to_contain_text("A test of ops")
        found, _ = guarded.run(guarded.results.find_deliveries(DeliveryQuery(channel="ops", state="pending")))
        assert [row.kind for row in found] == ["test", "alert"]
        rules = page.get_by_role("group", name="How long things are kept")
        expect(rules.get_by_role("row", name="label damaged 1y for ever for ever")).to_be_visible()
        expect(page.get_by_role("row", name=re.compile("^claim 12"))).to_contain_text("ref order 7, site north")
        expect(page.get_by_text("3.4 MB with 12 pictures")).to_be_visible()


def test_an_admin_replays_failed_jobs_revokes_a_key_and_lets_people_in(visitor: Watched, guarded: Site) -> None:
    page = visitor.page
    signed_in(page, "/system")
    expect(page.get_by_text("from eyeline.toml").first).to_be_visible()
    # failed jobs
    page.get_by_role("button", name="Choose all").click()
    page.get_by_role("button", name="Replay the chosen").click()
    expect(page.get_by_text("2 jobs are tried anew")).to_be_visible()
    assert sum(row.count for row in guarded.run(guarded.results.line())) == 2
    # a key
    page.get_by_role("row", name=re.compile("^belt ")).get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("heading", name="Revoke belt?")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("row", name=re.compile("^belt ")).get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row", name=re.compile("^belt ")).get_by_text("Revoked")).to_be_visible()
    assert page.get_by_role("row", name=re.compile("^filed ")).get_by_role("button").count() == 0
    page.get_by_role("button", name="Make a key").click()
    page.get_by_role("dialog").get_by_label("Name").fill("scanner")
    page.get_by_role("dialog").get_by_label("north").check()
    page.get_by_role("dialog").get_by_label("Valid until").fill("2099-01-31")
    page.get_by_role("dialog").get_by_role("button", name="Make a key").click()
    secret = page.locator(".secret").inner_text()
    told = httpx.get(f"{guarded.url}/v1/session", headers={"Authorization": f"Bearer {secret}"}).json()
    assert (told["name"], told["sites"]) == ("scanner", ["north"])
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.get_by_role("row", name=re.compile("^scanner "))).to_contain_text("2099-01-31")
    # a person; what is wrong is said in the form
    visitor.allowed.append("400")
    page.get_by_role("button", name="Add a person").click()
    form = page.get_by_role("dialog")
    form.get_by_label("Name").fill("ben")
    form.get_by_label("Password").fill("aaaaaaaaaaaa")
    form.get_by_role("button", name="Add a person").click()
    expect(form.get_by_role("alert")).to_contain_text("guessed at once")
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_role("button", name="Add a person").click()
    expect(page.get_by_role("row", name=re.compile("^ben viewer"))).to_be_visible()
    # the last admin stays
    visitor.allowed.append("409")
    page.get_by_role("row", name=re.compile("^ana ")).get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("last admin")
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    # a camera that gives nothing
    page.get_by_role("row", name=re.compile("^belt-01 ")).get_by_role("button", name="Diagnose").click()
    expect(page.locator("#looks")).to_contain_text("not well")
    # and one that works: all six looks
    page.get_by_role("row", name=re.compile("^works ")).get_by_role("button", name="Diagnose").click()
    expect(page.locator("#looks")).to_contain_text("works, looked at")
    looks = page.locator("#looks dt")
    assert looks.all_inner_texts() == ["open", "frames", "rate", "size", "light", "clock"]
    assert "not well" not in page.locator("#looks").inner_text()


def test_a_version_is_promoted_by_typing_its_models_name_with_a_reason(visitor: Watched, guarded: Site) -> None:
    page = visitor.page
    signed_in(page, "/models")
    try_out_by_form(page, guarded)
    row = page.get_by_role("row", name=re.compile("^2.0.0 Canary"))
    row.get_by_role("button", name="Promote").click()
    form = page.get_by_role("dialog")
    form.get_by_label("Type brightness to confirm").fill("brightnes")
    form.get_by_label("Why").fill("trained on the new belt")
    form.get_by_role("button", name="Promote").click()
    expect(form.get_by_role("alert")).to_contain_text("not brightness")
    form.get_by_label("Type brightness to confirm").fill("brightness")
    form.get_by_role("button", name="Promote").click()
    expect(page.get_by_role("row", name=re.compile("^2.0.0 Live"))).to_be_visible()
    expect(page.locator(".timeline")).to_contain_text("brightness 1.0.0 → 2.0.0, ana: trained on the new belt")
    expect(page.get_by_text("is tried out")).to_have_count(0)
    # an alert that it raised leads back to the version before
    alert = guarded.alert(guarded.result("belt-01", models=[ModelRef("brightness", "2.0.0+ab", "onnxruntime", "f32")]))
    page.goto(f"/alerts?alert={alert.id}")
    expect(page.locator("#fresh")).to_have_attribute("data-state", "live")
    page.keyboard.press("b")
    expect(form.get_by_role("heading", name="Roll back brightness?")).to_be_visible()
    form.get_by_label("Type brightness to confirm").fill("brightness")
    form.get_by_label("Why").fill("false alarms since noon")
    form.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("row", name=re.compile("^1.0.0 Live"))).to_be_visible()
    expect(page.locator(".timeline")).to_contain_text("brightness 2.0.0 → 1.0.0, ana: false alarms since noon")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_another_model_is_asked_about_a_records_picture(visitor: Watched, guarded: Site) -> None:
    record, page = guarded.result("belt-01"), visitor.page
    signed_in(page, f"/audit/{record.id}")
    page.get_by_label("Ask about this picture").select_option(index=0)
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status").filter(has_text="The picture is in the line")).to_be_visible()
    named = [Classification("intact", 0.8, "damage")]
    other = guarded.result(
        site=record.site, ref=record.id, replay_of=record.id, aside=True, detections=[], classifications=named
    )
    page.reload()
    row = page.get_by_role("row", name=re.compile("^Replay"))
    expect(row).to_contain_text("intact")
    expect(page.get_by_role("row", name=re.compile("^This record"))).to_contain_text("1 × carton (93%)")
    page.set_viewport_size({"width": 390, "height": 900})
    assert violations(page, "#replays") == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    row.get_by_role("link", name="Replay").click()
    expect(page.get_by_text("no alert and no count follows from it")).to_be_visible()
    expect(page).to_have_url(re.compile(f"{other.id}$"))
    expect(page.get_by_role("link", name="The record")).to_have_attribute("href", f"/audit/{record.id}#replays")


def try_out_by_form(page: Page, site: Site) -> None:
    """Version 2.0.0 at one site, by a plain form; taken back, and tried out again."""
    for again in (False, True):
        page.get_by_text("Try a version out at some sites").click()
        form = page.locator("form[action='/models/brightness/canary']")
        form.get_by_label("north").check()
        form.get_by_label("Type brightness to confirm").fill("brightness")
        form.get_by_label("Why").fill("only where Ana looks")
        form.get_by_role("button", name="Try it out").click()
        expect(page.get_by_text("2.0.0 is tried out: it answers for north")).to_be_visible()
        if not again:
            models = [ModelRef("brightness", "2.0.0+0123456789ab", "onnxruntime", "f32")]
            doubtful = made_result("belt-01", "south", models=models, timings={"infer": 0.02})
            site.keep([doubtful], doubts={doubtful.id: Doubt(0.7, "low score")})
            page.reload()
            row = page.get_by_role("row", name=re.compile("^2.0.0 Canary"))
            expect(row).to_contain_text(
                re.compile(r"none \(temperature 1\)\s*20 ms\s*100%\s*50% with 1.0.0, of 2 pictures")
            )
            figures = page.get_by_role("group", name="What the versions of brightness answered")
            expect(figures.get_by_role("row", name=re.compile("^2.0.0 north 1 0"))).to_be_visible()
            for details in page.locator("main details").all():
                details.evaluate("(it) => { it.open = true; }")
            for width, scheme in itertools.product(WIDTHS, SCHEMES):
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(color_scheme=scheme)
                assert violations(page) == []
                assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            form = page.locator("form[action='/models/brightness/canary/end']")
            form.get_by_label("Type brightness to confirm").fill("brightness")
            form.get_by_label("Why").fill("more boxes than before")
            form.get_by_role("button", name="Take it back").click()
            expect(page.locator(".timeline")).to_contain_text("2.0.0 → 1.0.0, ana: more boxes than before")


def test_what_two_versions_say_of_the_same_pictures_is_counted_and_told(full: Site) -> None:
    page = httpx.get(f"{full.url}/models/compare/{COMPARED}")
    assert "refresh" not in page.headers
    assert "1 of 2 alike, largest score difference 0.12" in page.text
    assert page.text.index("◆ Different") < page.text.index("● Alike")
    assert "only here: &lt;img" in page.text
    assert httpx.get(f"{full.url}/v1/comparisons").json()["comparisons"][0]["alike"] == 1
    record, side = full.result("belt-01"), Side("parcels")
    waiting = Comparison(
        id=uuid7(), at=utcnow(), by="ana", site="south", a=side, b=side, asked=[Asked(record.id, uuid7(), uuid7())]
    )
    full.run(Comparisons(full.results).keep(waiting))
    page = httpx.get(f"{full.url}/models/compare/{waiting.id}")
    assert page.headers["refresh"] == "3"
    assert "0 of 1 pictures have both answers" in page.text


def test_replicas_that_answer_otherwise_are_shown_beside_each_other(
    page: Watched, full: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"version": "1.0.0+ab", "runtime": "onnxruntime", "precision": "fp32", "fingerprint": "f" * 64}
    odd = facts | {"precision": "int8", "fingerprint": "e" * 64}
    golden = {"passed": True, "pictures": 4, "score_difference": 0.002, "tolerance": 0.03, "at": isoformat(utcnow())}
    installed = odd | {"name": "grocery", "golden": golden}
    told = [
        About(url=f"http://{name}", models=({"name": HOSTILE} | said, installed), environment={"kernel": name})
        for name, said in (("a", facts), ("b", odd))
    ]
    failed = golden | {"server": "http://b", "version": facts["version"], "passed": False, "differences": [HOSTILE]}

    async def checked(_: Servers, _models: object, name: str) -> list[dict[str, Any]]:
        return [failed | {"model": name, "at": isoformat(utcnow())}]

    async def compared(_: Servers) -> list[About]:
        return [*told, About(url="http://c", error="away")]

    monkeypatch.setattr(Servers, "compared", compared)
    monkeypatch.setattr(Servers, "checked", checked)
    row: dict[str, Any] = {"host": "old", "pid": 7, "started_at": utcnow(), "seen_at": utcnow()}
    row["body"] = {"cores": 0.0, "bytes": 0}  # /operations shows them to later tests
    for role, release in (("worker", "0.0.1"), ("gateway", "0.0.2")):
        full.run(full.results.report_replica(ReplicaRow(id=f"{role}@old:7", role=role, version=release, **row)))
    page.page.goto("/models")
    parity = page.page.locator("#parity")
    expect(parity).to_contain_text("≠ The servers differ in 2 facts")
    expect(parity).to_contain_text("http://c gives no answer: away")
    expect(parity).to_contain_text("worker@old:7")
    shown = parity.get_by_role("group", name="Where the servers differ").locator("tbody tr")
    assert shown.all_inner_texts() == [
        f"{HOSTILE}\tprecision\tfp32\t≠ int8",
        f"{HOSTILE}\tfingerprint\t{'f' * 12}\t≠ {'e' * 12}",
        "machine, software\tkernel\ta\t≠ b",
    ]
    expect(parity).to_contain_text("Machines and software differ in 1 fact")
    pictures = parity.get_by_role("group", name="Golden pictures").locator("tbody tr")
    expect(pictures.nth(3)).to_contain_text("● OK")
    expect(pictures.nth(3)).to_contain_text("0.0020 of at most 0.03, 4 pictures")
    text = page.page.request.get("/models/parity.txt")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert "≠ environment kernel: http://a=a http://b=b\n" in text.text()
    parity.get_by_role("button", name="Run now: grocery").click()
    expect(pictures.nth(3)).to_contain_text(f"▲ Failed {HOSTILE}")
    page.page.set_viewport_size({"width": 390, "height": 900})
    assert violations(page.page, "#parity") == []
    assert page.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_worker_is_drained_by_keys_said_so_by_the_page_and_put_back(
    visitor: Watched, guarded: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = About(
        url="http://gpu-1", id="inference@gpu-1", state="running", models=({"name": "boxes", **NOTHING_YET},)
    )

    async def about(_: Servers) -> list[About]:
        return [server]

    async def drain(_: Servers, id: str, *, wanted: bool) -> str:  # noqa: A002
        nonlocal server
        assert id == server.id
        server = replace(server, state="drained" if wanted else "running")
        return server.state

    monkeypatch.setattr(Servers, "about", about)
    monkeypatch.setattr(Servers, "drain", drain)
    row: dict[str, Any] = {"host": "line", "version": "1", "started_at": utcnow(), "seen_at": utcnow()}
    body = {"cores": 0.5, "bytes": 1e8, "in_hand": 3, "doing": "running"}
    for pid in (7, 8):
        one = ReplicaRow(id=f"worker-{pid}@line:{pid}", role=f"worker-{pid}", pid=pid, body=body, **row)
        guarded.run(guarded.results.report_replica(one))
    page = visitor.page
    signed_in(page, "/operations?range=15m")
    expect(page.locator("figure[data-metric=errors] h3")).to_contain_text("last 15m")  # its script has run
    first, second = (page.locator(f"[data-replica='worker-{pid}@line:{pid}']") for pid in (7, 8))
    page.keyboard.press("d")
    expect(first.locator("summary")).to_be_focused()
    page.keyboard.press("d")
    expect(first.get_by_role("button", name="Drain worker-7")).to_be_focused()
    page.keyboard.press("Enter")
    expect(first.locator(".status")).to_have_text("◆ Draining")
    expect(page).to_have_url(f"{guarded.url}/operations?range=15m#processes-title")
    rested = ReplicaRow(
        id="worker-7@line:7", role="worker-7", pid=7, body=body | {"doing": "drained", "in_hand": 0}, **row
    )
    guarded.run(guarded.results.report_replica(rested))
    expect(first.locator(".status")).to_have_text("○ Drained")  # without a reload
    expect(first.locator("[data-f=hand]")).to_have_text("0")
    second.locator("summary").click()
    expect(second.get_by_text("No other one works")).to_be_visible()
    for width, scheme in zip(WIDTHS, SCHEMES, strict=True):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert violations(page, "section[aria-labelledby=processes-title]") == []
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    first.get_by_role("button", name="Put back to work").focus()
    page.keyboard.press("d")  # stays where it is
    page.keyboard.press("Enter")
    expect(first.locator(".status")).to_have_text("● Running")
    gpu = page.locator("[data-replica='inference@gpu-1']")
    gpu.locator("summary").click()
    gpu.get_by_role("button", name="Drain http://gpu-1").click()
    expect(gpu.locator(".status")).to_have_text("○ Drained")
    gpu.get_by_role("button", name="Put back to work").click()
    expect(gpu.locator(".status")).to_have_text("● Running")


def test_charts_have_numbers_in_their_titles_data_as_a_table_and_ranges_have_keys(
    visitor: Watched, guarded: Site
) -> None:
    page = visitor.page
    visitor.allowed.append("404")  # of the picture on the record that a point leads to
    changed = RuleRow(name="dents", version=1, at=utcnow() - timedelta(minutes=1), by="ana", body=None)
    assert guarded.run(guarded.results.add_rule(changed))
    signed_in(page, "/operations?range=15m")
    errors = page.locator("figure[data-metric=errors]")
    expect(errors.get_by_role("heading")).to_contain_text("target 1 %, last 15m")
    errors.get_by_text("Data", exact=True).click()
    expect(errors.locator("table")).to_be_visible()
    expect(errors).to_contain_text("rule dents removed, by ana")
    expect(page.locator("[data-tile=error_rate]")).to_contain_text("Missed")
    expect(page.locator("[data-tile=utilisation]")).to_contain_text("Not measured")
    expect(page.get_by_text("Where the time goes")).to_be_visible()
    expect(page.locator("[data-tile]")).to_have_count(7)
    expect(page.locator("[data-tile=error_rate] .spark")).to_be_visible()
    expect(errors.locator(".chart__band")).not_to_have_count(0)
    expect(page.locator("figure[data-metric=depth] .chart__band")).to_have_count(0)
    page.get_by_label("What if all machines cost so much an hour").fill("3")
    expect(page.locator("#cost")).to_contain_text("EUR")
    page.get_by_role("button", name="Keep this rate").click()
    expect(page.get_by_text("ana keeps this rate here")).to_be_visible()
    latency = page.locator("figure[data-metric=latency] svg")
    latency.focus()
    page.keyboard.press("ArrowRight")  # the newest
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/audit/[0-9a-f-]{36}$"))
    page.go_back()
    page.keyboard.press("4")
    expect(page).to_have_url(re.compile("range=24h"))


@pytest.mark.parametrize("path", ["/login?error=wrong", "/system"])  # the others are in PAGES
def test_axe_finds_nothing_where_people_sign_in(path: str, visitor: Watched) -> None:
    found: list[str] = []
    page = visitor.page
    signed_in(page, path) if path == "/system" else page.goto(path)
    page.wait_for_selector("html[data-script=on]")
    page.wait_for_load_state("networkidle") if path.startswith("/login") else page.wait_for_timeout(300)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            found += [f"{scheme} {width}: {each['id']} {each['targets'][:3]}" for each in violations(page)]
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path} is {wide} px wider than {width}"
    assert found == []
