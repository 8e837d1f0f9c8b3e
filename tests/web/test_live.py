"""The live wall in a real browser: it changes in place, obeys its filters, and says how fresh it is."""

import re

from playwright.sync_api import Locator, expect

from tests.browsers import Watched
from tests.dashboards import HOSTILE, Site, detection


def _tile(watched: Watched, camera: str) -> Locator:
    return watched.page.locator(f'.tile[data-camera="{camera}"]')


def _ready(watched: Watched, path: str = "/") -> None:
    watched.page.goto(path)
    expect(watched.page.locator("#fresh")).to_have_attribute("data-state", re.compile("live|paused"))


def test_a_new_picture_takes_the_place_of_the_old_one_with_its_own_boxes(page: Watched, full: Site) -> None:
    with full.client() as client:  # alerts that other tests left open here would be the tile's state
        for alert in client.get("/v1/alerts", params={"camera": "belt-05", "state": "open,acknowledged"}).json()[
            "alerts"
        ]:
            client.post(f"/v1/alerts/{alert['id']}/resolve", json={"disposition": "test"}).raise_for_status()
    _ready(page)
    tiles = page.page.locator(".tile")
    before = tiles.evaluate_all("tiles => tiles.map(tile => tile.dataset.camera)")
    made = full.result("belt-05", detections=[detection("torn", 0.41)])
    tile = _tile(page, "belt-05")
    expect(tile.locator("img")).to_have_attribute("src", re.compile(made.id))
    expect(tile.locator(".chip text")).to_have_text("torn 41%")
    expect(tile).to_have_attribute("data-state", "review")
    assert tiles.evaluate_all("tiles => tiles.map(tile => tile.dataset.camera)") == before, "nothing moved"


def test_what_is_hostile_is_shown_as_it_stands_and_does_nothing(page: Watched, full: Site) -> None:
    _ready(page)
    full.result("belt-03", detections=[detection(HOSTILE, 0.97)], ref=HOSTILE, meta={HOSTILE: HOSTILE})
    tile = _tile(page, "belt-03")
    expect(tile.locator("img")).to_have_attribute("alt", f"1 {HOSTILE}")
    expect(tile.locator(".chip text").first).to_contain_text(HOSTILE[:20])
    assert page.page.locator("img[src=x]").count() == 0
    row = full.alert(full.result("belt-03"), rule=HOSTILE, severity="critical")
    expect(page.page.locator(f'[data-alert="{row.id}"] b')).to_have_text(HOSTILE)
    page.page.goto(f"/alerts?alert={row.id}")
    expect(page.page.locator("#detail-title")).to_contain_text(HOSTILE)


def test_the_address_holds_the_filters_and_what_comes_obeys_them(page: Watched, full: Site) -> None:
    full.result("belt-06", detections=[detection("carton", 0.93)])
    _ready(page)
    page.page.get_by_label("Label").select_option("bag")
    page.page.wait_for_url("**/?label=bag")
    expect(_tile(page, "belt-06")).to_have_count(0)
    expect(page.page.locator("#fresh")).to_have_attribute("data-state", "live")
    full.result("belt-06", detections=[detection("bag", 0.9)])
    pill = page.page.locator("#more")
    expect(pill).to_contain_text("1 more match")
    expect(_tile(page, "belt-06")).to_have_count(0)
    pill.click()
    expect(_tile(page, "belt-06")).to_be_visible()
    expect(page.page.locator("#fresh")).to_have_attribute("data-state", "live")
    full.result("belt-06", detections=[detection("carton", 0.93)])
    expect(_tile(page, "belt-06")).to_have_attribute("data-out", "")
    page.page.reload()
    expect(page.page.get_by_label("Label")).to_have_value("bag")
    expect(_tile(page, "belt-06")).to_have_count(0)
    page.page.go_back()
    expect(page.page.get_by_label("Label")).to_have_value("")


def test_paused_nothing_changes_and_the_page_says_how_much_waits(page: Watched, full: Site) -> None:
    _ready(page)
    page.page.keyboard.press("p")
    expect(page.page).to_have_url(re.compile("paused=1"))
    made = full.result("belt-04")
    expect(page.page.locator("#fresh")).to_contain_text(re.compile(r"Paused \d:\d\d · [1-9]"))
    shown = _tile(page, "belt-04").locator("img")
    expect(shown).not_to_have_attribute("src", re.compile(made.id))
    page.page.keyboard.press("p")
    expect(shown).to_have_attribute("src", re.compile(made.id))
    expect(page.page).not_to_have_url(re.compile("paused"))


def test_a_silent_camera_is_offline_by_sign_and_word(page: Watched, full: Site) -> None:
    _ready(page)
    full.result("belt-02")
    tile = _tile(page, "belt-02")
    expect(tile).not_to_have_attribute("data-state", "offline")
    tile.evaluate("tile => { tile.dataset.silent = '0.5'; }")  # as of a camera that sends five pictures a second
    expect(tile).to_have_attribute("data-state", "offline")
    expect(tile.locator(".status")).to_have_text("○ Offline")
    expect(tile.locator(".tile__silent")).to_contain_text("No picture for")


def test_the_wall_is_walked_and_told_what_to_do_by_keys_alone(page: Watched, full: Site) -> None:
    row = full.alert(full.result("belt-01"), severity="critical")
    _ready(page)
    keyboard = page.page.keyboard
    keyboard.press("Tab")
    expect(page.page.locator(".skip")).to_be_focused()
    keyboard.press("j")
    keyboard.press("j")
    focused = page.page.locator(".tile__open:focus")
    expect(focused).to_have_count(1)
    root = page.page.locator("html")
    keyboard.press("b")
    expect(root).to_have_attribute("data-boxes", "off")
    expect(page.page.locator("#boxes")).to_have_attribute("aria-pressed", "false")
    keyboard.press("b")
    keyboard.press("f")
    expect(page.page.locator("dialog.solo")).to_be_visible()
    keyboard.press("Escape")
    expect(page.page.locator("dialog.solo")).to_have_count(0)
    keyboard.press("w")
    expect(page.page.locator(".nav")).to_be_hidden()
    keyboard.press("Escape")
    expect(page.page.locator(".nav")).to_be_visible()
    card = page.page.locator(f'.card[data-alert="{row.id}"]')
    card.get_by_role("button", name="Acknowledge").focus()
    keyboard.press("a")
    expect(card).to_have_count(0)
    expect(page.page.locator(".toast")).to_contain_text("Acknowledged")
    keyboard.press("z")
    expect(page.page.locator(f'.card[data-alert="{row.id}"]')).to_have_count(1)
    keyboard.press("?")
    expect(page.page.locator("dialog .keys")).to_contain_text("Acknowledge the newest alert")
    keyboard.press("Escape")
    keyboard.press("g")
    keyboard.press("a")
    page.page.wait_for_url("**/alerts")


def test_a_letter_in_a_field_is_a_letter(page: Watched, full: Site) -> None:
    _ready(page, "/alerts")
    page.page.locator("#note").fill("")
    page.page.locator("#note").press_sequentially("pgazx?")
    expect(page.page.locator("#note")).to_have_value("pgazx?")
    expect(page.page.locator("#fresh")).to_have_attribute("data-state", "live")
