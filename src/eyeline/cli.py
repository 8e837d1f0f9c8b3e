"""The commands. Each reads settings once, calls one room, and turns errors into one plain sentence and an exit code."""

import asyncio
import json
import os
import sys
import webbrowser
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from eyeline import __version__
from eyeline.core.errors import ConfigError, EyelineError, InputError
from eyeline.core.settings import Settings, load_settings

A_DAY = 86_400.0  # seconds
R = TypeVar("R")

app = typer.Typer(
    name="eyeline",
    help="Turns a trained vision model into a dependable service: cameras and clients in, audited results and alerts out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(
    help="Models: import, list, tune, evaluate, verify, promote, try out, roll back.",
    no_args_is_help=True,
)
queue_app = typer.Typer(help="The queue: look at it, replay what failed.", no_args_is_help=True)
dead_app = typer.Typer(help="Failed jobs that carry their work order.", no_args_is_help=True)
cameras_app = typer.Typer(help="Cameras: list and test.", no_args_is_help=True)
pipelines_app = typer.Typer(help="Pipelines: try one on a picture.", no_args_is_help=True)
storage_app = typer.Typer(help="Storage: what is kept, what it costs, when the disk is full.", no_args_is_help=True)
hold_app = typer.Typer(help="Legal holds: what they cover is neither deleted nor encoded anew.", no_args_is_help=True)
audit_app = typer.Typer(help="The audit: verify, export, sign a checkpoint.", no_args_is_help=True)
keys_app = typer.Typer(help="API keys: make, list, revoke.", no_args_is_help=True)
rules_app = typer.Typer(help="Alert rules: list, check, try on what was recorded.", no_args_is_help=True)
users_app = typer.Typer(help="People who sign in to the pages: add, list, new password, remove.", no_args_is_help=True)
db_app = typer.Typer(help="The results database.", no_args_is_help=True)
for name, sub in (
    ("models", models_app),
    ("queue", queue_app),
    ("cameras", cameras_app),
    ("pipelines", pipelines_app),
    ("audit", audit_app),
    ("storage", storage_app),
    ("hold", hold_app),
    ("keys", keys_app),
    ("rules", rules_app),
    ("users", users_app),
    ("db", db_app),
):
    app.add_typer(sub, name=name)
queue_app.add_typer(dead_app, name="dead")

out = Console(width=None if sys.stdout.isatty() else 240)  # a pipe has no width: ids must not be cut
err = Console(stderr=True)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="settings file (default: ./eyeline.toml where there is one)", envvar="EYELINE_CONFIG"
    ),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="where the embedded stores live")]
Url = Annotated[
    str | None, typer.Option("--url", help="a running gateway (default: that of the settings)", envvar="EYELINE_URL")
]
Key = Annotated[str | None, typer.Option("--key", help="API key", envvar="EYELINE_API_KEY", show_envvar=True)]
ModelsDir = Annotated[Path | None, typer.Option("--models-dir", help="where models live (default: ./models)")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def _settings(
    config: Path | None, data_dir: Path | None = None, models_dir: Path | None = None, **gateway: Any
) -> Settings:
    """The settings with what the command line says on top, and pipelines for the installed models where none are defined."""
    from eyeline.app import with_pipelines

    over: dict[str, Any] = {"gateway": {key: value for key, value in gateway.items() if value is not None}}
    if data_dir is not None:
        over["data_dir"] = str(data_dir)
    if models_dir is not None:
        over["inference"] = {"models": str(models_dir)}
    return with_pipelines(load_settings(config, overrides=over))


def _run(work: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(work)


def _api(url: str | None, key: str | None, config: Path | None = None) -> Any:
    from eyeline.app import gateway_url
    from eyeline.ops.submit import Api

    return Api(url or gateway_url(_settings(config)), key)


def _show(rows: list[list[str]], *columns: str, title: str | None = None) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


# ---------------------------------------------------------------- running
@app.command()
def up(
    config: Config = None,
    data_dir: DataDir = None,
    host: Annotated[
        str | None, typer.Option(help="address to listen on; 0.0.0.0 opens it to others (an admin key is made)")
    ] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on (8080)")] = None,
    models_dir: ModelsDir = None,
) -> None:
    """Start everything on this machine: gateway, queue, workers, inference, alerts, cameras.

    Examples:  [bold]eyeline up[/bold]   ·   [bold]eyeline up --config site.toml --data-dir /srv/eyeline --port 9000[/bold]
    """
    from eyeline.app import Up, with_free_ports
    from eyeline.core.service import run_service
    from eyeline.core.telemetry import configure_logging

    settings = with_free_ports(_settings(config, data_dir, models_dir, host=host, port=port))
    configure_logging(settings.log_level, "up")
    run_service(lambda: Up(settings, config, lambda text: err.print(text, highlight=False, soft_wrap=True)))


def _role(role: str, make: Callable[[Settings], Any], config: Path | None) -> None:
    from eyeline.core.service import run_service
    from eyeline.core.telemetry import configure_logging

    settings = _settings(config)
    configure_logging(settings.log_level, os.environ.get("EYELINE_ROLE", role))
    run_service(lambda: make(settings))


@app.command()
def gateway(config: Config = None) -> None:
    """Run the HTTP gateway alone."""
    from eyeline.app import SERVICES

    _role("gateway", SERVICES["gateway"], config)


@app.command()
def worker(config: Config = None) -> None:
    """Run one worker alone."""
    from eyeline.app import SERVICES

    _role("worker", SERVICES["worker"], config)


@app.command()
def inference(config: Config = None) -> None:
    """Run the inference service alone (Open Inference Protocol v2)."""
    from eyeline.app import SERVICES

    _role("inference", SERVICES["inference"], config)


@app.command()
def alerts(config: Config = None) -> None:
    """Run the alert engine alone."""
    from eyeline.app import SERVICES

    _role("alerts", SERVICES["alerts"], config)


@app.command()
def items(config: Config = None) -> None:
    """Run tracking alone: items out of results, for pipelines that have a `track` step."""
    from eyeline.app import SERVICES

    _role("items", SERVICES["items"], config)


@app.command()
def camera(name: str, config: Config = None) -> None:
    """Run the agent of one camera of the settings."""
    from eyeline.app import camera_service

    _role(f"camera-{name}", lambda settings: camera_service(settings, name), config)


@app.command()
def demo(
    seconds: Annotated[
        float | None,
        typer.Option("--for", help="end so many seconds after the first result (60 where there is no terminal)"),
    ] = None,
    port: Annotated[int, typer.Option(help="first port to try")] = 8080,
    folder: Annotated[Path, typer.Option("--dir", help="its data; wiped on every start")] = Path(".demo"),
) -> None:
    """Everything at work: two conveyor cameras and a board line with the bundled models, live in this terminal."""
    from eyeline.app import free_port
    from eyeline.ops.demo import run_demo

    inside = sys.stdout.isatty()
    code = _run(
        run_demo(
            folder,
            free_port("127.0.0.1", port),
            free_port,
            None if inside and seconds is None else seconds or 60.0,
            out,
        )
    )
    raise typer.Exit(code)


@app.command()
def bench(
    model: Annotated[str, typer.Option(help="name of an installed model")] = "parcel-finder",
    models_dir: ModelsDir = None,
    images: Annotated[Path | None, typer.Option(help="folder of images (default: frames of the bundled clips)")] = None,
    seconds: Annotated[float, typer.Option(help="length of each measurement")] = 15.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write all figures here ('-': to standard output)")
    ] = None,
    chart: Annotated[Path, typer.Option(help="where the chart goes")] = Path("bench.png"),
    overload: Annotated[bool, typer.Option(help="also run at twice the capacity")] = True,
) -> None:
    """Measure in one run: this machine's limit, Eyeline end to end, and the naive service most teams start with.

    Example:  [bold]eyeline bench --model yolox-nano --models-dir models --images frames --json bench.json[/bold]
    """
    from eyeline.ops.bench.run import BenchPlan, run_bench

    plan = BenchPlan(
        model=model, models_dir=models_dir or Path("models"), images=images, seconds=seconds, overload=overload
    )
    figures = _run(run_bench(plan, err, chart))
    if json_file is not None:
        text = json.dumps(figures, indent=2)
        print(text) if str(json_file) == "-" else json_file.write_text(text + "\n")


# ---------------------------------------------------------------- asking
@app.command()
def submit(
    paths: Annotated[list[Path], typer.Argument(help="image files, or folders of them")],
    pipeline: Annotated[str | None, typer.Option(help="pipeline (default: the first one)")] = None,
    site: Annotated[str | None, typer.Option()] = None,
    camera: Annotated[str | None, typer.Option()] = None,
    ref: Annotated[str | None, typer.Option(help="order, serial or pallet the pictures belong to")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="one result a line instead of a table")] = False,
    open_: Annotated[bool, typer.Option("--open", help="show the last picture with its boxes in the browser")] = False,
    url: Url = None,
    key: Key = None,
    config: Config = None,
) -> None:
    """Send pictures and show what was found.

    Examples:  [bold]eyeline submit photo.jpg --open[/bold]   ·   [bold]eyeline submit photos/ --jsonl > results.jsonl[/bold]
    """
    from eyeline.ops.submit import image_files

    files = image_files(paths)
    if not files:
        raise InputError(f"no images under {', '.join(map(str, paths))}; known endings: .jpg .png .webp .bmp .tif .gif")
    params = {k: v for k, v in {"pipeline": pipeline, "site": site, "camera": camera, "ref": ref}.items() if v}
    params["lane"] = "live" if len(files) == 1 else "bulk"
    outcomes = _run(_submit(_api(url, key, config), files, params, jsonl))
    if not jsonl:
        _show([_outcome_row(outcome) for outcome in outcomes], "file", "status", "found", "seconds")
    if open_ and outcomes and outcomes[-1].result:
        _open_overlay(outcomes[-1].result["id"], url, key, config)
    raise typer.Exit(1 if any(o.result is None or o.result["status"] == "failed" for o in outcomes) else 0)


async def _submit(api: Any, files: list[Path], params: dict[str, str], jsonl: bool) -> list[Any]:
    from eyeline.ops.submit import submit_all

    outcomes = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=len(files) == 1) as bar:
        task = bar.add_task("pictures", total=len(files))
        async with api:
            async for outcome in submit_all(api, files, params):
                outcomes.append(outcome)
                if jsonl:
                    print(json.dumps(outcome.result or {"file": str(outcome.path), "error": outcome.error}), flush=True)
                bar.advance(task)
    return outcomes


def _outcome_row(outcome: Any) -> list[str]:
    if outcome.result is None:
        return [str(outcome.path), "refused", outcome.error or "", ""]
    result = outcome.result
    return [str(outcome.path), result["status"], found(result), f"{sum(result['timings'].values()):.3f}"]


def found(result: dict[str, Any]) -> str:
    """What a result says, in a few words: `2 carton 0.93 (damaged 0.88), 1 bag 0.71`."""
    if result["status"] == "failed":
        return str(result["reason"])
    words = []
    for detection in result["detections"][:6]:
        inner = detection.get("attributes", {}).get("classifications", [])
        extra = f" ({', '.join(_scored(c) for c in inner)})" if inner else ""
        words.append(f"{detection['label']} {detection['score']:.2f}{extra}")
    words += [_scored(c) for c in result["classifications"]]
    more = len(result["detections"]) - 6
    return ", ".join(words) + (f" and {more} more" if more > 0 else "") or "nothing"


def _scored(classification: dict[str, Any]) -> str:
    return f"{classification['label']} {classification['score']:.2f}"


def _open_overlay(identity: str, url: str | None, key: str | None, config: Path | None) -> None:
    """The picture with its boxes, fetched with the key (a browser has none) and opened from a private temporary file."""
    import tempfile

    async def fetch() -> bytes:
        async with _api(url, key, config) as api:
            content: bytes = await api.download(f"/v1/results/{identity}/image", {"overlay": "1"})
            return content

    folder = Path(tempfile.mkdtemp(prefix="eyeline-"))
    path = folder / f"{identity}.jpg"
    path.write_bytes(_run(fetch()))
    if not webbrowser.open(path.as_uri()):
        err.print(f"no browser here; the picture is at {path}")


@app.command()
def results(
    label: Annotated[str | None, typer.Option()] = None,
    camera: Annotated[str | None, typer.Option()] = None,
    site: Annotated[str | None, typer.Option()] = None,
    status: Annotated[str | None, typer.Option(help="completed or failed")] = None,
    ref: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
    config: Config = None,
) -> None:
    """List recorded results, newest first.

    Example:  [bold]eyeline results --label damaged --camera outbound --limit 50[/bold]
    """
    asked = {"label": label, "camera": camera, "site": site, "status": status, "ref": ref, "limit": str(limit)}
    page = _run(_ask(url, key, config, "/v1/results", {k: v for k, v in asked.items() if v}))
    if as_json:
        for result in page["results"]:
            print(json.dumps(result))
        return
    rows = [
        [r["id"], r["captured_at"][:19], r["site"], r["camera"] or "", r["status"], found(r)] for r in page["results"]
    ]
    _show(rows, "id", "captured (UTC)", "site", "camera", "status", "found")


async def _ask(
    url: str | None, key: str | None, config: Path | None, path: str, params: dict[str, str] | None = None
) -> Any:
    async with _api(url, key, config) as api:
        return await api.call("GET", path, params=params or {})


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="a pipeline of the settings")],
    second: Annotated[str, typer.Argument(help="another one")],
    data: Annotated[Path, typer.Option(help="labelled pictures: .jsonl with boxes, or .csv with labels")],
    iou: Annotated[float, typer.Option(min=0.05, max=0.95, help="overlap from which a box counts as found")] = 0.5,
    column: Annotated[str, typer.Option(help="column of the CSV that holds the label")] = "label",
    where: Annotated[list[str] | None, typer.Option(help="only rows with this value, e.g. split=val")] = None,
    limit: Annotated[int, typer.Option(min=1, help="pictures at most, spread over the data")] = 1000,
    rate: Annotated[
        float, typer.Option(min=0, help="pictures that arrive a second, for p50 and p95 (0: one after another)")
    ] = 0.0,
    price: Annotated[float, typer.Option(min=0, help="what an hour of a CPU core costs")] = 0.045,
    folder: Annotated[Path, typer.Option("--out", help="where compare.json and compare.png go")] = Path("compare"),
    config: Config = None,
    models_dir: ModelsDir = None,
) -> None:
    """Measure two pipelines on the same labelled pictures: accuracy, latency, memory, cost, and when which one pays.

    Example:  [bold]eyeline compare one-large cascade --data val.csv --config site.toml[/bold]
    """
    from eyeline.inference.samples import spread
    from eyeline.ops import compare as figures_of
    from eyeline.ops.evaluate import read_samples
    from eyeline.worker.measure import measure

    settings = _settings(config, None, models_dir)
    samples = spread(read_samples(data, column, dict(_pair(text) for text in where or ())), limit)
    files = [sample.path for sample in samples]

    async def run(name: str, bar: Progress) -> figures_of.Run:
        task = bar.add_task(name, total=len(files))
        found, process = await measure(settings, name, files, lambda done, _total: bar.update(task, completed=done))
        return figures_of.Run(
            name,
            [each.detections for each in found],
            [each.classifications for each in found],
            [each.seconds for each in found],
            [each.cpu for each in found],
            [each.escalated for each in found],
            [each.refused for each in found],
            process.memory,
            process.models,
        )

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err, transient=True
    ) as bar:
        runs = (_run(run(first, bar)), _run(run(second, bar)))  # one after the other: they would share the cores
    figures = figures_of.compare(samples, runs, iou=iou, price=price, rate=rate)
    _show(figures_of.table(figures), f"{figures['pictures']} pictures", first, second)
    for sentence in figures_of.sentences(figures):
        out.print(sentence, highlight=False, soft_wrap=True, markup=False)
    for path in figures_of.write(figures, folder):
        err.print(str(path), highlight=False, soft_wrap=True)


@app.command()
def export(
    target: Annotated[Path, typer.Argument(help="the file to write; for yolo and with --images: a new folder")],
    format_: Annotated[
        str, typer.Option("--format", help="jsonl, csv, parquet, coco, yolo or yolo-seg (with outlines)")
    ] = "jsonl",
    images: Annotated[bool, typer.Option("--images", help="fetch the pictures too (coco, yolo, yolo-seg)")] = False,
    site: Annotated[str | None, typer.Option()] = None,
    camera: Annotated[str | None, typer.Option()] = None,
    pipeline: Annotated[str | None, typer.Option()] = None,
    label: Annotated[str | None, typer.Option()] = None,
    ref: Annotated[str | None, typer.Option()] = None,
    since: Annotated[str | None, typer.Option(help="RFC 3339, e.g. 2026-01-31T00:00:00Z")] = None,
    until: Annotated[str | None, typer.Option(help="RFC 3339, exclusive")] = None,
    url: Url = None,
    key: Key = None,
    config: Config = None,
) -> None:
    """Take results out: as a table, or as a data set that trains a model. What people corrected is in it.

    Example:  [bold]eyeline export boards --format yolo --images --camera line-1[/bold]
    """
    from eyeline.ops.export import export as run_export

    asked = {"site": site, "camera": camera, "pipeline": pipeline, "label": label, "ref": ref}
    asked |= {"since": since, "until": until}
    filters = {name: value for name, value in asked.items() if value}

    async def work() -> list[Path]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=err, transient=True, disable=not images) as bar:
            task = bar.add_task("pictures", total=None)
            async with _api(url, key, config) as api:
                return await run_export(
                    api,
                    target,
                    format_,
                    filters,
                    images=images,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                    left_out=lambda ids: err.print(f"left out, their pictures are not kept any more: {', '.join(ids)}"),
                )

    for path in _run(work()):
        out.print(str(path), highlight=False, soft_wrap=True)


@app.command("import-labels")
def import_labels(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="COCO, or Label Studio's JSON export")],
    images: Annotated[
        Path | None, typer.Option(help="folder of the labelled pictures, found by their digest", file_okay=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be done, and do nothing")] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="labels that say the same as a result confirm it (default: left alone)")
    ] = False,
    url: Url = None,
    key: Key = None,
    config: Config = None,
) -> None:
    """Take labels that people corrected elsewhere as their verdicts on results. The same file again changes nothing.

    Example:  [bold]eyeline import-labels project-1.json --images pictures/ --dry-run[/bold]
    """
    from eyeline.ops import labels

    records = labels.read(file)
    if images is not None:
        records = labels.with_digests(records, images)

    async def work() -> list[Any]:
        found = []
        async with _api(url, key, config) as api:
            async for each in labels.matched(api, records, confirm=confirm):
                if not dry_run:
                    await labels.give(api, each, f"imported from {file.name}")
                found.append(each)
        return found

    found_records = _run(work())
    _show(
        [[each.labelled.name, each.by, (each.result or {}).get("id", ""), each.fate] for each in found_records],
        "picture",
        "found by",
        "result",
        "would be" if dry_run else "is",
    )
    counts = {fate: sum(each.fate == fate for each in found_records) for fate in {each.fate for each in found_records}}
    out.print(", ".join(f"{count} {fate}" for fate, count in sorted(counts.items())) or "no labels", highlight=False)
    lost = counts.get("no such result", 0) + counts.get("another picture", 0)
    raise typer.Exit(1 if lost else 0)


@app.command()
def slo(url: Url = None, key: Key = None, config: Config = None, as_json: Json = False) -> None:
    """Measured service levels against their targets, with the stage to blame."""
    report = _run(_ask(url, key, config, "/v1/slo"))
    if as_json:
        print(json.dumps(report))
        return
    rows = []
    for row in report["rows"]:
        measured = "not measured" if row["measured"] is None else f"{row['measured']:g} {row['unit']}"
        rows.append([row["name"], measured, row["target"], row["verdict"], row["blame"] or ""])
    _show(rows, "level", "measured", "target", "verdict", "to blame")
    raise typer.Exit(1 if any(row["verdict"] == "missed" for row in report["rows"]) else 0)


@app.command()
def check(
    cameras: Annotated[
        bool,
        typer.Option("--cameras", help="look at every camera too, as `eyeline cameras test` does: up to 15 s each"),
    ] = False,
    config: Config = None,
    data_dir: DataDir = None,
    models_dir: ModelsDir = None,
) -> None:
    """Open every backend of the settings and say in one line what is wrong."""
    from eyeline.app import check as run_checks

    found_checks = _run(run_checks(_settings(config, data_dir, models_dir), cameras=cameras))
    for what, well, sentence in found_checks:
        out.print(f"{'ok  ' if well else 'FAIL'}  {what:<10} {sentence}", highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(0 if all(well for _, well, _ in found_checks) else 1)


# ---------------------------------------------------------------- models
@models_app.command("import")
def models_import(
    file: Annotated[Path, typer.Argument(help="an ONNX file")],
    name: Annotated[str | None, typer.Option(help="name of the model (default: the file's)")] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="yolox, yolov8, yolov8-seg, yolov5, end2end, end2end-seg, detr, rfdetr, softmax, logits, segmentation, "
            "segmentation-probabilities, classmap or anomaly (default: told by the file)"
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="text file, one label a line (default: the file's metadata)")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="pictures for the golden set (default: bundled frames)")] = None,
    mean: Annotated[
        str | None, typer.Option(help="value = (pixel 0..255 - mean) x scale: one number or three, e.g. 127")
    ] = None,
    scale: Annotated[str | None, typer.Option(help="one number or three, e.g. 0.0078125 (which is 1/128)")] = None,
    color: Annotated[str | None, typer.Option(help="rgb or bgr: what the graph expects")] = None,
    licence: Annotated[
        str, typer.Option(help="licence of the weights, e.g. Apache-2.0 (may be left out where the file names it)")
    ] = "",
    tune: Annotated[
        bool, typer.Option(help="measure runtimes and keep the fastest that answers the same (up to 60 s)")
    ] = True,
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Make a bundle of an ONNX file: contract, golden set, preview.png.

    Example:  [bold]eyeline models import yolox_nano.onnx --labels coco.txt --images frames/ --licence Apache-2.0[/bold]
    """
    from eyeline.inference.importer import import_model

    settings = _settings(config, None, models_dir)
    imported = import_model(
        file,
        name=name,
        decoder=decoder,
        labels=labels,
        images=images,
        mean=_three(mean, "--mean"),
        scale=_three(scale, "--scale"),
        color=color,
        licence=licence,
        models_dir=settings.inference.models,
    )
    out.print(
        f"{imported.bundle.contract.name} {imported.bundle.version} → {imported.bundle.path}",
        highlight=False,
        soft_wrap=True,
    )
    for note in imported.notes:
        out.print(f"  {note}", highlight=False, soft_wrap=True, markup=False)
    out.print(f"Look at {imported.preview}: are the answers right? Then: eyeline up", highlight=False, soft_wrap=True)
    if tune:
        _tune(imported.bundle, 60.0)


def _three(text: str | None, option: str) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise ConfigError(f"{option} {text!r}: give one number, or three with commas between")
    return numbers[0], numbers[1], numbers[2]


def _tune(bundle: Any, budget: float) -> None:
    from eyeline.inference.tune import tune

    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("tuning", total=1.0)
        tuning = tune(
            bundle, budget=budget, progress=lambda share, words: bar.update(task, completed=share, description=words)
        )
    rows = [[str(cell) for cell in row.cells()] for row in tuning.rows]
    _show(
        rows,
        "runtime",
        "precision",
        "threads",
        "instances",
        "images/s",
        "CPU ms",
        "same decisions",
        "",
        title=f"{bundle.contract.name} on this machine",
    )


@models_app.command("tune")
def models_tune(
    name: str,
    seconds: Annotated[float, typer.Option(help="time to spend")] = 60.0,
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Measure runtimes, precisions, threads and instances; keep the fastest whose golden set gives the same decisions."""
    _tune(_bundle(name, models_dir, config), seconds)


def _bundle(name: str, models_dir: Path | None, config: Path | None) -> Any:
    from eyeline.inference.bundles import find_bundles, load_bundle

    if Path(name).is_dir():
        return load_bundle(Path(name))
    bundles = find_bundles(_settings(config, None, models_dir).inference.models)
    if name not in bundles:
        raise ConfigError(f"no model is called {name!r}; installed: {', '.join(sorted(bundles)) or 'none'}")
    return bundles[name]


@models_app.command("ls")
def models_ls(models_dir: ModelsDir = None, config: Config = None) -> None:
    """List the installed models."""
    from eyeline.inference.bundles import find_bundles

    bundles = find_bundles(_settings(config, None, models_dir).inference.models)
    rows = [
        [b.contract.name, b.version, b.contract.task, str(len(b.contract.labels)), b.contract.licence, str(b.path)]
        for b in bundles.values()
    ]
    _show(rows, "model", "version", "task", "labels", "licence", "where")


@models_app.command("eval")
def models_eval(
    name: str,
    data: Annotated[Path, typer.Option(help="labelled pictures: .jsonl with boxes, .csv with labels, or with masks")],
    iou: Annotated[float, typer.Option(min=0.05, max=0.95, help="overlap from which a box counts as found")] = 0.5,
    folder: Annotated[Path | None, typer.Option("--out", help="write metrics.json and pictures here")] = None,
    column: Annotated[str | None, typer.Option(help="column of the CSV that holds the label")] = None,
    where: Annotated[list[str] | None, typer.Option(help="only rows with this value, e.g. split=val")] = None,
    head: Annotated[str | None, typer.Option(help="label set of a classifier with several")] = None,
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Measure a model on labelled pictures, through the preprocessing that the service uses.

    Example:  [bold]eyeline models eval pcb-defects --data boards/annotations.jsonl --iou 0.33 --out report[/bold]
    """
    from eyeline.ops.evaluate import evaluate

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("pictures", total=None)
        evaluation = evaluate(
            _bundle(name, models_dir, config),
            data,
            iou=iou,
            out=folder,
            column=column,
            where=dict(_pair(text) for text in where or ()),
            head=head,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(json.dumps(evaluation.metrics, indent=2))
    for file in evaluation.files:
        err.print(str(file), highlight=False, soft_wrap=True)


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"--where {text!r}: write COLUMN=VALUE")
    return key, value


@models_app.command("verify")
def models_verify(name: str, models_dir: ModelsDir = None, config: Config = None) -> None:
    """Check digests and run the golden set."""
    from eyeline.inference.golden import check as check_golden
    from eyeline.inference.runtimes import choose, open_runtimes

    bundle = _bundle(name, models_dir, config)
    runtimes = open_runtimes(bundle, choose(bundle, _settings(config, None, models_dir).inference))
    differences = check_golden(bundle, runtimes[0].infer)
    for difference in differences:
        out.print(difference, highlight=False, markup=False)
    out.print(
        f"{bundle.contract.name} {bundle.version}: "
        + ("differs" if differences else "digests and golden set are right")
    )
    raise typer.Exit(1 if differences else 0)


Why = Annotated[str, typer.Option("--reason", help="why; kept in the audit")]


@models_app.command("promote")
def models_promote(
    name: str, version: str, reason: Why = "", models_dir: ModelsDir = None, config: Config = None
) -> None:
    """Let this version serve: the running server checks it first (digests, golden images), then swaps without a pause.

    Example:  [bold]eyeline models promote parcel-finder 1.4.2 --reason "trained on the new belt"[/bold]
    """
    from eyeline.inference.rollout import promote

    settings = _settings(config, None, models_dir)
    _rolled(settings, reason, "model.promoted", lambda it: promote(settings.inference.models, name, version, it))


@models_app.command("rollback")
def models_rollback(name: str, reason: Why = "", models_dir: ModelsDir = None, config: Config = None) -> None:
    """Let the version serve that served before, checked and swapped in as by promote."""
    from eyeline.inference.rollout import rollback

    settings = _settings(config, None, models_dir)
    _rolled(settings, reason, "model.rolled_back", lambda it: rollback(settings.inference.models, name, it))


@models_app.command("canary")
def models_canary(
    name: str,
    version: Annotated[str | None, typer.Argument(help="the version to try out")] = None,
    site: Annotated[list[str] | None, typer.Option(help="a site at which it answers; may be given again")] = None,
    end: Annotated[
        bool, typer.Option("--end", help="take it back: the version that serves answers everywhere")
    ] = False,
    reason: Why = "",
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Try a version out at some sites, checked and loaded as by promote, beside the version that serves all others.

    Example:  [bold]eyeline models canary parcel-finder 1.4.2 --site leeds --reason "new lamps there"[/bold]
    """
    from eyeline.inference.rollout import take_back, try_out

    settings, sites = _settings(config, None, models_dir), site or []
    known, models = [each.name for each in settings.sites], settings.inference.models
    if end is bool(version):
        raise ConfigError("name the version to try out, or say --end to take back the one that is tried out")
    if not end and (not sites or not set(sites) <= set(known)):
        raise ConfigError(f"say at which sites, each by --site; there are: {', '.join(known)}")
    if end:
        _rolled(settings, reason, "model.taken_back", lambda it: take_back(models, name, it))
    else:
        _rolled(settings, reason, "model.tried_out", lambda it: try_out(models, name, version or "", sites, it))


def _rolled(settings: Settings, reason: str, what: str, change: Callable[[Any], Coroutine[Any, Any, Any]]) -> None:
    """Change, record it where there is a results database, and say what serves where."""
    from eyeline.app import sqlite_path
    from eyeline.inference.servers import Servers
    from eyeline.stores.results.base import Action

    async def work() -> Any:
        servers = Servers(settings.inference)
        try:
            return await change(servers)
        finally:
            await servers.close()

    done = _run(work())
    path = sqlite_path(settings.results.url)
    if path is None or path.exists():
        body = {"model": done.model, "version": done.version, "from": done.before, "reason": reason}
        body |= {} if done.sites is None else {"sites": done.sites}
        _run(_with_results(settings, lambda results: results.record_action(Action(what=what, body=body))))
    for one in done.servers:
        out.print(f"{one.url}: {one.version or one.error}", highlight=False, markup=False, soft_wrap=True)
    where = "" if done.sites is None else f" at {', '.join(done.sites)}"
    when = " from the next load on" if done.waits else ""
    out.print(f"{done.model} {done.version} serves{where}{when}", highlight=False)


# ---------------------------------------------------------------- queue, keys, cameras, data
@dead_app.command("ls")
def dead_ls(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100, url: Url = None, key: Key = None, config: Config = None
) -> None:
    """List failed jobs with their reasons."""
    page = _run(_ask(url, key, config, "/v1/results", {"status": "failed", "limit": str(limit)}))
    rows = [
        [r["id"], r["completed_at"][:19], r["site"], r["camera"] or "", r["pipeline"], r["reason"] or ""]
        for r in page["results"]
    ]
    _show(rows, "id", "failed (UTC)", "site", "camera", "pipeline", "reason")


@dead_app.command("replay")
def dead_replay(
    ids: Annotated[list[str] | None, typer.Argument(help="ids of failed jobs")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all failed ones of the last page of 1000")] = False,
    url: Url = None,
    key: Key = None,
    config: Config = None,
) -> None:
    """Make a new job of each failed one (its result will name it in replay_of).

    Example:  [bold]eyeline queue dead replay --all[/bold]
    """
    if not ids and not everything:
        raise ConfigError("name the failed jobs to replay, or say --all")

    async def work() -> list[tuple[str, str]]:
        async with _api(url, key, config) as api:
            chosen = list(ids or [])
            if everything:
                page = await api.call("GET", "/v1/results", params={"status": "failed", "limit": "1000"})
                chosen += [result["id"] for result in page["results"]]
            return [(one, (await api.call("POST", f"/v1/jobs/{one}/replay"))["id"]) for one in chosen]

    _show([[old, new] for old, new in _run(work())], "failed job", "replayed as")


@queue_app.command("stats")
def queue_stats(config: Config = None, data_dir: DataDir = None) -> None:
    """How full the queue is."""
    from eyeline.queues import open_queue

    async def work() -> Any:
        queue = open_queue(_settings(config, data_dir).queue.url)
        try:
            return await queue.stats()
        finally:
            await queue.close()

    stats = _run(work())
    oldest = "" if stats.oldest_age is None else f", the oldest for {stats.oldest_age:.1f} s"
    out.print(f"{stats.depth} waiting{oldest}, {stats.in_flight} in hand", highlight=False)
    _show([[topic, str(count)] for topic, count in sorted(stats.by_topic.items())], "topic", "waiting")


@cameras_app.command("ls")
def cameras_ls(url: Url = None, key: Key = None, config: Config = None) -> None:
    """Cameras and what became of their frames."""
    page = _run(_ask(url, key, config, "/v1/cameras"))
    rows = []
    for item in page["cameras"]:
        counts = item["frames"]
        words = (counts.get(k, 0) for k in ("captured", "completed", "failed", "duplicates"))
        dropped = ", ".join(f"{reason} {n}" for reason, n in counts.get("dropped", {}).items()) or "0"
        rows.append(
            [
                item["name"],
                item["site"],
                str(item.get("state") or ""),
                ", ".join((item.get("health") or {}).get("conditions", {})) or "well",
                *map(str, words),
                dropped,
                str(counts.get("spooled", 0)),
                str(counts.get("in_flight", 0)),
            ]
        )
    _show(
        rows,
        "camera",
        "site",
        "state",
        "health",
        "captured",
        "completed",
        "failed",
        "duplicates",
        "dropped",
        "spooled",
        "in flight",
    )


@cameras_app.command("test")
def cameras_test(
    address: Annotated[
        str,
        typer.Argument(metavar="URL", help="rtsp://, http://, usb://0, synthetic://640x480, a video file or a folder"),
    ],
) -> None:
    """Look at a camera six times: opens, frames come, rate, size, light, clock. One frame is saved as camera-test.jpg.

    Example:  [bold]eyeline cameras test rtsp://user:password@10.0.0.7/stream1[/bold]
    """
    from eyeline.cameras.probe import test_camera

    report = _run(test_camera(address, Path("camera-test.jpg")))
    for what, well, sentence in report:
        out.print(f"{'ok  ' if well else 'FAIL'}  {what:<12} {sentence}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(0 if all(well for _, well, _ in report) else 1)


@pipelines_app.command("try")
def pipelines_try(
    name: str,
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="the picture to try it on")],
    folder: Annotated[Path, typer.Option("--out", help="where the drawn pictures go")] = Path("steps"),
    config: Config = None,
    models_dir: ModelsDir = None,
) -> None:
    """Run a pipeline on a picture here and now, with no service: what each step answers, and a picture of it each."""
    from eyeline.core.telemetry import configure_logging
    from eyeline.inference.local import LocalPredictor
    from eyeline.pipeline.drawing import encode_png
    from eyeline.worker.tryout import answers, pictures, tryout

    configure_logging("warning", "try")
    settings, data = _settings(config, None, models_dir), image.read_bytes()

    async def work() -> tuple[list[list[str]], list[tuple[str, Any]]]:
        predictor = LocalPredictor(settings.inference)
        try:
            async with tryout(settings, name, predictor) as trial:
                tried = await trial.run(data)
                return answers(tried), await pictures(tried, data)
        finally:
            await predictor.close()

    rows, drawn = _run(work())
    folder.mkdir(parents=True, exist_ok=True)
    for number, (step, pixels) in enumerate(drawn, 1):
        (folder / f"{number}-{step}.png").write_bytes(encode_png(pixels))
    _show(rows, "step", "answer", "score", "box")
    out.print(f"{len(drawn)} pictures in {folder}", highlight=False, soft_wrap=True)


@rules_app.command("ls")
def rules_ls(url: Url = None, key: Key = None, config: Config = None, as_json: Json = False) -> None:
    """List the rules: where each stands, how often it fired in 90 days, and how often it was right."""
    page = _run(_ask(url, key, config, "/v1/rules"))
    if as_json:
        print(json.dumps(page))
        return
    rows = []
    for rule in page["rules"]:
        right, last = rule["precision"]["share"], rule["last_fired"]
        cells = [rule["rule"].get("severity", "warning"), str(rule["fired"]), (last or "never")[:19]]
        said = rule.get("error") or rule["rule"]["when"]
        rows.append([rule["name"], rule["source"], *cells, "not judged" if right is None else f"{right:.0%}", said])
    _show(rows, "rule", "from", "severity", "fired", "last (UTC)", "real", "when")


@rules_app.command("check")
def rules_check(
    when: Annotated[str | None, typer.Option(help="one condition (default: the rules of the settings)")] = None,
    config: Config = None,
) -> None:
    """Compile rules and point at what is wrong with them.

    Example:  [bold]eyeline rules check --when "label == 'damaged' and score >= 0.8"[/bold]
    """
    from eyeline.alerts.rules import compile_rule
    from eyeline.core.settings import RuleSettings

    rules = [RuleSettings(name="this rule", when=when)] if when is not None else _settings(config).alerts.rules
    for rule in rules:
        compile_rule(rule)
        out.print(f"ok    {rule.name}: {rule.when}", highlight=False, markup=False, soft_wrap=True)


@rules_app.command("try")
def rules_try(
    name: Annotated[str | None, typer.Argument(help="a rule that there is")] = None,
    when: Annotated[str | None, typer.Option(help="another condition for it, or one alone")] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=168, help="how far back to look")] = 24.0,
    as_json: Json = False,
    url: Url = None,
    key: Key = None,
    config: Config = None,
) -> None:
    """Say what a rule would have done with what was recorded, and with what people said of its alerts.

    Example:  [bold]eyeline rules try "damaged parcel" --when "label == 'damaged' and score >= 0.86"[/bold]
    """
    if name is None and when is None:
        raise ConfigError("name a rule to try, or a condition with --when")
    told = _run(_try_rule(_api(url, key, config), name, when, hours))
    if as_json:
        print(json.dumps(told))
        return
    cut = "" if told["complete"] else " (a limit cut it short)"
    out.print(
        f"{told['since'][:16]} to {told['until'][:16]}{cut}: {told['events']} events, would have fired {told['fired']} times, "
        f"{told['peak_per_hour']} in its busiest hour; {told['verdicts']['sentence']}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    rows = [
        [
            case["opened_at"][:19],
            case["site"],
            ", ".join(map(str, case["cause"].values())),
            str(case["count"]),
            case["result_id"],
        ]
        for case in told["first"]
    ]
    _show(rows, "opened (UTC)", "site", "cause", "images", "result")


async def _try_rule(api: Any, name: str | None, when: str | None, hours: float) -> Any:
    from datetime import timedelta
    from urllib.parse import quote

    from eyeline.core.clock import isoformat, utcnow

    async with api:
        rule = {} if name is None else (await api.call("GET", f"/v1/rules/{quote(name, safe='')}"))["rule"]
        rule = rule if when is None else {**rule, "when": when}
        since = isoformat(utcnow() - timedelta(hours=hours))
        return await api.call("POST", "/v1/rules/dry-run", params={"since": since}, json=rule)


@audit_app.command("verify")
def audit_verify(
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="an export (default: the results database)")
    ] = None,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", help="a checkpoint that was kept outside (again for more)", exists=True),
    ] = None,
    key: Annotated[str | None, typer.Option(help="the public key, in hex, that must have signed them")] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Check every record, block and checkpoint; name what was altered, the first one first. Exit code 1 where anything was.

    Example:  [bold]eyeline audit verify --checkpoint kept/2026-03-04.json[/bold]
    """
    from eyeline.ops.audit import trail
    from eyeline.ops.audit.verifier import told

    kept = trail.outside(checkpoints or [])
    if file is not None:
        report = trail.verify_file(file, kept, key)
    else:
        report = _run(_with_results(_settings(config, data_dir), lambda results: trail.verify(results, kept, key)))
    print(told(report), end="")
    raise typer.Exit(0 if report.good else 1)


@audit_app.command("export")
def audit_export(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="the file to write (JSON lines)")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Write records, blocks and checkpoints to a file that `eyeline audit verifier` checks without Eyeline."""
    from eyeline.ops.audit import trail

    count = _run(_with_results(_settings(config, data_dir), lambda results: trail.export(results, file)))
    out.print(f"{count} lines in {file}", highlight=False, soft_wrap=True)


@audit_app.command("checkpoint")
def audit_checkpoint(
    key: Annotated[Path, typer.Option("--key", help="file with the signing key; made on first use")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Sign where the chain stands. Keep what it prints outside: only that shows an end cut off or a chain written anew.

    Example:  [bold]eyeline audit checkpoint --key ~/audit.key > /media/usb/$(date +%F).json[/bold]
    """
    from eyeline.ops.audit import trail

    made = _run(_with_results(_settings(config, data_dir), lambda results: trail.checkpoint(results, key)))
    err.print(
        f"block {made['block']}, {made['size']} records; public key {made['key']}", highlight=False, soft_wrap=True
    )
    print(json.dumps(made))


@audit_app.command("verifier")
def audit_verifier() -> None:
    """Print the stand-alone verifier: one file, any Python from 3.9 on, only its standard library.

    Example:  [bold]eyeline audit verifier > verify.py && python3 verify.py export.jsonl checkpoint.json[/bold]
    """
    from importlib.resources import files

    print((files("eyeline.ops.audit") / "verifier.py").read_text(), end="")


def _storage(config: Path | None, data_dir: Path | None) -> dict[str, Any]:
    from eyeline.ops.storage.report import storage_report

    settings = _settings(config, data_dir)
    report: dict[str, Any] = _run(_with_results(settings, lambda results: storage_report(settings.retention, results)))
    return report


@storage_app.command("report")
def storage_report_(
    price: Annotated[
        float, typer.Option(min=0, help="what a gigabyte costs in a month, for the cost of a million images")
    ] = 0.0,
    as_json: Json = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """What is kept, what a million images cost, and what duplicates, encoding and retention saved.

    Examples:  [bold]eyeline storage report[/bold]   ·   [bold]eyeline storage report --price 0.023 --json[/bold]
    """
    from eyeline.ops.storage.words import told

    report = _storage(config, data_dir)
    if as_json:
        print(json.dumps(report))
    else:
        _show(told(report, price), "what", "how much", "")


@storage_app.command("forecast")
def storage_forecast(
    picture: Annotated[
        Path | None, typer.Option("--chart", dir_okay=False, help="write the forecast there (SVG)")
    ] = None,
    as_json: Json = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """When the disk is full: what came each day, carried on, and let go as retention says.

    Example:  [bold]eyeline storage forecast --chart storage.svg[/bold]
    """
    from eyeline.ops.storage.chart import bar, chart, headline, size

    report = _storage(config, data_dir)
    if picture is not None:
        picture.write_text(chart(report), encoding="utf-8")
    if as_json:
        print(json.dumps(report["forecast"]))
        return
    out.print(headline(report), highlight=False, soft_wrap=True)
    if report["disk"] is not None:
        disk = report["disk"]
        out.print(f"disk now  {bar(disk['total'] - disk['free'], disk['total'])}", highlight=False, soft_wrap=True)
    rows = [[point["day"], size(point["bytes"])] for point in report["forecast"]["points"][:53:4]]
    _show(rows, "day", "pictures and database")


@storage_app.command("try")
def storage_try(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="a folder of your own pictures")],
    encoding: Annotated[list[str] | None, typer.Option(help="such as webp:80 (again for more)")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="pictures to try at most")] = 50,
) -> None:
    """Encode your own pictures as [retention] reencode would: bytes before and after, and what it takes.

    Example:  [bold]eyeline storage try photos/ --encoding webp:80 --encoding avif:60[/bold]
    """
    from eyeline.ops.storage.tryout import try_encodings
    from eyeline.ops.submit import image_files

    files = image_files([folder])[:most]
    if not files:
        raise InputError(f"no images under {folder}; known endings: .jpg .png .webp .bmp .tif .gif")
    rows = try_encodings(files, encoding or ["jpeg:80", "webp:80", "webp:60", "avif:60"])
    _show(rows, "class", "encoding", "pictures", "before", "after", "saved", "CPU ms each", "mean difference")


@hold_app.command("place")
def hold_place(
    reason: Annotated[str, typer.Option(help="why: it stands in the audit")],
    ref: Annotated[str | None, typer.Option(help="results of this order, serial or pallet")] = None,
    result: Annotated[str | None, typer.Option(help="one result, by its id")] = None,
    item: Annotated[str | None, typer.Option(help="the results that show this item, by its id")] = None,
    camera: Annotated[str | None, typer.Option(help="results of this camera")] = None,
    site: Annotated[str | None, typer.Option(help="results of this site")] = None,
    since: Annotated[str | None, typer.Option(help="captured from then on (RFC 3339)")] = None,
    until: Annotated[str | None, typer.Option(help="captured before then")] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Keep everything that fits all of this until the hold is lifted; also what has yet to come.

    Example:  [bold]eyeline hold place --camera dock-2 --until 2026-03-05T00:00:00Z --reason "claim 12"[/bold]
    """
    from eyeline.core.clock import utcnow
    from eyeline.core.ids import uuid7
    from eyeline.stores.results.retaining import Hold

    scope: dict[str, Any] = {"ref": ref, "result": result, "item": item, "camera": camera, "site": site}
    scope |= {"since": _moment("--since", since), "until": _moment("--until", until)}
    if all(value is None for value in scope.values()):
        raise ConfigError("hold what? Name a --ref, --result, --item, --camera, --site, or a time")
    hold = Hold(id=uuid7(), placed_at=utcnow(), reason=reason, **scope)
    _run(_with_results(_settings(config, data_dir), lambda results: results.place_hold(hold)))
    print(hold.id)


def _moment(option: str, text: str | None) -> Any:
    from eyeline.core.clock import parse_time

    try:
        return None if text is None else parse_time(text)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{option} {text!r} is no time such as 2026-01-31T12:00:00Z") from error


@hold_app.command("lift")
def hold_lift(
    id: Annotated[str, typer.Argument(help="the hold's id (eyeline hold ls)")],  # noqa: A002
    reason: Annotated[str, typer.Option(help="why: it stands in the audit")] = "",
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """End a hold. What it covered goes when retention says so, which it does at its next look.

    Example:  [bold]eyeline hold lift 0198c0de-0000-7000-8000-000000000001 --reason "claim settled"[/bold]
    """
    if not _run(_with_results(_settings(config, data_dir), lambda results: results.lift_hold(id, reason=reason))):
        raise ConfigError(f"no hold in force has the id {id!r}; see eyeline hold ls")


@hold_app.command("ls")
def hold_ls(
    everything: Annotated[bool, typer.Option("--all", help="those that were lifted, too")] = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """List the holds in force."""
    holds = _run(_with_results(_settings(config, data_dir), lambda results: results.holds(lifted=everything)))
    rows = [
        [
            hold.id,
            hold.placed_at.isoformat()[:19],
            ", ".join(f"{word} {value}" for word, value in hold.scope.items() if value is not None),
            hold.reason,
            "in force" if hold.lifted_at is None else f"lifted {hold.lifted_at.isoformat()[:19]}",
        ]
        for hold in holds
    ]
    _show(rows, "id", "placed (UTC)", "what", "reason", "state")


@app.command()
def erase(
    camera: Annotated[str | None, typer.Option(help="results of this camera")] = None,
    ref: Annotated[str | None, typer.Option(help="results of this order, serial or pallet")] = None,
    since: Annotated[str | None, typer.Option(help="captured from then on (RFC 3339)")] = None,
    until: Annotated[str | None, typer.Option(help="captured before then")] = None,
    reason: Annotated[str, typer.Option(help="why: it stands in the audit")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="do it; without, only what would be erased is told")] = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Erase results and pictures that fit all of this, over every store. The audit verifies as before.

    Examples:  [bold]eyeline erase --ref order-4711[/bold]   ·   [bold]eyeline erase --camera gate --yes[/bold]
    """
    from eyeline.ops.storage.erase import Scope
    from eyeline.ops.storage.words import found_words

    scope = Scope(camera=camera, ref=ref, since=_moment("--since", since), until=_moment("--until", until))
    scope.query()
    settings = _settings(config, data_dir)
    found = _run(_erase(settings, scope, reason, yes))
    for line in found_words(found, done=yes):
        out.print(line, highlight=False, soft_wrap=True, markup=False)


async def _erase(settings: Settings, scope: Any, reason: str, yes: bool) -> Any:
    from eyeline.ops.storage.erase import erase as run_erase
    from eyeline.ops.storage.erase import look
    from eyeline.ops.storage.keeper import Keeper
    from eyeline.stores.blobs import open_blobs
    from eyeline.stores.cache import open_cache

    blobs, cache = open_blobs(settings.blobs.url), open_cache(settings.cache.url)

    async def work(results: Any) -> Any:
        found = await look(results, scope)
        if yes and found.ids:
            with Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err, transient=True
            ) as progress:
                task = progress.add_task("erasing; the last pictures take a minute", total=len(found.ids))
                await run_erase(
                    results,
                    cache,
                    Keeper(settings.retention, blobs, results, cache),
                    found,
                    reason=reason,
                    progress=lambda done, total: progress.update(task, completed=done, total=total),
                )
        return found

    try:
        return await _with_results(settings, work)
    finally:
        await blobs.close()
        await cache.close()


@keys_app.command("create")
def keys_create(
    name: str,
    role: Annotated[str, typer.Option(help="ingest, viewer, operator or admin")] = "ingest",
    site: Annotated[list[str] | None, typer.Option(help="limit to this site (again for more); none: all")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="valid for so many days; none: until it is revoked")] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Make an API key. It is shown once and kept only as a hash.

    Example:  [bold]eyeline keys create belt-1 --role ingest --site north --days 365[/bold]
    """
    from datetime import timedelta

    from eyeline.core.clock import utcnow
    from eyeline.gateway.auth import create_key

    settings, sites = _settings(config, data_dir), tuple(site or ())
    until = None if days is None else utcnow() + timedelta(days=days)
    print(
        _run(
            _with_results(settings, lambda results: create_key(settings, results, name, role, sites, expires_at=until))
        )
    )


@keys_app.command("hash")
def keys_hash() -> None:
    """The SHA-256 of a key, for the `keys` of the settings file. The key is read from standard input, or asked for.

    Example:  [bold]openssl rand -base64 32 | eyeline keys hash[/bold]
    """
    from eyeline.gateway.auth import digest_of

    secret = (typer.prompt("key", hide_input=True) if sys.stdin.isatty() else sys.stdin.read()).strip()
    if not 22 <= len(secret) <= 256:
        raise ConfigError(f"a key of {len(secret)} characters: give 22 to 256, random ones")
    print(digest_of(secret))


@keys_app.command("ls")
def keys_ls(config: Config = None, data_dir: DataDir = None) -> None:
    """List API keys (never the secrets)."""
    from eyeline.core.clock import utcnow

    async def found(results: Any) -> tuple[Any, Any]:
        return await results.keys(), await results.key_uses()

    def when(moment: Any) -> str:
        return "never" if moment is None else moment.isoformat()[:19]

    keys, uses = _run(_with_results(_settings(config, data_dir), found))
    _show(
        [
            [
                k.name,
                k.role,
                ", ".join(k.sites) or "all",
                when(k.created_at),
                when(k.expires_at),
                when(uses.get(k.sha256)),
                "revoked" if k.revoked_at else "expired" if k.expires_at and k.expires_at <= utcnow() else "valid",
            ]
            for k in keys
        ],
        "name",
        "role",
        "sites",
        "made (UTC)",
        "expires",
        "last used",
        "state",
    )


@keys_app.command("revoke")
def keys_revoke(name: str, config: Config = None, data_dir: DataDir = None) -> None:
    """Refuse a key from now on (within five seconds on every gateway)."""
    from dataclasses import replace

    from eyeline.core.clock import utcnow

    async def revoke(results: Any) -> bool:
        for row in await results.keys():
            if row.name == name:
                await results.put_key(replace(row, revoked_at=utcnow()))
                return True
        return False

    if not _run(_with_results(_settings(config, data_dir), revoke)):
        raise ConfigError(f"no key is called {name!r}; see eyeline keys ls")


@users_app.command("add")
def users_add(
    name: str,
    role: Annotated[str, typer.Option(help="viewer, operator or admin")] = "viewer",
    site: Annotated[list[str] | None, typer.Option(help="limit to this site (again for more); none: all")] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Let somebody sign in. The password is asked for, or read from standard input.

    Example:  [bold]eyeline users add ana --role operator --site north[/bold]
    """
    from eyeline.gateway.people import create_user

    settings, password = _settings(config, data_dir), _new_password(name)
    _run(
        _with_results(settings, lambda results: create_user(settings, results, name, role, tuple(site or ()), password))
    )
    out.print(f"{name} may sign in now", highlight=False)


def _new_password(name: str) -> str:
    """Its hash. It never stands on a command line, where every process of the machine could read it."""
    from eyeline.gateway.passwords import HASHER, acceptable, plain

    if sys.stdin.isatty():
        text = typer.prompt("password", hide_input=True, confirmation_prompt=True)
    else:
        text = sys.stdin.readline().rstrip("\r\n")
    return HASHER.hash(plain(acceptable(text, name)))


@users_app.command("ls")
def users_ls(config: Config = None, data_dir: DataDir = None) -> None:
    """List who may sign in."""
    rows = _run(_with_results(_settings(config, data_dir), lambda results: results.users()))
    _show(
        [
            [user.name, user.role, ", ".join(user.sites) or "all", user.created_at.isoformat()[:19]]
            for user in rows
            if user.removed_at is None
        ],
        "name",
        "role",
        "sites",
        "made (UTC)",
    )


@users_app.command("passwd")
def users_passwd(name: str, config: Config = None, data_dir: DataDir = None) -> None:
    """Give somebody a new password (asked for, or from standard input); ends all of that user's sessions."""
    from eyeline.gateway.people import change_user

    settings, password = _settings(config, data_dir), _new_password(name)
    _run(_with_results(settings, lambda results: change_user(settings, results, name, password=password)))
    out.print(f"{name} has a new password", highlight=False)


@users_app.command("remove")
def users_remove(name: str, config: Config = None, data_dir: DataDir = None) -> None:
    """Let somebody sign in no more; ends all of that user's sessions."""
    from eyeline.gateway.people import remove_user

    _run(_with_results(_settings(config, data_dir), lambda results: remove_user(results, name)))
    out.print(f"{name} may no longer sign in", highlight=False)


async def _with_results(settings: Settings, work: Callable[[Any], Coroutine[Any, Any, R]]) -> R:
    from eyeline.core.embedded import made_folder
    from eyeline.stores.results import open_results

    made_folder(settings.data_dir)
    results = open_results(settings.results.url)
    try:
        await results.upgrade()
        return await work(results)
    finally:
        await results.close()


@db_app.command("upgrade")
def db_upgrade(
    config: Config = None,
    data_dir: DataDir = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="go on running, and make the partitions of the coming months every day")
    ] = False,
) -> None:
    """Bring the results database to this version."""
    from eyeline.core.clock import utcnow
    from eyeline.core.service import run_service, sleep

    settings = _settings(config, data_dir)

    async def make_room(results: Any) -> None:
        await results.make_room(utcnow())

    async def tend(results: Any, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await sleep(stop, A_DAY)
            await make_room(results)

    class Upkeep:
        async def run(self, stop: asyncio.Event) -> None:
            await _with_results(settings, lambda results: tend(results, stop))

    _run(_with_results(settings, make_room))
    out.print("the results database is up to date")
    if stay:
        run_service(Upkeep)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="an empty or new folder")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Copy everything under the data folder, also while Eyeline works."""
    from eyeline.ops.backup import backup as run_backup

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("backup", total=None)
        run_backup(
            _settings(config, data_dir),
            target,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    out.print(f"backup in {target}", highlight=False)


@app.command()
def restore(source: Path, data_dir: Annotated[Path, typer.Option("--data-dir", help="an empty or new folder")]) -> None:
    """Lay a backup into an empty data folder, every picture checked by its digest."""
    from eyeline.ops.backup import restore as run_restore

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("restore", total=None)
        run_restore(source, data_dir, progress=lambda done, total: bar.update(task, completed=done, total=total))
    out.print(f"restored into {data_dir}; start it with: eyeline up --data-dir {data_dir}", highlight=False)


@app.command()
def move(
    from_config: Annotated[Path, typer.Option("--from-config", help="the settings of the system as it is")],
    to_config: Annotated[Path, typer.Option("--to-config", help="the settings that name the new, empty stores")],
) -> None:
    """Copy results, pictures and keys to the stores of other settings, every one compared; started again, it goes on.

    Stop Eyeline first. EYELINE_ variables are not read: they would change both settings alike.
    """
    from eyeline.app import locked
    from eyeline.ops.move import move as run_move

    source, target = load_settings(from_config, {}), load_settings(to_config, {})
    with (
        locked(source.data_dir),
        Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err, transient=True
        ) as bar,
    ):
        task = bar.add_task("move", total=None)
        moved = _run(run_move(source, target, lambda done, total: bar.update(task, completed=done, total=total)))
    out.print(
        f"{moved.blobs} pictures and {moved.rows} rows moved and compared; {moved.unfinished} unfinished jobs will be enqueued. "
        f"Start the new system with: eyeline up --config {to_config}",
        highlight=False,
    )


def _version(asked: bool) -> None:
    if asked:
        print(f"eyeline {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The command `eyeline`. Exit codes: 2 for settings, 1 for any other failure that has a name."""
    try:
        app()
    except ConfigError as error:
        err.print(f"eyeline: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    except EyelineError as error:
        err.print(f"eyeline: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        err.print(f"eyeline: {error.filename}: {error.strerror}", style="red", highlight=False, markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
