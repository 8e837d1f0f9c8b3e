"""Who may do what: every route, every role, own and other sites. A route without a row here fails."""

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from eyeline.core.clock import utcnow
from eyeline.core.errors import ConfigError
from eyeline.gateway.app import build_api
from eyeline.gateway.auth import create_key, new_key
from eyeline.gateway.state import State
from eyeline.queues import open_queue
from eyeline.stores.blobs import open_blobs
from eyeline.stores.cache import open_cache
from eyeline.stores.results import open_results
from eyeline.stores.results.base import AlertRow, DeliveryRow, ItemRow, KeyRow, SightingRow
from eyeline.stores.results.driver import Connection
from tests.contract.servers import redis_cache_url
from tests.gateways import Running, jpeg, running, settings_for
from tests.system import TLS

ROLES = ("ingest", "viewer", "operator", "admin")
SENDERS = {"ingest", "operator", "admin"}
READERS = {"viewer", "operator", "admin"}
OPERATORS = {"operator", "admin"}
#: In an order in which each fits, however often all of them are sent.
DECISIONS: dict[str, dict[str, Any]] = {
    "reopen": {},
    "acknowledge": {},
    "snooze": {"seconds": 60},
    "assign": {"to": "ana"},
    "note": {"note": "seen"},
    "undo": {},
    "resolve": {"disposition": "real"},
}
SITES = [{"name": "north"}, {"name": "south"}]
CAMERAS = [{"name": f"camera-{site}", "url": "file:///x", "site": site} for site in ("north", "south")]


@dataclass(frozen=True)
class Row:
    """A route: who may, what a success is, and whether it is about something of one site (`{site}`, `{id}`), or of
    all sites at once.
    """

    roles: set[str]
    status: int = 200
    path: str = ""
    sited: bool = False
    send: dict[str, Any] = field(default_factory=dict)
    everywhere: bool = False


PUBLIC = set(ROLES) | {"nobody"}
ADMIN = {"admin"}
MATRIX: dict[tuple[str, str], Row] = {
    ("POST", "/v1/images"): Row(SENDERS, 202, "/v1/images?site={site}", sited=True, send={"content": jpeg(9)}),
    ("GET", "/v1/jobs/{id}"): Row(READERS, sited=True),  # ingest keys: their own alone, see below
    # the jobs of this test wait, and only failed ones can be replayed: 409 is the answer to those who may
    ("POST", "/v1/jobs/{id}/replay"): Row({"operator", "admin"}, 409, sited=True),
    ("GET", "/v1/results"): Row(READERS),
    ("GET", "/v1/results/export"): Row(READERS),
    ("GET", "/v1/results/summary"): Row(READERS),
    # what is asked for has no such format, and nobody has an export of that id
    ("POST", "/v1/exports"): Row(READERS, 400, send={"json": {"format": "xls"}}),
    ("GET", "/v1/exports"): Row(READERS),
    ("GET", "/v1/exports/{id}"): Row(READERS, 404, "/v1/exports/none"),
    ("GET", "/v1/exports/{id}/file"): Row(READERS, 404, "/v1/exports/none/file"),
    ("DELETE", "/v1/exports/{id}"): Row(READERS, 404, "/v1/exports/none"),
    ("GET", "/v1/results/words"): Row(READERS, path="/v1/results/words?token=ref"),
    ("GET", "/v1/results/{id}"): Row(READERS, sited=True),
    ("GET", "/v1/results/{id}/image"): Row(READERS, sited=True),
    ("POST", "/v1/results/{id}/replay"): Row(OPERATORS, 400, sited=True, send={"json": {"pipeline": "none"}}),
    # packs are made where the whole system is composed: 404 is the answer to those who may, too
    ("GET", "/v1/results/{id}/evidence"): Row(READERS, 404, sited=True),
    ("GET", "/v1/items/{key:path}/evidence"): Row(READERS, 404, "/v1/items/code-{site}/evidence", sited=True),
    ("GET", "/v1/results/{id}/verdicts"): Row(READERS, sited=True),
    ("POST", "/v1/results/{id}/verdicts"): Row(OPERATORS, 201, sited=True, send={"json": {"kind": "confirmed"}}),
    # the results of this test have no verdict of that id: 404 is the answer to those who may, too
    ("POST", "/v1/results/{id}/verdicts/{verdict}/undo"): Row(
        OPERATORS, 404, "/v1/results/{id}/verdicts/{id}/undo", sited=True
    ),
    ("GET", "/v1/review"): Row(READERS),
    ("POST", "/v1/review/{id}/hold"): Row(OPERATORS, sited=True),
    ("GET", "/v1/items"): Row(READERS),
    ("GET", "/v1/items/{key:path}"): Row(READERS, path="/v1/items/code-{site}", sited=True),
    ("GET", "/v1/counts"): Row(READERS),
    ("GET", "/v1/events"): Row(READERS),
    ("GET", "/v1/alerts"): Row(READERS),
    ("GET", "/v1/alerts/{id}"): Row(READERS, path="/v1/alerts/alert-{site}", sited=True),
    **{
        ("POST", f"/v1/alerts/{{id}}/{what}"): Row(
            OPERATORS, 200, f"/v1/alerts/alert-{{site}}/{what}", True, {"json": body}
        )
        for what, body in DECISIONS.items()
    },
    ("POST", "/v1/alerts/actions"): Row(OPERATORS, send={"json": {"ids": ["alert-north"], "action": "reopen"}}),
    ("GET", "/v1/alerts/{id}/deliveries"): Row(READERS, path="/v1/alerts/alert-{site}/deliveries", sited=True),
    ("GET", "/v1/channels"): Row(READERS),
    ("POST", "/v1/channels/{name}/test"): Row(OPERATORS, path="/v1/channels/log/test?wait=0"),
    ("GET", "/v1/outputs"): Row(READERS),
    ("GET", "/v1/deliveries"): Row(READERS),
    # nothing has failed in this test: 409 is the answer to those who may
    ("POST", "/v1/deliveries/{id}/retry"): Row(OPERATORS, 409, "/v1/deliveries/delivery-{site}/retry", sited=True),
    ("GET", "/v1/silences"): Row(READERS),
    ("POST", "/v1/silences"): Row(
        OPERATORS, 201, send={"json": {"reason": "belt is cleaned", "site": "north", "seconds": 60}}
    ),
    ("DELETE", "/v1/silences/{id}"): Row(OPERATORS, 404, "/v1/silences/nobody"),
    ("GET", "/v1/reports/shift"): Row(READERS),
    ("GET", "/v1/rules"): Row(READERS),
    ("GET", "/v1/rules/{name:path}"): Row(READERS, path="/v1/rules/dents"),
    # the rule stands in the settings: 409 is the answer to those who may
    ("PUT", "/v1/rules/{name:path}"): Row(
        {"operator", "admin"}, 409, "/v1/rules/dents", everywhere=True, send={"json": {"when": "score > 0.5"}}
    ),
    ("DELETE", "/v1/rules/{name:path}"): Row({"operator", "admin"}, 409, "/v1/rules/dents", everywhere=True),
    ("POST", "/v1/rules/dry-run"): Row({"operator", "admin"}, send={"json": {"when": "score > 0.5"}}),
    ("GET", "/v1/models"): Row(READERS),
    # what is asked of models does not fit, or is of none: nothing changes
    ("POST", "/v1/models/{name}/promote"): Row(ADMIN, 400, "/v1/models/none/promote", send={"json": {}}),
    ("POST", "/v1/models/{name}/canary"): Row(ADMIN, 400, "/v1/models/none/canary", send={"json": {}}),
    ("POST", "/v1/models/{name}/canary/end"): Row(ADMIN, 400, "/v1/models/none/canary/end", send={"json": {}}),
    ("POST", "/v1/models/{name}/rollback"): Row(ADMIN, 400, "/v1/models/none/rollback", send={"json": {}}),
    ("POST", "/v1/models/{name}/golden"): Row(ADMIN, 404, "/v1/models/none/golden"),
    ("POST", "/v1/models/{name}/verify"): Row({"operator", "admin"}, 404, "/v1/models/none/verify"),
    ("POST", "/v1/comparisons"): Row(OPERATORS, 400, send={"json": {}}),
    ("GET", "/v1/comparisons"): Row(READERS),
    ("GET", "/v1/comparisons/{id}"): Row(READERS, 404, "/v1/comparisons/none"),
    ("GET", "/v1/pipelines"): Row(READERS),
    ("GET", "/v1/series"): Row(READERS),
    ("GET", "/v1/operations"): Row(READERS),
    ("POST", "/v1/operations/replicas/{id}/drain"): Row(
        {"operator", "admin"}, 404, "/v1/operations/replicas/none/drain", everywhere=True
    ),
    ("POST", "/v1/operations/replicas/{id}/drain/end"): Row(
        {"operator", "admin"}, 404, "/v1/operations/replicas/none/drain/end", everywhere=True
    ),
    ("POST", "/v1/operations/cost"): Row(ADMIN, 400, send={"json": {"machines_per_hour": -1}}),
    ("GET", "/v1/queue"): Row(READERS),
    ("GET", "/v1/queue/dead"): Row(READERS),
    ("POST", "/v1/queue/dead/replay"): Row({"operator", "admin"}, 400, send={"json": {"ids": []}}),
    ("GET", "/v1/sites"): Row(READERS),
    ("GET", "/v1/cameras"): Row(READERS),
    ("PUT", "/v1/cameras/{name}/status"): Row(
        SENDERS, 204, "/v1/cameras/camera-{site}/status", sited=True, send={"json": {"captured": 1}}
    ),
    # the cameras of this test give no frames: 409 is the answer to those who may
    ("POST", "/v1/cameras/{name}/capture"): Row(SENDERS, 409, "/v1/cameras/camera-{site}/capture", sited=True),
    ("GET", "/v1/cameras/{name}/captures"): Row(SENDERS, 200, "/v1/cameras/camera-{site}/captures", sited=True),
    ("POST", "/v1/cameras/{name}/diagnose"): Row(
        {"operator", "admin"}, 200, "/v1/cameras/camera-{site}/diagnose", sited=True
    ),
    ("GET", "/v1/slo"): Row(READERS),
    ("GET", "/v1/holds"): Row(READERS),
    ("POST", "/v1/holds"): Row(
        OPERATORS, 201, send={"json": {"reason": "claim 12", "site": "north", "ref": "order-7"}}
    ),
    # no hold has that id: 404 is the answer to those who may, too
    ("POST", "/v1/holds/{id}/lift"): Row(ADMIN, 404, "/v1/holds/none/lift", send={"json": {"reason": "settled"}}),
    ("GET", "/v1/storage"): Row({"operator", "admin"}),
    ("GET", "/v1/system"): Row({"operator", "admin"}),
    # everyone may try to sign in, with credentials that are right; and out
    ("POST", "/v1/session"): Row(PUBLIC, 401, send={"json": {"name": "nobody", "password": "a wrong one"}}),
    ("DELETE", "/v1/session"): Row(PUBLIC, 204),
    ("POST", "/v1/session/end"): Row(PUBLIC, 303),
    ("GET", "/v1/session"): Row(set(ROLES)),
    ("PUT", "/v1/session/password"): Row(set(), 403),  # who has a key has no password
    ("POST", "/v1/session/password"): Row(set(), 403),
    ("GET", "/v1/users"): Row(ADMIN),
    # what is sent does not fit, so that nothing changes: 400 is the answer to those who may
    ("POST", "/v1/users"): Row(ADMIN, 400, send={"json": {"name": "x"}}),
    ("PATCH", "/v1/users/{name}"): Row(ADMIN, 400, "/v1/users/none", send={"json": {"rolle": "admin"}}),
    ("DELETE", "/v1/users/{name}"): Row(ADMIN, 404, "/v1/users/none"),
    ("GET", "/v1/keys"): Row(ADMIN),
    ("POST", "/v1/keys"): Row(ADMIN, 400, send={"json": {"name": "x", "role": "owner"}}),
    ("DELETE", "/v1/keys/{name}"): Row(ADMIN, 404, "/v1/keys/none"),
    ("GET", "/healthz"): Row(PUBLIC),
    ("GET", "/readyz"): Row(PUBLIC),
    ("GET", "/metrics"): Row(READERS),
    ("GET", "/docs"): Row(PUBLIC),
    ("GET", "/openapi.json"): Row(PUBLIC),
}


def keys() -> tuple[list[dict[str, Any]], dict[tuple[str, str], str]]:
    """A key for each role, for all sites and for north alone: as settings, and the secrets."""
    configured, secrets = [], {}
    for role in ROLES:
        for reach, sites in (("all", []), ("north", ["north"])):
            secret, digest = new_key()
            configured.append({"name": f"{role}-{reach}", "sha256": digest, "role": role, "sites": sites})
            secrets[role, reach] = secret
    return configured, secrets


def routes_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Every method and path that the application has."""
    settings = settings_for(folder)
    state = State(
        settings,
        open_blobs(settings.blobs.url),
        open_results(settings.results.url),
        open_queue("memory://"),
        open_cache("memory://"),
    )
    for route in build_api(state).routes:
        assert isinstance(route, Route | APIRoute)
        for method in route.methods or ():
            yield method, route.path


async def test_every_route_has_a_row_and_every_row_a_route(tmp_path: Path) -> None:
    assert set(routes_of(tmp_path)) == set(MATRIX)


async def populated(here: Running) -> dict[str, str]:
    """A finished job and an alert at each site; the ids by site."""
    ids = {}
    for site in ("north", "south"):
        answer = await here.send(1, site=site)
        assert answer.status_code == 202, answer.text
        ids[site] = (await here.work()).id
        now = utcnow()
        alert = AlertRow(
            id=f"alert-{site}",
            rule="r",
            cause="c",
            site=site,
            severity="warning",
            state="open",
            opened_at=now,
            last_at=now,
            count=1,
            result_id=ids[site],
            body={},
        )
        row = DeliveryRow(
            id=f"delivery-{site}", alert_id=alert.id, channel="log", payload=b"{}", captured_at=now, next_at=now
        )
        await here.results.commit_alerts(state={}, alerts=[alert], deliveries=[row])
        item = ItemRow(
            id=f"item-{site}",
            site=site,
            camera=f"camera-{site}",
            pipeline="parcels",
            label="parcel",
            first_at=now,
            last_at=now,
            frames=3,
            score=0.9,
            result_id=ids[site],
            labels={"parcel": 0.9},
            codes=(f"code-{site}", "code-of-both"),
        )
        sighting = SightingRow(item_id=item.id, result_id=ids[site], detection=0)
        await here.results.commit_items(state={}, items=[item], sightings=[sighting])
    return ids


async def status_of(client: httpx.AsyncClient, method: str, path: str, **kwargs: Any) -> int:
    """The status alone: streams are not read."""
    async with client.stream(method, path, **kwargs) as answer:
        return answer.status_code


def expected(row: Row, role: str, reach: str, site: str) -> int:
    """What the matrix promises."""
    if row.roles == PUBLIC:
        return row.status
    if role == "nobody":
        return 401
    if role not in row.roles or (row.everywhere and reach == "north"):
        return 403
    if row.roles == ADMIN and reach != "all":
        return 403  # who is limited to a site could make a key that is not
    if row.sited and reach == "north" and site == "south":
        return 404
    return row.status


async def test_the_matrix_holds_for_every_route_role_and_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walls: set[tuple[str, ...]] = set()  # what the database was told to hold to
    monkeypatch.setattr(Connection, "limit", lambda _, sites: walls.add(sites))
    configured, secrets = keys()
    callers = {**secrets, ("nobody", "all"): None, ("wrong", "all"): "eyl_live_wrong"}
    wrong = []
    tree: dict[str, Any] = {"keys": configured, "sites": SITES, "cameras": CAMERAS}
    tree["alerts"] = {"rules": [{"name": "dents", "when": "score > 0.5"}]}
    async with running(tmp_path, key=secrets["admin", "all"], **tree) as here:
        ids = await populated(here)
        assert walls == set()
        for (role, reach), secret in callers.items():
            headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
            async with httpx.AsyncClient(
                base_url=here.gateway.url, headers=headers, trust_env=False, verify=TLS
            ) as client:
                for (method, path), row in MATRIX.items():
                    for site in ("north", "south") if row.sited else ("north",):
                        full = (row.path or path).format(site=site, id=ids[site])
                        got = await status_of(client, method, full, **row.send)
                        want = expected(row, "nobody" if role == "wrong" else role, reach, site)
                        if (method, path) == ("GET", "/v1/jobs/{id}") and role == "ingest":
                            want = 404  # not its own job
                        if (method, path) == ("POST", "/v1/images") and want == 404:
                            want = 400  # an unknown site, as for any other name
                        if got != want:
                            wrong.append((role, reach, method, full, got, want))
    assert wrong == []
    assert walls == {("north",)}


async def test_an_ingest_key_sees_the_jobs_it_sent_and_no_others(tmp_path: Path) -> None:
    configured, secrets = keys()
    async with running(tmp_path, key=secrets["ingest", "all"], keys=configured, sites=SITES) as here:
        id_ = (await here.send(1)).json()["id"]
        assert (await here.client.get(f"/v1/jobs/{id_}")).status_code == 200
        other = {"Authorization": f"Bearer {secrets['ingest', 'north']}"}
        assert (await here.client.get(f"/v1/jobs/{id_}", headers=other)).status_code == 404


async def test_lists_streams_and_exports_hold_the_callers_sites_alone(tmp_path: Path) -> None:
    configured, secrets = keys()
    async with running(tmp_path, key=secrets["admin", "all"], keys=configured, sites=SITES, cameras=CAMERAS) as here:
        ids = await populated(here)
        for scope in ({"site": "south"}, {"result": ids["south"]}):
            await here.client.post("/v1/holds", json={"reason": "claim", **scope})
        north = {"Authorization": f"Bearer {secrets['viewer', 'north']}"}
        paths = (
            "/v1/results",
            "/v1/results?site=south",
            "/v1/results/export",
            "/v1/results?q=site:s*",
            "/v1/results/summary",
            "/v1/results/words?token=site",
            "/v1/results/words?token=ref",
            "/v1/review",
            "/v1/items",
            "/v1/items/code-of-both",
            "/v1/counts",
            "/v1/alerts",
            "/v1/rules",
            "/v1/sites",
            "/v1/cameras",
            "/v1/queue",
            "/v1/queue/dead",
            "/v1/operations",
            "/v1/holds",
        )
        for path in paths:
            text = (await here.client.get(path, headers=north)).text
            assert "south" not in text, path
            assert ids["south"] not in text, path
        async with here.client.stream("GET", "/v1/events?after=0", headers=north) as stream:
            text = ""
            async for chunk in stream.aiter_text():
                text += chunk
                if ids["north"] in text and "alert-north" in text:
                    break
        assert "south" not in text


async def test_the_names_offered_are_those_within_reach(tmp_path: Path) -> None:
    configured, secrets = keys()
    async with running(tmp_path, key=secrets["ingest", "north"], keys=configured, sites=SITES, cameras=CAMERAS) as here:
        answer = await here.send(1, camera="camera-south")
        assert answer.status_code == 400
        assert "camera-north" in answer.json()["detail"]
        assert "known: camera-north" in answer.json()["detail"]
        assert (await here.send(1)).status_code == 202  # goes to its own site
        assert (await here.take()).site == "north"


async def test_a_new_key_never_takes_the_place_of_another(tmp_path: Path) -> None:
    """A second key of the same name would shut out a camera without a word."""
    settings = settings_for(tmp_path, sites=SITES, keys=[{"name": "filed", "sha256": "0" * 64}])
    results = open_results(settings.results.url)
    await results.upgrade()
    await create_key(settings, results, "belt", "ingest", ("north",))
    for name, role, sites, told in (
        ("belt", "viewer", (), "called 'belt' already.*revoke"),
        ("filed", "viewer", (), "called 'filed' already"),
        ("a b", "viewer", (), "letters, digits"),
        ("new", "owner", (), "no role is called 'owner'"),
        ("new", "viewer", ("nroth",), "no site is called 'nroth'; defined: default, north, south"),
    ):
        with pytest.raises(ConfigError, match=told):
            await create_key(settings, results, name, role, sites)
    assert [(key.name, key.role) for key in await results.keys()] == [("belt", "ingest")]
    await results.close()


async def test_the_deliveries_of_an_alert_that_does_not_exist_are_not_found(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        assert (await here.client.get("/v1/alerts/none/deliveries")).status_code == 404


async def test_a_revoked_or_expired_key_is_refused_within_five_seconds(tmp_path: Path) -> None:
    secret, digest = new_key()
    row = KeyRow(name="k", sha256=digest, role="viewer", sites=(), created_at=utcnow())
    results = open_results(settings_for(tmp_path).results.url)
    await results.upgrade()
    await results.put_key(row)
    async with running(tmp_path, key=secret) as here:
        assert (await here.client.get("/v1/results")).status_code == 200
        revoked = KeyRow(**{**vars_of(row), "revoked_at": utcnow()})
        await results.put_key(revoked)
        async with asyncio.timeout(5):
            while (await here.client.get("/v1/results")).status_code != 401:
                await asyncio.sleep(0.2)
        anonymous = {"Authorization": ""}
        assert (await here.client.get("/v1/results", headers=anonymous)).status_code == 401  # the door stays shut
        await results.put_key(KeyRow(**{**vars_of(row), "expires_at": utcnow() - timedelta(seconds=1)}))
        await asyncio.sleep(2.5)
        assert (await here.client.get("/v1/results")).status_code == 401
    await results.close()


def vars_of(row: KeyRow) -> dict[str, Any]:
    """The fields of a key row."""
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


async def test_a_key_is_nowhere_in_what_is_kept(tmp_path: Path) -> None:
    secret, digest = new_key()
    assert digest == hashlib.sha256(secret.encode()).hexdigest()
    configured = [{"name": "k", "sha256": digest, "role": "admin"}]
    async with running(tmp_path, key=secret, keys=configured) as here:
        await here.send(1)
        pages = [(await here.client.get(path)).text for path in ("/v1/system", "/metrics", "/v1/results")]
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret.encode() not in kept
    assert secret not in "".join(pages)


async def test_without_a_key_it_listens_on_loopback_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no key"):
        async with running(tmp_path, gateway={"host": "0.0.0.0"}):
            pass


async def test_without_a_key_foreign_hosts_and_foreign_pages_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as here:
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = await here.client.post("/v1/images", content=jpeg(), headers=headers)
            assert answer.status_code in {400, 403}, headers
        assert (await here.client.get("/v1/results", headers={"Host": "rebound.example"})).status_code == 400
        assert (
            await here.client.post("/v1/images", content=jpeg(), headers={"Origin": here.gateway.url})
        ).status_code == 202


async def test_only_allowed_hosts_are_answered_where_some_are_listed(tmp_path: Path) -> None:
    secret, digest = new_key()
    configured = [{"name": "k", "sha256": digest, "role": "admin"}]
    listed = {"allowed_hosts": ["eyeline.example"]}
    async with running(tmp_path, key=secret, keys=configured, gateway=listed) as here:
        assert (await here.client.get("/v1/sites", headers={"Host": "Eyeline.example:80"})).status_code == 200
        assert (await here.client.get("/v1/sites", headers={"Host": "other.example"})).status_code == 400
        assert (await here.client.get("/healthz", headers={"Host": "10.0.0.1"})).status_code == 200


async def test_each_key_has_its_own_rate_and_is_told_when_to_come_back(tmp_path: Path) -> None:
    configured, secrets = keys()
    async with running(tmp_path, key=secrets["admin", "all"], keys=configured, gateway={"rate": 4}) as here:
        answers = [await here.client.get("/v1/sites") for _ in range(8)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert int(refused[0].headers["retry-after"]) >= 1
        other = {"Authorization": f"Bearer {secrets['viewer', 'all']}"}
        assert (await here.client.get("/v1/sites", headers=other)).status_code == 200


async def test_two_gateways_with_one_cache_give_a_key_its_rate_once(tmp_path: Path) -> None:
    configured, secrets = keys()
    tree: dict[str, Any] = {"keys": configured, "gateway": {"rate": 0.1}, "cache": {"url": redis_cache_url()}}
    async with (
        running(tmp_path / "a", key=secrets["admin", "all"], **tree) as here,
        running(tmp_path / "b", key=secrets["admin", "all"], **tree) as there,
    ):
        given = [(await each.client.get("/v1/sites")).status_code for each in (here, there)]
        assert given == [200, 200]  # within a moment both may give their burst, of one here
        async with asyncio.timeout(20):
            while True:
                answer = await there.client.get("/v1/sites")
                assert answer.status_code == 429
                if int(answer.headers["retry-after"]) > 1 / 0.1:  # what the other gave is owed as well
                    break
                await asyncio.sleep(0.02)
