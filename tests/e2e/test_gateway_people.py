"""People sign in: a real gateway, a client that keeps cookies as a browser does, and those who try to get in otherwise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from argon2 import PasswordHasher

from eyeline.cli import app
from eyeline.core.pages import Page
from eyeline.gateway.auth import new_key
from eyeline.gateway.passwords import Passwords
from eyeline.gateway.sessions import COOKIE, HOST_COOKIE, Sessions
from tests.e2e.test_gateway_access import CAMERAS, MATRIX, PUBLIC, ROLES, SITES, populated
from tests.gateways import Running, jpeg, running
from tests.system import TLS

PASSWORD = "correct horse battery"
PEOPLE = ("viewer", "operator", "admin")


@pytest.fixture(autouse=True)
def _quick_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hashing costs is told by tests/unit/gateway/test_sessions.py."""
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr("eyeline.gateway.sessions.Passwords", lambda: Passwords(quick))


@asynccontextmanager
async def browser(here: Running, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that keeps cookies, and says where it comes from as a browser does."""
    said = {"Origin": here.gateway.url} | headers
    async with httpx.AsyncClient(
        base_url=here.gateway.url, headers=said, trust_env=False, timeout=35.0, verify=TLS
    ) as client:
        yield client


async def make(here: Running, name: str, role: str, *sites: str, by: httpx.AsyncClient | None = None) -> None:
    wanted = {"name": name, "password": PASSWORD, "role": role, "sites": sites}
    answer = await (by or here.client).post("/v1/users", json=wanted)
    assert answer.status_code == 201, answer.text


async def sign_in(client: httpx.AsyncClient, name: str, password: str = PASSWORD) -> httpx.Response:
    return await client.post("/v1/session", json={"name": name, "password": password})


async def actions(here: Running, *kinds: str) -> list[dict[str, Any]]:
    records = await here.results.unsealed(1000, bodies=True)
    told = [msgspec.json.decode(record.body) for record in records if record.kind == "action" and record.body]
    return [one for one in told if one["what"] in kinds]


async def test_the_first_user_shuts_the_door_and_signs_in(tmp_path: Path) -> None:
    async with running(tmp_path) as here, browser(here) as ana:
        assert (await ana.get("/v1/session")).json()["kind"] == "open"
        refused = await here.client.post("/v1/users", json={"name": "ana", "password": PASSWORD, "role": "viewer"})
        assert refused.status_code == 400
        assert "first user must be an admin" in refused.json()["detail"]
        await make(here, "ana", "admin")
        assert (await ana.get("/v1/results")).status_code == 401
        answer = await sign_in(ana, "ana")
        assert answer.status_code == 200
        assert answer.json()["rights"] == sorted(["submit", "jobs", "report", "read", "operate", "manage"])
        assert (await ana.get("/v1/results")).status_code == 200
        assert (await ana.get("/v1/session")).json() == answer.json()
        assert (await ana.post("/v1/images", content=jpeg())).status_code == 202
        assert (await ana.delete("/v1/session")).status_code == 204
        assert (await ana.get("/v1/results")).status_code == 401
        assert [one["by"] for one in await actions(here, "login", "logout")] == ["ana", "ana"]


async def test_a_stolen_cookie_is_worth_nothing_after_signing_out(tmp_path: Path) -> None:
    async with running(tmp_path) as here, browser(here) as ana:
        await make(here, "ana", "admin")
        await sign_in(ana, "ana")
        stolen = {"Cookie": f"{COOKIE}={ana.cookies[COOKIE]}", "Origin": here.gateway.url}
        assert (await here.client.get("/v1/results", headers=stolen)).status_code == 200
        await ana.post("/v1/session/end")
        assert (await here.client.get("/v1/results", headers=stolen)).status_code == 401
        kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert stolen["Cookie"].partition("=")[2].encode() not in kept
        assert PASSWORD.encode() not in kept


async def test_a_planted_cookie_does_not_become_the_session(tmp_path: Path) -> None:
    async with running(tmp_path) as here, browser(here) as victim, browser(here) as thief:
        await make(here, "ana", "admin")
        await make_second(here, thief)
        planted = thief.cookies[COOKIE]
        victim.cookies.set(COOKIE, planted)
        await sign_in(victim, "ana")
        fixed = {"Cookie": f"{COOKIE}={planted}"}
        assert (await here.client.get("/v1/session", headers=fixed)).status_code == 401


async def make_second(here: Running, thief: httpx.AsyncClient) -> None:
    """Another user, signed in."""
    async with browser(here) as admin:
        await sign_in(admin, "ana")
        await make(here, "eve", "viewer", by=admin)
    assert (await sign_in(thief, "eve")).status_code == 200


async def test_a_form_on_another_site_can_neither_act_nor_sign_in(tmp_path: Path) -> None:
    """The browser sends the cookie along wherever SameSite does not hold it back: other ports, old browsers."""
    async with running(tmp_path) as here, browser(here) as ana:
        await make(here, "ana", "admin")
        await sign_in(ana, "ana")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        foreign: tuple[dict[str, str], ...] = (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Origin": here.gateway.url, "Sec-Fetch-Site": "same-site"},
            {"Origin": "", "Sec-Fetch-Site": "cross-site"},
        )
        for (method, path), row in MATRIX.items():
            if method in {"GET", "HEAD"}:
                continue
            full = (row.path or path).format(site="default", id="0", name="ana")
            for headers in foreign:
                answer = await ana.request(method, full, headers=form | headers, content=b"name=x")
                assert (answer.status_code, answer.json()["code"]) == (403, "cross_site"), (method, full, headers)
        silent = {"Cookie": f"{COOKIE}={ana.cookies[COOKIE]}"}  # no word of where it comes from
        assert (await here.client.post("/v1/images", headers=silent, content=jpeg())).status_code == 403
        assert (await ana.get("/v1/session")).json()["name"] == "ana"  # and is signed in as before


async def test_what_each_role_may_by_cookie_is_what_it_may_by_key(tmp_path: Path) -> None:
    """Over all routes that change something: a new one without a row in the matrix fails there, without a rule here."""
    secret, digest = new_key()
    configured = [{"name": "root", "sha256": digest, "role": "admin"}]
    wrong = []
    rules = {"rules": [{"name": "dents", "when": "score > 0.5"}]}
    async with running(tmp_path, key=secret, keys=configured, sites=SITES, cameras=CAMERAS, alerts=rules) as here:
        ids = await populated(here)
        await make(here, "boss", "admin")
        for role in PEOPLE:
            await make(here, f"a-{role}", role)
            async with browser(here) as person:
                await sign_in(person, f"a-{role}")
                for (method, path), row in MATRIX.items():
                    if method == "GET" or row.roles == PUBLIC:
                        continue
                    full = (row.path or path).format(site="north", id=ids["north"])
                    send = {"json": {"present": "wrong wrong", "new": PASSWORD}} if "password" in path else row.send
                    want = row.status if role in row.roles else 403
                    if "password" in path:
                        want = 401 if method == "PUT" else 303  # the form says it on its page
                    got = (await person.request(method, full, **send)).status_code
                    if got != want:
                        wrong.append((role, method, full, got, want))
    assert wrong == []
    assert set(ROLES) > set(PEOPLE)


async def test_changing_a_user_ends_his_sessions_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, sites=SITES) as here, browser(here) as boss, browser(here) as ben:
        await make(here, "boss", "admin")
        await sign_in(boss, "boss")
        await make(here, "ben", "operator", "north", by=boss)
        changes: tuple[tuple[str, dict[str, Any] | None], ...] = (
            ("PATCH", {"role": "viewer"}),
            ("PATCH", {"sites": ["south"]}),
            ("PATCH", {"password": "another horse battery"}),
            ("PATCH", {"password": PASSWORD}),
            ("DELETE", None),
        )
        word = PASSWORD
        for method, body in changes:
            assert (await sign_in(ben, "ben", word)).status_code == 200
            assert (await ben.get("/v1/session")).status_code == 200
            answer = await boss.request(method, "/v1/users/ben", json=body)
            assert answer.status_code < 300, answer.text
            assert (await ben.get("/v1/session")).status_code == 401
            word = (body or {}).get("password", word)
        assert (await sign_in(ben, "ben")).status_code == 401
        told = await actions(here, "user")
        assert [one["by"] for one in told if one["name"] == "ben"] == ["boss"] * 6
        for body in ({"role": "viewer"}, {"sites": ["north"]}):
            assert (
                await boss.patch("/v1/users/boss", json=body)
            ).status_code == 409  # the last one who can let people in
        assert (await boss.delete("/v1/users/boss")).status_code == 409


async def test_changing_ones_own_password_ends_all_other_sessions(tmp_path: Path) -> None:
    async with running(tmp_path) as here, browser(here) as desk, browser(here) as phone:
        await make(here, "ana", "admin")
        await sign_in(desk, "ana")
        await sign_in(phone, "ana")
        before = desk.cookies[COOKIE]
        new = "another horse battery"
        assert (await desk.put("/v1/session/password", json={"present": "x" * 12, "new": new})).status_code == 401
        assert (await desk.put("/v1/session/password", json={"present": PASSWORD, "new": "short"})).status_code == 400
        answer = await desk.put("/v1/session/password", json={"present": PASSWORD, "new": new})
        assert answer.status_code == 200, answer.text
        assert desk.cookies[COOKIE] != before
        assert (await desk.get("/v1/results")).status_code == 200
        assert (await phone.get("/v1/results")).status_code == 401
        assert (await sign_in(phone, "ana")).status_code == 401
        assert (await sign_in(phone, "ana", new)).status_code == 200
        # by the form of the page, which says what came of it
        for said, told in (
            ({"present": PASSWORD, "new": PASSWORD}, "wrong"),
            ({"present": new, "new": "ana"}, "weak"),
            ({"present": new, "new": PASSWORD}, "changed"),
        ):
            form = await desk.post("/v1/session/password", data=said)
            assert (form.status_code, form.headers["location"]) == (303, f"/system?password={told}#you")
        assert (await desk.get("/v1/results")).status_code == 200
        assert (await phone.get("/v1/results")).status_code == 401
        assert (await sign_in(phone, "ana")).status_code == 200


async def test_guessing_by_the_api_is_told_to_come_back_later(tmp_path: Path) -> None:
    async with running(tmp_path) as here, browser(here) as guesser:
        await make(here, "ana", "admin")
        answers = await asyncio.gather(*(sign_in(guesser, "ana", f"wrong guess {n}") for n in range(14)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 4
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        failures = await actions(here, "login_failed")
        assert len(failures) == 14 - len(refused)
        assert failures[0]["name"] == "ana"
        assert "guess" not in str(failures)


async def test_the_plain_form_signs_in_and_leads_back_and_never_elsewhere(tmp_path: Path) -> None:
    async with running(tmp_path) as here, browser(here) as ana:
        await make(here, "ana", "admin")
        wrong = await ana.post("/v1/session", data={"name": "ana", "password": "x", "next": "/audit?q=1"})
        assert (wrong.status_code, wrong.headers["location"]) == (303, "/login?error=wrong&next=%2Faudit%3Fq%3D1")
        assert COOKIE not in ana.cookies
        right = await ana.post("/v1/session", data={"name": "ana", "password": PASSWORD, "next": "/audit?q=1"})
        assert (right.status_code, right.headers["location"]) == (303, "/audit?q=1")
        assert (await ana.get("/v1/session")).json()["name"] == "ana"
        away = await ana.post("/v1/session", data={"name": "ana", "password": PASSWORD, "next": "//evil.example"})
        assert away.headers["location"] == "/"
        out = await ana.post("/v1/session/end")
        assert (out.status_code, out.headers["location"]) == (303, "/login")
        assert (await ana.get("/v1/session")).status_code == 401


async def test_behind_a_proxy_that_ends_tls_the_cookie_is_bound_to_the_host(tmp_path: Path) -> None:
    async with running(tmp_path, gateway={"allowed_hosts": ["eyeline.example"]}) as here:
        await make(here, "ana", "admin")
        said = {"Host": "eyeline.example", "Origin": "https://eyeline.example"}
        answer = await here.client.post("/v1/session", json={"name": "ana", "password": PASSWORD}, headers=said)
        (made,) = answer.headers.get_list("set-cookie")
        assert made.startswith(f"{HOST_COOKIE}=")
        assert "; Secure" in made
        assert PASSWORD not in answer.text


async def test_a_session_that_ended_closes_its_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyeline.gateway.events.HEARTBEAT", 0.5)
    async with running(tmp_path) as here, browser(here) as ana:
        await make(here, "ana", "admin")
        await sign_in(ana, "ana")
        async with ana.stream("GET", "/v1/events") as stream:
            chunks = stream.aiter_bytes()
            while b"heartbeat" not in await anext(chunks):
                pass
            await ana.delete("/v1/session")
            async with asyncio.timeout(10):
                async for _ in chunks:
                    pass


async def test_keys_are_made_listed_and_revoked_by_who_manages(tmp_path: Path) -> None:
    filed = {"name": "filed", "sha256": "0" * 64, "role": "viewer"}
    secret, digest = new_key()
    root = {"name": "root", "sha256": digest, "role": "admin"}
    async with running(tmp_path, key=secret, keys=[filed, root], sites=SITES) as here:
        answer = await here.client.post("/v1/keys", json={"name": "belt", "role": "ingest", "sites": ["north"]})
        made = answer.json()["secret"]
        assert answer.headers["cache-control"] == "no-store"
        belt = {"Authorization": f"Bearer {made}"}
        assert (await here.client.get("/v1/session", headers=belt)).json()["sites"] == ["north"]
        listed = await here.client.get("/v1/keys")
        assert [(key["name"], key["from"], key["state"]) for key in listed.json()["keys"]] == [
            ("filed", "eyeline.toml", "valid"),
            ("root", "eyeline.toml", "valid"),
            ("belt", "here", "valid"),
        ]
        assert made not in listed.text
        assert (await here.client.delete("/v1/keys/filed")).status_code == 409
        assert (await here.client.delete("/v1/keys/belt")).status_code == 204
        assert (await here.client.get("/v1/session", headers=belt)).status_code == 401
        assert (await here.client.delete("/v1/keys/belt")).status_code == 404
        past = {"name": "late", "expires_at": "2020-01-01T00:00:00Z"}
        assert (await here.client.post("/v1/keys", json=past)).status_code == 400
        assert [one["by"] for one in await actions(here, "key")] == ["root", "root"]
        assert (await here.client.post("/v1/users", json={"name": "root", "password": PASSWORD})).status_code == 409


def test_users_by_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    run = CliRunner()
    here = ["--data-dir", str(tmp_path)]
    assert run.invoke(app, ["users", "add", "ana", "--role", "admin", *here], input=f"{PASSWORD}\n").exit_code == 0
    assert run.invoke(app, ["users", "add", "ben", *here], input="short\n").exit_code != 0
    assert run.invoke(app, ["users", "add", "ben", "--site", "default", *here], input=f"{PASSWORD}\n").exit_code == 0
    assert run.invoke(app, ["users", "passwd", "ben", *here], input="another horse battery\n").exit_code == 0
    listed = run.invoke(app, ["users", "ls", *here]).output
    assert [line.split()[:3] for line in listed.splitlines()[1:]] == [
        ["ana", "admin", "all"],
        ["ben", "viewer", "default"],
    ]
    assert run.invoke(app, ["users", "remove", "ana", *here]).exit_code != 0  # the last admin
    assert run.invoke(app, ["users", "remove", "ben", *here]).exit_code == 0
    assert "ben" not in run.invoke(app, ["users", "ls", *here]).output


async def test_a_page_sends_to_the_login_page_and_back(tmp_path: Path) -> None:
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response

    async def page(_: Request) -> Response:
        return PlainTextResponse("a page")

    pages = (Page(path="/audit", endpoint=page), Page(path="/login", endpoint=page, right=None))
    async with running(tmp_path, options={"pages": pages}) as here, browser(here) as ana:
        assert (await ana.get("/audit")).text == "a page"
        await make(here, "ana", "admin")
        away = await ana.get("/audit?q=site:north&x=1")
        assert (away.status_code, away.headers["location"]) == (
            303,
            "/login?next=%2Faudit%3Fq%3Dsite%3Anorth%26x%3D1",
        )
        assert (await ana.get("/login")).text == "a page"
        await sign_in(ana, "ana")
        assert (await ana.get("/audit")).text == "a page"


async def test_what_a_page_asks_by_itself_does_not_count_as_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[bool] = []
    original = Sessions.recognise

    async def noted(self: Sessions, headers: Any, *, counts: bool = True) -> Any:
        counted.append(counts)
        return await original(self, headers, counts=counts)

    monkeypatch.setattr(Sessions, "recognise", noted)
    async with running(tmp_path) as here, browser(here) as ana:
        await make(here, "ana", "admin")
        await sign_in(ana, "ana")
        await ana.get("/v1/series")
        await ana.get("/v1/series", headers={"X-Eyeline-Background": "1"})
    assert counted == [True, False]
