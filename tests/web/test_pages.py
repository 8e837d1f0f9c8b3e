"""Every page, without a browser: its status, its landmarks, its headers; and nothing hostile gets through unescaped."""

import re
from html.parser import HTMLParser

import httpx
import pytest

from tests.dashboards import HOSTILE, Site
from tests.web.conftest import PAGES, Visit

OUTSIDE = re.compile(r"""(?:src|href|action|url)\s*[=(]\s*["']?(?:https?:)?//""")


class Seen(HTMLParser):
    """The elements of a page and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if "main" in (tag for tag, _ in self.tags) and self.tags[-1][0] not in {"script", "h1"}:
            self.words += data.strip()


@pytest.mark.parametrize("visit", PAGES, ids=lambda visit: visit.name)
def test_a_page_has_its_landmarks_and_nothing_from_elsewhere(visit: Visit, site_of: dict[str, Site]) -> None:
    answer = httpx.get(site_of[visit.state if visit.state in site_of else "full"].url + visit.path)
    assert answer.status_code == visit.status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    seen = Seen()
    seen.feed(answer.text)
    tags = [tag for tag, _ in seen.tags]
    assert [tags.count(tag) for tag in ("main", "h1", "header")] == [1, 1, 1]
    assert f">{visit.heading}</h1>" in answer.text
    assert len(seen.words) > 20, "without scripts there is nothing to read"
    assert 'aria-current="page"' in answer.text
    assert OUTSIDE.findall(answer.text) == []
    assert [
        tag for tag, attributes in seen.tags if any(name.startswith("on") or name == "style" for name in attributes)
    ] == []
    assert HOSTILE not in answer.text
    assert "49" not in re.findall(r"onerror=alert\(1\)&gt;&#34;&#39;(\w+)", answer.text)


def test_a_page_allows_no_script_but_its_own(full: Site) -> None:
    first, second = (httpx.get(f"{full.url}/").headers for _ in range(2))
    policy = first["content-security-policy"]
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "frame-ancestors 'none'" in policy
    nonces = {re.search(r"'nonce-([^']+)'", each["content-security-policy"]) for each in (first, second)}
    assert len({found.group(1) for found in nonces if found}) == 2, "a nonce is good once"
    assert first["x-content-type-options"] == "nosniff"
    assert first["cache-control"] == "no-store"


def test_files_are_kept_for_ever_under_their_digest_and_never_under_another(full: Site) -> None:
    page = httpx.get(f"{full.url}/").text
    link = re.findall(r'href="(/assets/[^"]+/css/base\.css)"', page)[0]
    answer = httpx.get(full.url + link)
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-encoding"] == "gzip"
    assert httpx.get(full.url + link, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    old = httpx.get(re.sub(r"/assets/\w+/", "/assets/0123/", full.url + link))
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-cache")
    for strange in ("nothing.css", "../routes.py", "..%2f..%2fshell.py", "css/"):
        assert httpx.get(f"{full.url}/assets/0123/{strange}").status_code == 404


def test_an_unknown_page_is_a_problem_and_an_error_is_a_page(full: Site) -> None:
    assert httpx.get(f"{full.url}/nothing").status_code == 404
