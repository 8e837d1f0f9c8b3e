"""`eyeline models import`: an ONNX file of a known family becomes a bundle whose answers are proved.

The file is refused before it is loaded where it is another format, reads other files or runs foreign code. Its golden
answers come from the original graph with preprocessing done in numpy; then the preprocessing is folded into the graph and
the folded one must give the same answers, so that a wrong fold cannot pass.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import onnx
import tomli_w

import eyeline
from eyeline.core.clock import utcnow
from eyeline.core.errors import ConfigError, InferenceError
from eyeline.inference import families, graph, preview, samples
from eyeline.inference.answers import ask, tensor_of
from eyeline.inference.base import Tensor
from eyeline.inference.bundles import (
    EXPECTED,
    WEIGHTS,
    Answer,
    Bundle,
    Golden,
    Tolerance,
    check_graph,
    load_bundle,
    promote,
    versions,
    write_manifest,
)
from eyeline.inference.environment import of_maker
from eyeline.inference.families import Exported, Family, Three
from eyeline.inference.golden import check
from eyeline.inference.runtimes import cores
from eyeline.inference.runtimes.onnxruntime import OnnxRuntime
from eyeline.pipeline.contract import InputContract, ModelContract, OutputContract, Task
from eyeline.pipeline.decoders import MAPS, PAIRED, boxes_and_classes, boxes_and_prototypes
from eyeline.pipeline.maps import ANOMALOUS, NORMAL

#: Larger files are no model for this; they would have to be read into memory several times over.
MAX_WEIGHTS = 1_000_000_000
#: Images in one batch at most, where the graph can do more than one.
MAX_BATCH = 8
#: How far a folded or batched graph may be from the original: (relative, absolute).
CLOSE = (1e-3, 1e-3)

#: What counts as the same decision. A runtime in bf16 moves a classifier's score by up to 0.04 and calls it the same.
TOLERANCE: dict[Task, Tolerance] = {
    "detection": Tolerance(),
    "classification": Tolerance(score=0.05),
    "anomaly": Tolerance(iou=0.7, score=0.05),  # the edge of a region moves with the last digit of a map
}

#: Decoders of models whose answers do not tell how many classes they know.
_UNCOUNTED = frozenset({"classmap", *families.CHOSEN})

Color = Literal["rgb", "bgr"]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What came of an import. `notes` are sentences for the user: what was assumed, what to look at."""

    bundle: Bundle
    notes: tuple[str, ...]
    preview: Path


@dataclass(frozen=True)
class _Original:
    """The foreign model as it is: its bytes, its input, its runtime, and what was told about it."""

    path: Path
    digest: str  # of the file, whatever was cut from its graph since
    weights: bytes
    given: graph.GraphInput
    size: tuple[int, int]
    told: Exported
    runtime: OnnxRuntime

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run it on float32 or uint8 tensors, whatever float it takes inside; float32 answers. Raises InferenceError."""
        kind = onnx.helper.tensor_dtype_to_np_dtype(self.given.kind)
        found = self.runtime.infer({name: value.astype(kind, copy=False) for name, value in inputs.items()})
        return {name: value.astype(np.float32, copy=False) for name, value in found.items()}


def import_model(
    path: Path,
    *,
    models_dir: Path,
    name: str | None = None,
    decoder: str | None = None,
    labels: Path | Sequence[str] | None = None,
    images: Path | None = None,
    mean: Three | None = None,
    scale: Three | None = None,
    color: str | None = None,
    licence: str = "unknown",
) -> Imported:
    """Make `<models_dir>/<name>/<version>` of an ONNX file and let it serve. Blocks for seconds.

    mean, scale: value = (pixel 0..255 − mean) × scale, by channel in `color` order, as the graph wants it; None: what the
    family usually takes. images: a folder, picture or video for the golden set. licence: of the weights; empty: what the file
    says. Raises ConfigError with the reason and the
    way out where the file is refused; nothing is left behind then.
    """
    original = _open(path)
    licence = _licence(licence, original)
    name = name or _name_of(path)
    pictures = samples.samples(images)
    outputs = original.infer({original.given.name: _blank(original)})
    family = families.propose(outputs, original.size, original.told, decoder)
    original, outputs = _trimmed(original, outputs, family)
    chosen, assumed = _labels(labels, original.told, family, outputs)
    contract = _contract(original, family, name, chosen, mean, scale, color, licence)
    notes = [f"{family.said}: {contract.output.decoder}, {preview.words_of(contract.input)}, {contract.input.color}"]
    notes += assumed
    if family.said == "classifier" and mean is None and scale is None and contract.input.dtype == "float32":
        notes.append("no preprocessing was given: ImageNet's mean and std are assumed (--mean, --scale)")
    if "AGPL" in contract.licence.upper():
        notes.append(
            f"the weights are under {contract.licence}: who offers them over a network owes its users the source"
        )
    tried = preview.trials(list(pictures.values()), samples.named(images, chosen), contract, original.infer)
    notes += preview.warnings(tried)
    return _build(original, contract, pictures, tried, notes, models_dir / name)


def _open(path: Path) -> _Original:
    """Read the file and load it, once it is known to be harmless."""
    if not path.exists():
        raise ConfigError(f"there is no file {path}; give the path of an ONNX file")
    families.refuse_other_formats(path)
    size = path.stat().st_size
    if size > MAX_WEIGHTS:
        raise ConfigError(f"{path} has {size:,} bytes; {MAX_WEIGHTS:,} at most: export a smaller model, or in float16")
    weights = path.read_bytes()
    check_graph(weights, str(path))
    model = graph.parse(weights)
    graph.check_sizes(model, str(path))
    given = graph.input_of(model, str(path))
    told = _beside(path, families.exported(graph.metadata(model)))
    if given.batch not in (None, 1):
        raise ConfigError(
            f"{path} takes {given.batch} pictures at once and no other number; export it for one, e.g. "
            "yolo export model=… format=onnx batch=1: import opens the batch by itself where the graph allows it"
        )
    height, width = given.height or (told.size or (None, None))[0], given.width or (told.size or (None, None))[1]
    if height is None or width is None or not (16 <= height <= 4096 and 16 <= width <= 4096):
        raise ConfigError(
            f"{path} leaves its input size open ({height or '?'}×{width or '?'}); export it at a fixed size, e.g. "
            "yolo export model=… format=onnx imgsz=640, "
            "anomalib export … --input_size [256,256], or torch.onnx.export without dynamic height and width"
        )
    return _Original(
        path,
        hashlib.sha256(weights).hexdigest(),
        weights,
        given,
        (height, width),
        told,
        OnnxRuntime.of(weights, str(path), threads=cores()),
    )


def _licence(given: str, original: _Original) -> str:
    """The licence of the weights. Raises ConfigError where nobody says it: who serves them has to know."""
    licence = original.told.licence if given in ("", "unknown") and original.told.licence else given
    if not licence:
        raise ConfigError(
            f"{original.path.name} names no licence: say that of the weights, e.g. --licence Apache-2.0, and that of the "
            "pictures and of the model that they were made from is met (--licence unknown, where you do not know it)"
        )
    return licence


def _trimmed(original: _Original, outputs: dict[str, Tensor], family: Family) -> tuple[_Original, dict[str, Tensor]]:
    """The model with the outputs that its decoder reads, as float32, where it has others."""
    names = families.needed(outputs, family)
    kinds = {output.name: output.type.tensor_type.elem_type for output in graph.parse(original.weights).graph.output}
    if len(names) == len(kinds) and set(kinds.values()) <= {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}:
        return original, outputs
    weights = graph.only(original.weights, names)
    runtime = OnnxRuntime.of(weights, str(original.path), threads=cores())
    return replace(original, weights=weights, runtime=runtime), {name: outputs[name] for name in names}


def _beside(path: Path, told: Exported) -> Exported:
    """What the exporter wrote beside the file: anomalib's metadata.json."""
    beside = path.parent / "metadata.json"
    if not beside.is_file() or beside.stat().st_size > 1_000_000:
        return told
    try:
        content = json.loads(beside.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{beside} cannot be read ({error}); remove it, or export the model again") from error
    return replace(told, anomalib=families.anomalib(content, str(beside)) if isinstance(content, dict) else None)


def _blank(original: _Original) -> Tensor:
    """Noise in the shape that the graph takes."""
    height, width = original.size
    shape = (1, 3, height, width) if original.given.layout == "nchw" else (1, height, width, 3)
    values = np.random.default_rng(7).integers(0, 256, shape)
    return values if original.given.kind == onnx.TensorProto.UINT8 else (values / 255.0).astype(np.float32)


def _name_of(path: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:60] or "model"


def _labels(
    given: Path | Sequence[str] | None, told: Exported, family: Family, outputs: Mapping[str, Tensor]
) -> tuple[tuple[str, ...], list[str]]:
    """The labels, and a note where they had to be made up. Raises ConfigError where their number is not the model's."""
    if family.decoder == "anomaly":
        return (ANOMALOUS, NORMAL), _anomaly_notes(told)
    count = _classes(family, outputs)
    source = given if isinstance(given, Path) else "the labels given"
    found = _read_labels(given) if isinstance(given, Path) else tuple(given or ())
    if given is None:
        source, found = "the file's metadata", told.labels
    if family.decoder in _UNCOUNTED and found:
        count = len(found)
    if not found and family.decoder in families.CHOSEN:
        raise ConfigError(
            f"{family.said}: its answers do not tell how many classes there are; give --labels FILE, one a line"
        )
    if not found:
        made = tuple(f"class-{number}" for number in range(count))
        return made, [f"no labels were given: the {count} classes are called class-0 … (--labels FILE, one a line)"]
    if len(found) != count:
        raise ConfigError(f"{source}: {len(found)} labels, and the model has {count} classes; give one label a line")
    return found, []


def _anomaly_notes(told: Exported) -> list[str]:
    if told.anomalib is None:
        return ["no metadata.json beside the file: scores are taken as they are, an anomaly from 0.5 on"]
    scale = told.anomalib.picture
    return [
        f"anomalib's metadata.json: threshold {scale.threshold:g}, scores from {scale.minimum:g} to {scale.maximum:g}"
    ]


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the labels {path} cannot be read ({error}); give a UTF-8 text file, one label a line"
        ) from error
    stripped = [line.strip() for line in lines]
    while stripped and not stripped[-1]:
        stripped.pop()
    return tuple(stripped)


def _classes(family: Family, outputs: Mapping[str, Tensor]) -> int:
    pair = boxes_and_classes(outputs) if family.decoder in PAIRED else None
    if pair is not None:  # a DETR's last class says that there is nothing
        return int(outputs[pair[1]].shape[2]) - (family.decoder == "detr")
    if family.decoder == "yolov8-seg" and (masked := boxes_and_prototypes(outputs)):
        return int(outputs[masked[0]].shape[1] - 4 - outputs[masked[1]].shape[1])
    value = next(iter(outputs.values()))
    if family.decoder == "classmap":
        return int(max(1, value.max())) + 1
    if family.decoder in MAPS:
        return int(value.shape[1])
    shapes = {"yolox": value.shape[-1] - 5, "yolov5": value.shape[-1] - 5, "yolov8": value.shape[1] - 4}
    return int(shapes.get(family.decoder, value.size))


def _contract(
    original: _Original,
    family: Family,
    name: str,
    labels: tuple[str, ...],
    mean: Three | None,
    scale: Three | None,
    color: str | None,
    licence: str,
) -> ModelContract:
    """What the original graph takes and says. A graph that takes uint8 does its own arithmetic."""
    bytes_in = original.given.kind == onnx.TensorProto.UINT8
    if bytes_in and (mean or scale):
        raise ConfigError(
            f"{original.path} takes uint8: its normalisation is inside already, leave --mean and --scale out"
        )
    if color not in (None, *get_args(Color)):
        raise ConfigError(f"colour order {color!r} is not known; rgb or bgr")
    plain: Three = (0.0, 0.0, 0.0)
    ones: Three = (1.0, 1.0, 1.0)
    unlike = original.told.anomalib if family.decoder == "anomaly" else None
    if unlike is not None and unlike.mean and unlike.scale:
        family = replace(family, mean=unlike.mean, scale=unlike.scale)
    output = msgspec.convert({"decoder": family.decoder, "iou_threshold": family.iou_threshold}, OutputContract)
    if unlike is not None:
        output = msgspec.structs.replace(output, picture=unlike.picture, pixel=unlike.pixel)
    wanted = {
        "name": original.given.name,
        "size": original.size,
        "fit": family.fit,
        "align": family.align,
        "color": color or family.color,
        "layout": original.given.layout,
        "dtype": "uint8" if bytes_in else "float32",
        "mean": plain if bytes_in else family.mean if mean is None and scale is None else mean or plain,
        "scale": ones if bytes_in else family.scale if mean is None and scale is None else scale or ones,
    }
    return ModelContract(
        name=name,
        version="1.0.0",
        task=family.task,
        labels=labels,
        input=msgspec.convert(wanted, InputContract),
        output=output,
        licence=licence,
        description=original.told.description or f"Imported from {original.path.name}",
    )


def _build(
    original: _Original,
    contract: ModelContract,
    pictures: Mapping[str, bytes],
    tried: Sequence[preview.Trial],
    notes: list[str],
    entry: Path,
) -> Imported:
    """The bundle's folder, made beside its place and moved there once it is proved."""
    if (entry / "model.toml").exists():
        raise ConfigError(f"{entry} is a bundle laid there by hand; move it away or choose another --name")
    version = _next_version(entry)
    contract = msgspec.structs.replace(contract, version=version)
    entry.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".import-", dir=entry.parent))
    part.chmod(0o755)  # a temporary folder is private, a bundle is read by whoever serves it
    try:
        kept = _golden_set(part, pictures)
        answers = [_recorded(data, contract, original, file) for file, data in kept.items()]
        served, weights = _served(original, contract, list(kept.values()))
        notes += _silent(answers, contract) + ([] if served.input.dtype == "uint8" else [_UNFOLDED])
        _write(part, served, weights, answers, original, notes)
        bundle = load_bundle(part)
        _prove(bundle, weights)
        preview.sheet(part / "preview.png", kept, tried, original.infer, notes[1:])
        (entry / version).parent.mkdir(exist_ok=True)
        part.rename(entry / version)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    promote(entry, version)
    place = entry / version
    return Imported(bundle=load_bundle(place), notes=tuple(notes), preview=place / "preview.png")


_UNFOLDED = "preprocessing could not be folded into the graph: workers will send float32, four times the bytes"


def _next_version(entry: Path) -> str:
    """1.0.0, then 1.0.1 and so on: an import never overwrites one."""
    numbers = [int(found[1]) for name in versions(entry) if (found := re.fullmatch(r"1\.0\.(\d+)", name))]
    return f"1.0.{max(numbers, default=-1) + 1}"


def _golden_set(part: Path, pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """Write the kept pictures into golden/; file name → bytes."""
    folder = part / "golden"
    folder.mkdir()
    names = samples.spread(list(pictures), samples.KEPT)
    kept = {}
    for number, name in enumerate(names):
        data, ending = samples.small(pictures[name], samples.KEPT_BYTES // len(names))
        file = f"{number:02d}-{re.sub(r'[^A-Za-z0-9_-]+', '-', name)[:60]}.{ending}"
        (folder / file).write_bytes(data)
        kept[file] = data
    return kept


def _recorded(data: bytes, contract: ModelContract, original: _Original, file: str) -> Answer:
    try:
        answer = ask(data, contract, original.infer, file)
    except InferenceError as error:
        raise ConfigError(f"{original.path.name} fails on {file}: {error}") from error
    rounded = [msgspec.structs.replace(box, score=round(box.score, 5)) for box in answer.detections]
    return msgspec.structs.replace(answer, detections=tuple(rounded))


def _silent(answers: Sequence[Answer], contract: ModelContract) -> list[str]:
    if contract.task != "detection" or any(answer.detections for answer in answers):
        return []
    threshold = contract.output.score_threshold
    sentence = (
        f"no box over {threshold} in any of {len(answers)} golden pictures: they prove little. Give "
        "pictures of what the model knows with --images FOLDER, and check the preprocessing"
    )
    return [sentence]


def _served(original: _Original, contract: ModelContract, pictures: Sequence[bytes]) -> tuple[ModelContract, bytes]:
    """The contract and weights to serve: folded where that gives the same numbers, with the largest batch that does."""
    wanted, weights = contract.input, original.weights
    if wanted.dtype != "uint8":
        try:
            folded, name = graph.fold(original.weights, wanted)
            inner = InputContract(name=name, size=wanted.size, fit=wanted.fit, align=wanted.align)
            served = msgspec.structs.replace(contract, input=inner)
            if _same_numbers(original, contract, folded, served, pictures):
                contract, weights = served, folded
        except ConfigError:
            pass  # the original is served as it is, and the notes say so
    for open_batch in graph.any_batch(weights):
        if _same_in_batches(open_batch, contract, pictures):
            larger = msgspec.structs.replace(contract.input, max_batch=MAX_BATCH)
            return msgspec.structs.replace(contract, input=larger), open_batch
    return contract, weights


def _same_numbers(
    original: _Original, contract: ModelContract, weights: bytes, served: ModelContract, pictures: Sequence[bytes]
) -> bool:
    """Raw outputs of the original with numpy's preprocessing against those of the folded graph."""
    runtime = OnnxRuntime.of(weights, "the folded graph")
    for data in pictures[:3]:
        before = original.infer({contract.input.name: tensor_of(data, contract)[0]})
        after = runtime.infer({served.input.name: tensor_of(data, served)[0]})
        if not _close(list(before.values()), list(after.values())):
            return False
    return True


def _same_in_batches(weights: bytes, contract: ModelContract, pictures: Sequence[bytes]) -> bool:
    """Whether three pictures at once get what each gets alone."""
    tensors = [tensor_of(data, contract)[0] for data in pictures[:3]]
    noise = np.random.default_rng(3).permuted(tensors[0], axis=1)
    batch = [*tensors, noise, noise[:, ::-1]][:3]
    try:
        runtime = OnnxRuntime.of(weights, "the graph with an open batch")
        together = runtime.infer({contract.input.name: np.concatenate(batch)})
        for at, tensor in enumerate(batch):
            alone = runtime.infer({contract.input.name: np.ascontiguousarray(tensor)})
            if not _close(list(alone.values()), [value[at : at + 1] for value in together.values()]):
                return False
    except (ConfigError, InferenceError):
        return False
    return True


def _close(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    relative, absolute = CLOSE
    return all(
        old.shape == new.shape
        and np.allclose(old, new, rtol=relative, atol=absolute * max(1.0, float(np.abs(old).max())))
        for old, new in zip(before, after, strict=True)
    )


def _prove(bundle: Bundle, weights: bytes) -> None:
    """The served graph must say of the golden set what the original said."""
    differences = check(bundle, OnnxRuntime.of(weights, str(bundle.weights)).infer)
    if differences:
        raise ConfigError(
            f"{bundle.name}: with its preprocessing folded in, the model answers otherwise than the original "
            f"({'; '.join(differences[:3])}); please report this file's family"
        )


def _write(
    part: Path,
    contract: ModelContract,
    weights: bytes,
    answers: Sequence[Answer],
    original: _Original,
    notes: Sequence[str],
) -> None:
    """All files of the bundle but the pictures."""
    content: dict[str, Any] = msgspec.to_builtins(contract)
    for unused in ("heads",) if contract.task == "anomaly" else ("heads", "picture", "pixel"):
        content["output"].pop(unused, None)
    content["provenance"] = {
        "source": original.path.name,
        "source_sha256": original.digest,
        "created": utcnow().date().isoformat(),
        "commands": [f"eyeline models import {original.path.name}"],
        "importer": f"eyeline {eyeline.__version__}",
        "environment": of_maker(),
    }
    (part / "model.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
    (part / WEIGHTS).write_bytes(weights)
    golden = msgspec.json.encode(Golden(images=tuple(answers), tolerance=TOLERANCE[contract.task]))
    (part / EXPECTED).write_bytes(msgspec.json.format(golden, indent=1) + b"\n")
    (part / "card.md").write_text(_card(contract, original, notes), encoding="utf-8")
    write_manifest(part)


def _card(contract: ModelContract, original: _Original, notes: Sequence[str]) -> str:
    lines = [
        f"# {contract.name} {contract.version}",
        "",
        contract.description,
        "",
        f"- Task: {contract.task}, {len(contract.labels)} labels, input {contract.input.size[0]}×{contract.input.size[1]}",
        f"- Source: `{original.path.name}`, SHA-256 `{original.digest}`",
        f"- Licence of the weights: {contract.licence}",
        "- Golden answers: the source file in float32 on ONNX Runtime, preprocessing done outside of the graph",
        "",
        "## Notes of the import",
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"
