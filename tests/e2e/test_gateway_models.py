"""Models and the queue as the pages for engineers need them: a real gateway, and a real inference server beside it."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

import eyeline
from eyeline.cli import app
from eyeline.gateway.answers import PLAN_AGE
from eyeline.inference.bundles import write_manifest
from eyeline.inference.client import InferenceClient
from eyeline.inference.goldens import check_served
from eyeline.inference.servers import Servers
from eyeline.worker.worker import REFRESH
from tests.fake_models import brightness_graph, write_brightness_bundle
from tests.gateways import Running, jpeg, running, settings_for
from tests.inference_process import inference_process
from tests.plant import Plant, open_plant, steps

WHY = {"reason": "trained on the new belt"}


def three_versions(models: Path) -> None:
    """1.0.0 and 2.0.0 are good, 3.0.0 answers otherwise than its golden set says."""
    for number in ("1.0.0", "2.0.0", "3.0.0"):
        write_brightness_bundle(models / "scratch", version=number, offset=0.01 * int(number[0]))
        (models / "brightness").mkdir(exist_ok=True)
        (models / "scratch" / "brightness").rename(models / "brightness" / number)
    (models / "scratch").rmdir()
    bad = models / "brightness" / "3.0.0"
    (bad / "weights.onnx").write_bytes(brightness_graph(offset=-0.3))
    write_manifest(bad)


async def test_a_version_is_promoted_after_its_check_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    three_versions(models)
    (models / "brightness" / "current").write_text("1.0.0\n")
    with inference_process(models) as server:
        tree: dict[str, Any] = {"inference": {"url": server.url, "models": str(models)}}
        servers = Servers(settings_for(tmp_path / "data", **tree).inference)
        async with running(tmp_path / "data", options={"servers": servers}, **tree) as here:
            fingerprints: set[str] = set()

            async def states() -> dict[str, str]:
                listed = (await here.client.get("/v1/models")).json()
                mine = next(model for model in listed["models"] if model["name"] == "brightness")
                (serving,) = listed["servers"]
                (one,) = serving["models"]
                fingerprints.add(one["fingerprint"])
                assert (one["runtime"], one["precision"]) == ("onnxruntime", "f32")
                versions = {version["version"]: version["state"] for version in mine["versions"]}
                return versions | {"served": serving["models"][0]["version"].partition("+")[0]}

            assert await states() == {"1.0.0": "live", "2.0.0": "staged", "3.0.0": "staged", "served": "1.0.0"}
            path = "/v1/models/brightness"
            good = await here.client.post(f"{path}/promote", json={"version": "2.0.0"} | WHY, timeout=120)
            assert (good.status_code, good.json()["waits"]) == (200, False), good.text
            assert await states() == {"1.0.0": "retired", "2.0.0": "live", "3.0.0": "staged", "served": "2.0.0"}
            bad = await here.client.post(f"{path}/promote", json={"version": "3.0.0"} | WHY, timeout=120)
            assert bad.status_code == 409
            assert "golden check" in bad.json()["detail"]
            (serving,) = (await here.client.get("/v1/models")).json()["servers"]
            assert "golden check" in serving["refused"]["brightness"]
            assert await states() == {"1.0.0": "retired", "2.0.0": "live", "3.0.0": "staged", "served": "2.0.0"}
            checked = await here.client.post(f"{path}/verify?version=3.0.0", timeout=120)
            assert not checked.json()["passed"]
            assert "golden check" in checked.json()["detail"]
            back = await here.client.post(f"{path}/rollback", json=WHY, timeout=120)
            assert back.status_code == 200
            assert (await states())["served"] == "1.0.0"
            await golden_pictures_are_asked(here, models)
            assert len(fingerprints) == 2, "each version answers otherwise, and the same one as before"
            assert (await here.client.post(f"{path}/rollback", json=WHY)).status_code == 409
            for version in ("9.9.9", "../2.0.0", "2.0.0\x00"):
                assert (await here.client.post(f"{path}/promote", json={"version": version} | WHY)).status_code == 404
            nameless = await here.client.post("/v1/models/..%2fx/promote", json={"version": "2.0.0"} | WHY)
            assert nameless.status_code == 404
            history = (await here.client.get("/v1/models")).json()["history"]
            assert [(line["what"], line["from"], line["version"], line["reason"]) for line in history] == [
                ("model.rolled_back", "2.0.0", "1.0.0", WHY["reason"]),
                ("model.promoted", "1.0.0", "2.0.0", WHY["reason"]),
            ]
            records = await here.results.unsealed(50, bodies=True)
            kept = [msgspec.json.decode(record.body)["what"] for record in records if record.body]
            assert kept == ["model.promoted", "model.rolled_back", "model.checked"]
        await servers.close()


async def golden_pictures_are_asked(here: Running, models: Path) -> None:
    """The server says of what it is and how its load was checked; asked anew, it answers the golden pictures again."""
    (server,) = (await here.client.get("/v1/models")).json()["servers"]
    assert server["environment"]["software"] == f"eyeline {eyeline.__version__}"
    assert server["environment"]["providers"] == "cpu"
    assert server["refused"] == {}
    loaded = server["models"][0]["golden"]
    assert (loaded["passed"], loaded["pictures"], loaded["score_difference"] < 0.01) == (True, 4, True)
    path = "/v1/models/brightness/golden"
    asked = await here.client.post(path)
    assert asked.status_code == 200, asked.text
    (run,) = asked.json()["servers"]
    same = ("pictures", "score_difference", "tolerance", "differences", "passed")
    assert {name: run[name] for name in same} == {name: loaded[name] for name in same}
    assert (run["server"], run["model"], run["version"][:6]) == (server["url"], "brightness", "1.0.0+")
    assert run["at"] > loaded["at"]
    assert (await here.client.get("/v1/models")).json()["golden"] == [run]
    assert (await here.client.post("/v1/models/none/golden")).status_code == 404
    assert (await here.client.post("/v1/models/grocery/golden")).status_code == 409  # installed, served by nobody
    (models / "brightness" / "1.0.0").rename(models / "aside")
    assert "its golden pictures are not here" in (await check_served_of(models, server["url"]))["error"]
    (models / "aside").rename(models / "brightness" / "1.0.0")


async def check_served_of(models: Path, url: str) -> dict[str, Any]:
    client = InferenceClient(url, models)
    try:
        return await check_served(client, models, "brightness")
    finally:
        await client.close()


class Line:
    """A gateway with a worker and a server: pictures of two sites, and which version answered each."""

    def __init__(self, here: Running, plant: Plant) -> None:
        self._here, self._plant = here, plant
        self.versions: dict[str, list[str]] = {"north": [], "south": []}
        self._seed = 0

    async def answer(self, site: str, seed: int) -> dict[str, Any]:
        """What became of one picture."""
        sent = await self._here.client.post("/v1/images", content=jpeg(seed), params={"site": site, "wait": 20})
        result: dict[str, Any] = sent.json()
        assert result["status"] == "completed", result
        return result

    async def go_on(self) -> None:
        """New pictures for ever; none may fail."""
        while True:
            for site, versions in self.versions.items():
                self._seed += 1
                result = await self.answer(site, 1000 + self._seed)
                versions.append(result["models"][0]["version"].partition("+")[0])
            await asyncio.sleep(0.05)

    async def until(self, north: str, south: str) -> None:
        """Until the newest pictures were answered by these."""

        async def so() -> bool:
            return all(self.versions[site][-1:] == [version] for site, version in (("north", north), ("south", south)))

        for versions in self.versions.values():
            versions.clear()
        await self._plant.until(so, 30, f"{north} at north, {south} at south; {self.versions}")


async def compared(here: Running, first: dict[str, Any]) -> None:
    """Both versions are asked about the same pictures; nothing else follows."""
    live, tried = {"pipeline": "brightness"}, {"pipeline": "brightness", "model": "brightness@2.0.0"}
    wanted = {"a": live, "b": tried, "site": "south", "count": 2}
    for wrong, status in (
        ({"b": live}, 400),
        ({"site": "west"}, 409),
        ({"count": 49}, 400),
        ({"a": {"pipeline": "x"}}, 400),
    ):
        assert (await here.client.post("/v1/comparisons", json=wanted | wrong)).status_code == status, wrong
    begun = await here.client.post("/v1/comparisons", json=wanted)
    assert (begun.status_code, begun.json()["state"], begun.json()["asked"]) == (202, "running", 2), begun.text
    path = f"/v1/comparisons/{begun.json()['id']}"
    async with asyncio.timeout(30):
        while (told := (await here.client.get(path)).json())["state"] != "done":
            await asyncio.sleep(0.1)
    assert (told["compared"], told["alike"]) == (2, 2)
    assert told["largest_score_difference"] == pytest.approx(0.01, abs=0.002), "the second version's own offset"
    assert [len(told[side]["models"]) for side in ("a", "b")] == [1, 1]
    assert told["a"]["models"] != told["b"]["models"]
    answers = await here.results.get_many([one[side] for one in told["pictures"] for side in ("a", "b")])
    assert {(one.aside, one.camera) for one in answers.values()} == {(True, None)}
    listed = (await here.client.get("/v1/comparisons")).json()["comparisons"]
    assert [(one["id"], "pictures" in one) for one in listed] == [(told["id"], False)]
    await here.results.erase([told["pictures"][0]["record"]])
    told = (await here.client.get(path)).json()
    assert ([one["state"] for one in told["pictures"]], told["compared"]) == (["gone", "compared"], 1)


async def replayed(here: Running, first: dict[str, Any], later: dict[str, Any]) -> None:
    """The version that is tried out is asked about the picture of a record that the live one made."""
    path, which = f"/v1/results/{first['id']}/replay", {"pipeline": "brightness", "model": "brightness@2.0.0"}
    unknown = await here.client.post(path, json=which | {"model": "brightness@3.0.0"})
    assert (unknown.status_code, "brightness with brightness@2.0.0" in unknown.json()["detail"]) == (400, True)
    asked = await here.client.post(path, json=which)
    assert (asked.status_code, asked.json()["replay_of"]) == (202, first["id"])
    done = (await here.client.get(f"/v1/jobs/{asked.json()['id']}", params={"wait": 20})).json()["result"]
    assert (done["aside"], done["replay_of"], done["ref"], done["camera"]) == (True, first["id"], first["id"], None)
    assert (done["duplicate_of"], done["models"], done["classifications"]) == (
        None,
        later["models"],
        later["classifications"],
    )
    again = await here.client.post(f"/v1/results/{done['id']}/replay", json=which)
    assert (again.status_code, first["id"] in again.json()["detail"]) == (409, True)
    records = await here.results.unsealed(5000, bodies=True)
    kept = [msgspec.json.decode(record.body) for record in records if record.kind == "action" and record.body]
    assert [(one["result"], one["job"]) for one in kept if one["what"] == "replay"] == [(first["id"], done["id"])]
    await compared(here, first)
    await here.blobs.delete(f"{first['site']}/{first['image']['sha256']}")
    gone = await here.client.post(path, json=which)
    assert (gone.status_code, "not kept as it was received" in gone.json()["detail"]) == (409, True)


async def test_a_version_is_tried_out_at_one_site_and_promoted_or_taken_back_while_pictures_come(
    tmp_path: Path,
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    three_versions(models)
    (models / "brightness" / "current").write_text("1.0.0\n")
    path = "/v1/models/brightness"
    with inference_process(models) as server:
        tree: dict[str, Any] = {
            "inference": {"url": server.url, "models": str(models)},
            "sites": [{"name": "north"}, {"name": "south"}],
            "pipelines": [{"name": "brightness", "steps": steps(("light", "brightness", None))}],
            "worker": {"decoders": 1, "concurrency": 4},
        }
        settings = settings_for(tmp_path / "data", **tree)
        servers = Servers(settings.inference)
        async with (
            running(tmp_path / "data", options={"servers": servers}, **tree) as here,
            open_plant(settings) as plant,
            plant.worker(),
        ):
            line = Line(here, plant)
            first = await line.answer("south", 1)
            going = asyncio.create_task(line.go_on())
            await line.until("1.0.0", "1.0.0")

            async def post(end: str, **body: Any) -> httpx.Response:
                return await here.client.post(f"{path}/{end}", json=body | WHY, timeout=120)

            strange = await post("canary", version="2.0.0", sites=["south", "east"])
            assert (strange.status_code, "no site is called 'east'" in strange.json()["detail"]) == (400, True)
            assert (await post("canary", version="1.0.0", sites=["south"])).status_code == 409  # serves already
            assert (await post("canary/end")).status_code == 409
            refused = await post("canary", version="3.0.0", sites=["south"])
            assert (refused.status_code, "golden check" in refused.json()["detail"]) == (409, True)
            assert not (models / "brightness" / "canary").exists()

            tried = (await post("canary", version="2.0.0", sites=["south"])).json()
            assert (tried["version"], tried["from"], tried["sites"], tried["waits"]) == (
                "2.0.0",
                "1.0.0",
                ["south"],
                False,
            )
            await line.until("1.0.0", "2.0.0")
            await asyncio.sleep(PLAN_AGE + REFRESH)  # for so long the gateway may go by what it heard before
            again = await line.answer("south", 1)  # the same bytes: not answered by what another version said of them
            assert (again["duplicate_of"], again["models"][0]["version"][:5]) == (None, "2.0.0")
            assert again["classifications"] != first["classifications"]
            assert (await line.answer("south", 1))["duplicate_of"] == again["id"]
            listed = (await here.client.get("/v1/models")).json()
            versions = next(model for model in listed["models"] if model["name"] == "brightness")["versions"]
            assert [(one["state"], one.get("sites")) for one in versions] == [
                ("live", None), ("canary", ["south"]), ("staged", None)
            ]  # fmt: skip
            assert [row["name"] for row in listed["servers"][0]["models"]] == ["brightness", "brightness@2.0.0"]
            with inference_process(models) as another:  # a server that is started again tries it out, too
                rows = another.wait_settled()
                assert {name: row["state"] for name, row in rows.items() if "@" in name} == {
                    "brightness@2.0.0": "READY"
                }

            await replayed(here, first, again)
            assert (await post("canary/end")).status_code == 200
            await line.until("1.0.0", "1.0.0")
            assert (await post("canary", version="2.0.0", sites=["south"])).status_code == 200
            await line.until("1.0.0", "2.0.0")
            assert (await post("promote", version="2.0.0")).status_code == 200
            await line.until("2.0.0", "2.0.0")
            assert not (models / "brightness" / "canary").exists()
            assert server.request("/v2/models/brightness%402.0.0")[0] == 404
            going.cancel()
            await asyncio.wait({going})
            assert going.cancelled()  # no picture failed
            history = (await here.client.get("/v1/models")).json()["history"]
            assert [(line["what"], line["version"], line.get("sites")) for line in history] == [
                ("model.promoted", "2.0.0", None),
                ("model.tried_out", "2.0.0", ["south"]),
                ("model.taken_back", "1.0.0", None),
                ("model.tried_out", "2.0.0", ["south"]),
            ]
        await servers.close()


async def test_without_a_server_a_version_waits_for_the_next_load(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    three_versions(models)
    settings = tmp_path / "eyeline.toml"
    settings.write_text(f'data_dir = "{tmp_path}/data"\n[inference]\nurl = "http://127.0.0.1:9"\nmodels = "{models}"\n')
    run = CliRunner()
    said = await asyncio.to_thread(
        run.invoke, app, ["models", "promote", "brightness", "1.0.0", "--reason", "x", "--config", str(settings)]
    )
    assert said.exit_code == 0, said.output
    assert "serves from the next load on" in said.output
    assert not (tmp_path / "data").exists()  # nothing is made where there is nothing yet
    assert (models / "brightness" / "current").read_text().splitlines()[0] == "1.0.0"
    try_out = ["models", "canary", "brightness", "2.0.0", "--config", str(settings), "--site"]
    said = await asyncio.to_thread(run.invoke, app, [*try_out, "default"])
    assert "brightness 2.0.0 serves at default from the next load on" in said.output
    assert (models / "brightness" / "canary").read_text() == "2.0.0\ndefault\n"
    wrong = await asyncio.to_thread(run.invoke, app, [*try_out, "leeds"])
    assert (wrong.exit_code, "there are: default" in str(wrong.exception)) == (1, True)
    assert (await asyncio.to_thread(run.invoke, app, [*try_out[:3], "--end", *try_out[4:6]])).exit_code == 0
    assert not (models / "brightness" / "canary").exists()


async def test_failed_jobs_are_listed_and_tried_anew(tmp_path: Path) -> None:
    async with running(tmp_path, sites=[{"name": "north"}]) as here:
        for number in range(3):
            await here.send(number, site="north")
            await here.work(status="failed", reason=f"corrupt: picture {number}", detections=[], classifications=[])
        await here.send(4, site="north", lane="bulk")
        line = (await here.client.get("/v1/queue")).json()
        assert [(row["site"], row["lane"], row["count"]) for row in line["by_site"]] == [("north", "bulk", 1)]
        page = (await here.client.get("/v1/queue/dead?limit=2")).json()
        assert [job["reason"] for job in page["jobs"]] == ["corrupt: picture 2", "corrupt: picture 1"]
        rest = (await here.client.get(f"/v1/queue/dead?cursor={page['next']}")).json()
        ids = [job["id"] for job in page["jobs"] + rest["jobs"]]
        assert len(ids) == 3
        unknown = "01890000-0000-7000-8000-000000000000"
        answer = (await here.client.post("/v1/queue/dead/replay", json={"ids": [*ids, unknown, ids[0]]})).json()
        assert [one["id"] for one in answer["replayed"]] == ids
        assert [one["id"] for one in answer["refused"]] == [unknown]
        job = (await here.client.get(f"/v1/jobs/{answer['replayed'][0]['job']}")).json()
        assert job["status"] == "queued"
        again = await here.client.post("/v1/queue/dead/replay", json={"ids": [answer["replayed"][0]["job"]]})
        assert "only failed ones" in again.json()["refused"][0]["detail"]
        records = await here.results.unsealed(50, bodies=True)
        kept = [msgspec.json.decode(record.body) for record in records if record.kind == "action" and record.body]
        assert [one["failed"] for one in kept if one["what"] == "replay"] == ids
