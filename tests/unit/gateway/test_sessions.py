"""Sessions and passwords: what a cookie is worth, for how long, and what a guesser learns."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from eyeline.core.clock import utcnow
from eyeline.core.errors import InputError, Overloaded, StoreError, Unauthorised
from eyeline.core.settings import GatewaySettings
from eyeline.gateway.passwords import HASHER, Passwords, acceptable
from eyeline.gateway.session import safe_next
from eyeline.gateway.sessions import (
    COOKIE,
    HOST_COOKIE,
    TRIES,
    Sessions,
    cookies,
    from_elsewhere,
    from_here,
    token_of,
)
from eyeline.stores.results import open_results
from eyeline.stores.results.base import ResultStore, UserRow

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
RIGHT = "correct horse battery"


class Counting(Passwords):
    """Counts the comparisons, whatever they cost."""

    def __init__(self) -> None:
        super().__init__(QUICK)
        self.compared: list[bool] = []

    async def matches(self, encoded: str | None, password: str) -> bool:
        self.compared.append(encoded is not None)
        return await super().matches(encoded, password)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = utcnow()

    def __call__(self) -> Any:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResultStore]:
    opened = open_results(f"sqlite:///{tmp_path}/results.db")
    await opened.upgrade()
    for name, role in (("ana", "operator"), ("wall", "viewer")):
        await opened.put_user(UserRow(name=name, password=QUICK.hash(RIGHT), role=role, sites=(), created_at=utcnow()))
    yield opened
    await opened.close()


def sessions_over(store: ResultStore, clock: Clock | None = None) -> Sessions:
    return Sessions(GatewaySettings(), store, Counting(), clock or Clock())


def cookie(token: str, name: str = COOKIE) -> dict[bytes, bytes]:
    return {b"cookie": f"{name}={token}".encode()}


async def test_a_session_ends_when_idle_and_after_its_length_in_any_case(store: ResultStore) -> None:
    clock = Clock()
    sessions = sessions_over(store, clock)
    shown = cookie((await sessions.sign_in("ana", RIGHT, "a", None)).token)
    for _ in range(17):  # used every eleven hours, it lives on
        who = await sessions.recognise(shown)
        if who is None:
            break
        clock.now += timedelta(hours=11)
    else:
        pytest.fail("a session in use outlived its length")
    assert clock.now - utcnow() > timedelta(days=6.9)
    shown = cookie((await sessions.sign_in("ana", RIGHT, "a", None)).token)
    clock.now += timedelta(hours=12, seconds=1)
    assert await sessions.recognise(shown) is None
    assert await sessions_over(store, clock).recognise(shown) is None  # nor elsewhere


async def test_an_open_stream_keeps_a_wall_signed_in_but_nobody_who_may_act(store: ResultStore) -> None:
    clock = Clock()
    sessions = sessions_over(store, clock)
    shown = {name: cookie((await sessions.sign_in(name, RIGHT, "a", None)).token) for name in ("ana", "wall")}
    for _ in range(14):
        clock.now += timedelta(hours=1)
        who = {name: await sessions.recognise(headers, counts=False) for name, headers in shown.items()}
    assert who["ana"] is None
    assert who["wall"] is not None


async def test_signing_in_makes_a_new_token_and_ends_the_one_that_was_shown(store: ResultStore) -> None:
    """What somebody planted in a browser before is worth nothing after."""
    sessions = sessions_over(store)
    first = await sessions.sign_in("ana", RIGHT, "a", None)
    second = await sessions.sign_in("ana", RIGHT, "a", first.token)
    assert first.token != second.token
    assert await sessions.recognise(cookie(first.token)) is None
    assert await sessions_over(store).recognise(cookie(first.token)) is None
    assert await sessions.recognise(cookie(second.token)) is not None
    planted = await sessions.sign_in("ana", RIGHT, "a", "x" * 43)
    assert planted.token != "x" * 43


async def test_a_change_elsewhere_is_noticed_within_the_refresh(store: ResultStore, monkeypatch: Any) -> None:
    sessions = sessions_over(store)
    shown = cookie((await sessions.sign_in("ana", RIGHT, "a", None)).token)
    assert await sessions.recognise(shown) is not None
    user = next(user for user in await store.users() if user.name == "ana")
    await store.put_user(user)
    monkeypatch.setattr("eyeline.gateway.sessions.REFRESH", 0.0)
    assert await sessions.recognise(shown) is None


async def test_while_the_store_is_away_what_was_known_stands(store: ResultStore, monkeypatch: Any) -> None:
    sessions = sessions_over(store)
    shown = cookie((await sessions.sign_in("ana", RIGHT, "a", None)).token)
    assert await sessions.recognise(shown) is not None

    async def away(_: str) -> None:
        raise StoreError("away")

    monkeypatch.setattr(store, "session", away)
    monkeypatch.setattr("eyeline.gateway.sessions.REFRESH", 0.0)
    assert await sessions.recognise(shown) is not None
    with pytest.raises(StoreError):
        await sessions.recognise(cookie("y" * 43))


async def test_an_unknown_name_takes_the_same_way_as_a_wrong_password(store: ResultStore) -> None:
    """By structure, not by the clock: the same limits, one comparison at full cost, the same words, the same record."""
    sessions = sessions_over(store)
    passwords: Any = sessions.passwords
    said = []
    for name in ("ana", "nobody", "../../x", "x" * 256):
        with pytest.raises(Unauthorised) as caught:
            await sessions.sign_in(name, "wrong password", "a", None)
        said.append(str(caught.value))
    assert len(set(said)) == 1
    assert passwords.compared == [True, False, False, False]
    kinds = [record.kind for record in await store.unsealed(100)]
    assert kinds == ["action"] * 6  # two users, four failures


async def test_nobodys_hash_costs_what_a_users_does() -> None:
    passwords = Passwords()
    assert not await passwords.matches(None, RIGHT)
    assert passwords._nobodys is not None
    assert passwords._nobodys.split("$")[1:4] == HASHER.hash("x").split("$")[1:4]
    assert not await passwords.matches(None, "nobody's")


async def test_guessing_is_slowed_by_name_and_by_address_before_any_hashing(store: ResultStore) -> None:
    sessions = sessions_over(store)
    passwords: Any = sessions.passwords
    for number in range(TRIES):
        with pytest.raises(Unauthorised):
            await sessions.sign_in("ana", f"wrong {number}", f"address {number}", None)
    hashed = len(passwords.compared)
    with pytest.raises(Overloaded) as caught:
        await sessions.sign_in("ana", RIGHT, "another address", None)
    assert 1 <= caught.value.retry_after <= 60
    assert len(passwords.compared) == hashed
    came_through = 0
    for number in range(100):
        try:
            await sessions.sign_in(f"name {number}", "wrong", "one address", None)
        except Unauthorised:
            came_through += 1
        except Overloaded:
            break
    assert came_through < 40
    await sessions.sign_in("wall", RIGHT, "a third address", None)  # others are let in


async def test_who_signs_in_rightly_is_never_slowed(store: ResultStore) -> None:
    sessions = sessions_over(store)
    for _ in range(3 * TRIES):
        await sessions.sign_in("ana", RIGHT, "a", None)


async def test_a_hash_of_older_parameters_is_replaced_at_the_next_sign_in(store: ResultStore) -> None:
    stronger = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    sessions = Sessions(GatewaySettings(), store, Passwords(stronger))
    token = (await sessions.sign_in("ana", RIGHT, "a", None)).token
    user = next(user for user in await store.users() if user.name == "ana")
    assert "m=16,t=2" in user.password
    assert await sessions.recognise(cookie(token)) is not None
    await sessions.sign_in("ana", RIGHT, "a", None)


def test_passwords_that_would_be_guessed_are_refused() -> None:
    for password in ("short", "x" * 257, "aaaaaaaaaaaa", "Maintenance"):
        with pytest.raises(InputError):
            acceptable(password, "maintenance")
    assert acceptable(RIGHT, "ana") == RIGHT


@pytest.mark.parametrize(
    ("cookies_sent", "found"),
    [
        (f"{COOKIE}={'a' * 43}", "a" * 43),
        (f"x=1; {COOKIE}={'a' * 43}; y", "a" * 43),
        (f"{COOKIE}={'a' * 43}; {HOST_COOKIE}={'b' * 43}", "b" * 43),
        (f"{COOKIE}={'a' * 43}; {COOKIE}={'b' * 43}", None),  # one of them was planted
        (f"{COOKIE}=short", None),
        ("", None),
    ],
)
def test_the_cookie_that_counts(cookies_sent: str, found: str | None) -> None:
    assert token_of({b"cookie": cookies_sent.encode()}) == found


def test_a_cookie_is_out_of_the_reach_of_scripts_and_other_sites() -> None:
    for secure in (True, False):
        (made,) = cookies("t" * 43, 60, secure=secure)
        assert {"Path=/", "HttpOnly", "SameSite=Strict"} <= set(made.split("; "))
        assert made.startswith(HOST_COOKIE) == ("Secure" in made) == secure
        assert "Domain" not in made


@pytest.mark.parametrize(
    ("headers", "here", "elsewhere"),
    [
        ({"origin": "http://line:8080"}, True, False),
        ({"origin": "https://line:8080"}, True, False),  # a proxy ended the TLS
        ({"origin": "http://line:8080", "sec-fetch-site": "same-origin"}, True, False),
        ({"sec-fetch-site": "same-origin"}, True, False),
        ({}, False, False),  # no browser at all: no cookie of its own accord either
        ({"origin": "null"}, False, True),
        ({"origin": "http://line:9090"}, False, True),  # another port of this machine is another site
        ({"origin": "http://line"}, False, True),
        ({"origin": "http://evil.example"}, False, True),
        ({"origin": "http://line:8080.evil.example"}, False, True),
        ({"sec-fetch-site": "same-site"}, False, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://line:8080"}, False, True),
        ({"sec-fetch-site": "none"}, False, False),
    ],
)
def test_where_a_request_comes_from(headers: dict[str, str], *, here: bool, elsewhere: bool) -> None:
    sent = {name.encode(): value.encode() for name, value in ({"host": "line:8080"} | headers).items()}
    assert from_here(sent) is here
    assert from_elsewhere(sent) is elsewhere


def test_usual_ports_need_not_be_said() -> None:
    assert from_here({b"host": b"line", b"origin": b"https://line"})
    assert from_here({b"host": b"line:80", b"origin": b"http://line"})


@pytest.mark.parametrize(
    "text", ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil", "", "javascript:x", "/a\r\nX: y"]
)
def test_the_way_back_never_leads_elsewhere(text: str) -> None:
    assert safe_next(text) == "/"


def test_the_way_back_leads_to_the_page_with_its_filters() -> None:
    assert safe_next("/audit?q=site%3Anorth&cursor=7") == "/audit?q=site%3Anorth&cursor=7"
