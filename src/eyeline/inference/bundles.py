"""Model bundles: a folder (or .zip) with weights, their contract and a golden set, pinned by digests (docs/bundles.md).

Nothing in a bundle is code, and nothing outside of its folder is read: symbolic links, external tensor data, custom
operators and files that the manifest does not list are refused, in words, with ConfigError.
"""

import hashlib
import os
import re
import shutil
import stat
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

import eyeline
from eyeline.core.errors import ConfigError, NotFound
from eyeline.core.telemetry import logger
from eyeline.inference.base import Canary
from eyeline.pipeline.contract import ModelContract
from eyeline.pipeline.decoders import DECODERS

MANIFEST = "MANIFEST.sha256"
WEIGHTS = "weights.onnx"
EXPECTED = "golden/expected.json"
#: Made on this machine or only for the eye; not part of the model.
UNLISTED = frozenset({MANIFEST, "preview.png", "tuned.toml"})
REQUIRED = ("model.toml", WEIGHTS, EXPECTED)
#: Operators that ONNX Runtime itself carries; any other domain would need a library from the bundle's author.
BUILT_IN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
MAX_FILES = 1000
MAX_BYTES = 2_000_000_000
#: Elements of one stored tensor; more cannot be within MAX_BYTES.
MAX_ELEMENTS = 1 << 30
CURRENT = "current"
CANARY = "canary"

NAME = r"[a-z0-9][a-z0-9-]{0,62}"
_name = re.compile(f"^{NAME}$")
_version = re.compile(r"^[0-9A-Za-z][0-9A-Za-z.-]{0,31}$")
_line = re.compile(r"^([0-9a-f]{64})  (\S.*)$")
log = logger("inference")


class ExpectedDetection(msgspec.Struct, frozen=True, omit_defaults=True):
    """A box that a golden image must give: xyxy in pixels of the upright original."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: tuple[tuple[float, ...], ...] = ()  # polygons, where the model gives them


class ExpectedClassification(msgspec.Struct, frozen=True):
    """A label that a golden image must get; `step` is the head's name, None where the model has one."""

    label: str
    score: float
    step: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What a model says of one golden image."""

    file: str
    detections: tuple[ExpectedDetection, ...] = ()
    classifications: tuple[ExpectedClassification, ...] = ()


class Tolerance(msgspec.Struct, frozen=True):
    """How far an answer may be off and still be the same decision."""

    iou: float = 0.9
    score: float = 0.03
    class_flips: int = 0


class Golden(msgspec.Struct, frozen=True):
    """The golden set: images and what the model must say of them."""

    images: tuple[Answer, ...] = ()
    tolerance: Tolerance = Tolerance()
    schema_version: int = 1


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified model bundle. `digest` is the SHA-256 of its manifest; `version` is `1.0.0+` and 12 digits of it."""

    path: Path
    contract: ModelContract
    digest: str
    golden: Golden
    files: dict[str, str]

    @property
    def name(self) -> str:
        """The model's name, as servers and settings call it."""
        return self.contract.name

    @property
    def version(self) -> str:
        """The version that results carry."""
        return f"{self.contract.version}+{self.digest[:12]}"

    @property
    def weights(self) -> Path:
        """The ONNX file."""
        return self.path / WEIGHTS

    def read(self, file: str) -> bytes:
        """A listed file's bytes, checked against the manifest again. Raises ConfigError where they changed since."""
        data = _read(self.path / file)
        if hashlib.sha256(data).hexdigest() != self.files.get(file):
            raise ConfigError(f"{self.path / file} changed while it was being loaded; load the bundle again")
        return data


def load_bundle(path: Path, *, proved: str | None = None) -> Bundle:
    """Read and verify a bundle: a folder, or a .zip which is unpacked beside itself first.

    proved: the digest of a bundle whose graph has been checked already; then it must be this one. Raises ConfigError
    saying which file is missing, changed, not listed, or not allowed. Reads every file: call it in a thread.
    """
    folder = unpack(path) if path.suffix == ".zip" else path
    if not folder.is_dir():
        raise ConfigError(f"no model bundle at {path}: a folder with model.toml, or a .zip of one, is wanted")
    present = _files(folder)
    for required in (MANIFEST, *REQUIRED):
        if required not in present:
            raise ConfigError(f"the model bundle {folder} has no {required}")
    manifest = _read(folder / MANIFEST)
    listed = _parse_manifest(folder, manifest)
    _verify(folder, present, listed)
    contract = read_contract(folder / "model.toml")
    golden = _read_golden(folder, listed)
    digest = hashlib.sha256(manifest).hexdigest()
    if proved is None:
        check_graph(_read(folder / WEIGHTS), str(folder / WEIGHTS))
    elif proved != digest:
        raise ConfigError(f"the model bundle {folder} changed while it was being checked; load it again")
    return Bundle(path=folder, contract=contract, digest=digest, golden=golden, files=listed)


def write_manifest(path: Path) -> str:
    """Write MANIFEST.sha256 over the folder's files as they are now; returns the bundle's digest."""
    lines = [f"{_digest(path / file)}  {file}\n" for file in sorted(_files(path) - UNLISTED)]
    text = "".join(lines).encode()
    (path / MANIFEST).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def read_contract(path: Path) -> ModelContract:
    """Read a `model.toml`. Raises ConfigError naming the field."""
    try:
        content = tomllib.loads(_read(path).decode())
        contract = msgspec.convert(content, ModelContract)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    problem = next(_problems(contract), None)
    if problem:
        raise ConfigError(f"{path}: {problem}")
    return contract


def made_with(bundle: Bundle) -> dict[str, str]:
    """What its golden answers were recorded with, as `models import` writes it; empty where its maker did not say."""
    provenance = tomllib.loads(bundle.read("model.toml").decode()).get("provenance", {})
    told = provenance.get("environment", {}) if isinstance(provenance, dict) else {}
    return {name: value for name, value in told.items() if isinstance(value, str)} if isinstance(told, dict) else {}


def _problems(contract: ModelContract) -> Iterator[str]:
    height, width = contract.input.size
    if not _name.match(contract.name):
        yield f"name {contract.name!r}: use small letters, digits and '-', 63 at most"
    if not _version.match(contract.version):
        yield f"version {contract.version!r}: write it as '1.0.0', 32 characters at most"
    if contract.schema_version != 1:
        yield f"schema_version {contract.schema_version} is newer than this Eyeline; update it"
    if not contract.labels and not contract.output.heads:
        yield "labels is empty: name at least one class"
    if not (1 <= height <= 8192 and 1 <= width <= 8192):
        yield f"input.size {contract.input.size}: height and width lie between 1 and 8192"
    if not 1 <= contract.input.max_batch <= 1024:
        yield f"input.max_batch {contract.input.max_batch} is not between 1 and 1024"
    if not 0 <= contract.input.pad <= 255:
        yield f"input.pad {contract.input.pad} is no grey level between 0 and 255"
    if contract.output.heads and contract.task != "classification":
        yield "output.heads is for classification only"
    if DECODERS[contract.output.decoder] != contract.task:
        yield f"output.decoder {contract.output.decoder!r} does not suit the task {contract.task!r}"
    for field in ("score_threshold", "iou_threshold"):
        if not 0 <= getattr(contract.output, field) <= 1:
            yield f"output.{field} {getattr(contract.output, field)} is not between 0 and 1"


def check_graph(weights: bytes, where: str) -> None:
    """Refuse an ONNX file that would read other files or run foreign code. Raises ConfigError."""
    import onnx  # noqa: PLC0415 - 0.3 s, and only a load needs it

    try:
        model = onnx.load_model_from_string(weights)
    except Exception as error:  # protobuf's own errors have no public base class
        raise ConfigError(f"{where} is not a readable ONNX file ({type(error).__name__}): is it complete?") from error
    known = BUILT_IN_DOMAINS | {function.domain for function in model.functions}
    for graph in (model.graph, *model.functions):
        _check_nodes(graph, known, where)


def _check_nodes(graph: Any, known: Iterable[str], where: str) -> None:
    for tensor in getattr(graph, "initializer", ()):
        _check_tensor(tensor, where)
    for node in graph.node:
        if node.domain not in known:
            raise ConfigError(
                f"{where}: operator {node.op_type!r} is from the custom domain {node.domain!r}, which needs a foreign "
                "library; export the model with standard operators"
            )
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                _check_tensor(tensor, where)
            for inner in (attribute.g, *attribute.graphs):
                _check_nodes(inner, known, where)


def _check_tensor(tensor: Any, where: str) -> None:
    if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
        raise ConfigError(
            f"{where}: tensor {tensor.name!r} keeps its data in another file (external data); make one of both: "
            "export with torch.onnx.export(…, external_data=False), or in Python, beside the .data file: "
            "onnx.save(onnx.load('model.onnx'), 'whole.onnx')"
        )
    elements = 1
    for length in tensor.dims:
        elements *= length
    if elements > MAX_ELEMENTS or elements < 0:
        raise ConfigError(f"{where}: tensor {tensor.name!r} claims {elements} elements; {MAX_ELEMENTS} at most")


def unpack(archive: Path) -> Path:
    """Unpack a .zip bundle into `.unpacked/<digest>` beside it (once); returns the bundle's folder in there."""
    if not archive.is_file():
        raise ConfigError(f"no model bundle at {archive}")
    target = archive.parent / ".unpacked" / _digest(archive)[:16]
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
        try:
            _extract(archive, scratch)
            scratch.rename(target)
        except FileExistsError:
            shutil.rmtree(scratch)
        except BaseException:
            shutil.rmtree(scratch)
            raise
    inner = list(target.iterdir())
    return inner[0] if len(inner) == 1 and inner[0].is_dir() else target


def _extract(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise ConfigError(f"{archive}: more than {MAX_FILES} files or {MAX_BYTES / 1e9:.0f} GB when unpacked")
            for entry in entries:
                _extract_one(opened, entry, target, archive)
    except zipfile.BadZipFile as error:
        raise ConfigError(f"{archive} is not a readable .zip: {error}") from error


def _extract_one(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, archive: Path) -> None:
    mode = entry.external_attr >> 16
    if not _inside(entry.filename) or (mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode)):
        raise ConfigError(f"{archive}: the entry {entry.filename!r} is a link or leads out of the bundle")
    place = target / entry.filename
    place.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as source, place.open("xb") as sink:
        left = entry.file_size
        while chunk := source.read(min(1 << 20, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise ConfigError(f"{archive}: the entry {entry.filename!r} is larger than it says")
            sink.write(chunk)


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name)


def _files(folder: Path) -> set[str]:
    """Relative paths of all files. Raises ConfigError for anything that is neither a plain file nor a folder."""
    found: set[str] = set()
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise ConfigError(f"{path} is a link or no plain file; a bundle holds the files themselves")
        found.update(Path(root, name).relative_to(folder).as_posix() for name in files)
        if len(found) > MAX_FILES:
            raise ConfigError(f"the model bundle {folder} has more than {MAX_FILES} files")
    return found


def _parse_manifest(folder: Path, text: bytes) -> dict[str, str]:
    listed: dict[str, str] = {}
    for number, line in enumerate(text.decode(errors="replace").splitlines(), 1):
        found = _line.match(line)
        if found is None or not _inside(found[2]):
            raise ConfigError(f"{folder / MANIFEST}, line {number}: {line[:100]!r} is not '<sha256>  <relative path>'")
        listed[found[2]] = found[1]
    return listed


def _verify(folder: Path, present: set[str], listed: dict[str, str]) -> None:
    missing = sorted(listed.keys() - present)
    extra = sorted(present - listed.keys() - UNLISTED)
    if missing:
        raise ConfigError(f"the model bundle {folder} lacks files that its manifest lists: {', '.join(missing[:5])}")
    if extra:
        raise ConfigError(
            f"the model bundle {folder} holds files that its manifest does not list: {', '.join(extra[:5])}; remove them"
        )
    unpinned = sorted(set(REQUIRED) - listed.keys())
    if unpinned:
        raise ConfigError(f"{folder / MANIFEST} does not list {', '.join(unpinned)}")
    for file, digest in listed.items():
        if _digest(folder / file) != digest:
            raise ConfigError(
                f"{folder / file} is not the file that the manifest pins (its SHA-256 differs); get it again"
            )


def _read_golden(folder: Path, listed: dict[str, str]) -> Golden:
    try:
        golden = msgspec.json.decode(_read(folder / EXPECTED), type=Golden)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{folder / EXPECTED}: {error}") from error
    for image in golden.images:
        if f"golden/{image.file}" not in listed:
            raise ConfigError(f"{folder / EXPECTED} names {image.file!r}, which is not in the bundle's golden folder")
    return golden


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_BYTES)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- where bundles lie ------------------------------------------------------------------------------------------------


def bundled_folder() -> Path:
    """The reference models that come with the package."""
    return Path(eyeline.__file__).parent / "bundled" / "models"


def locate(models_dir: Path, *, bundled: bool = True) -> dict[str, Path]:
    """Name → where its serving version lies, unread: `<name>`, `<name>.zip` or `<name>/<version>`; `models_dir` wins."""
    found: dict[str, Path] = {}
    for folder in (*([bundled_folder()] if bundled else []), models_dir):
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            serving = serving_version(entry)
            if serving is not None:
                found[entry.name.removesuffix(".zip")] = serving
    return found


def find_bundles(models_dir: Path, *, bundled: bool = True) -> dict[str, Bundle]:
    """All bundles that verify, by name; those that do not are logged and left out. Reads every file: call it in a thread."""
    found: dict[str, Bundle] = {}
    for name, path in locate(models_dir, bundled=bundled).items():
        try:
            found[name] = load_named(name, path)
        except ConfigError as error:
            log.warning("a model bundle is refused", model=name, reason=str(error))
    return found


def load_named(name: str, path: Path, *, proved: str | None = None) -> Bundle:
    """Load the bundle that must have this name. Raises ConfigError."""
    bundle = load_bundle(path, proved=proved)
    if bundle.name != name:
        raise ConfigError(
            f"{path} calls itself {bundle.name!r} in model.toml but lies under the name {name!r}; rename one"
        )
    return bundle


def serving_version(entry: Path) -> Path | None:
    """Where the serving version of `<models_dir>/<name>` lies; None where this is no bundle."""
    if entry.name.startswith("."):
        return None
    if (entry.suffix == ".zip" and entry.is_file()) or (entry / "model.toml").is_file():
        return entry
    found = versions(entry)
    served = history(entry)
    return found.get(served[0]) if served and served[0] in found else (list(found.values())[-1] if found else None)


def versions(entry: Path) -> dict[str, Path]:
    """The versions under `<models_dir>/<name>`, oldest number first."""
    if not entry.is_dir():
        return {}
    paths = [path for path in entry.iterdir() if (path / "model.toml").is_file()]
    return {path.name: path for path in sorted(paths, key=lambda path: (_numbers(path.name), path.name))}


def pinned(models_dir: Path, name: str, version: str) -> dict[str, str] | None:
    """File → SHA-256, by the manifest that a result's `version` names; None where no such bundle is here any more. Blocks."""
    path = of_version(models_dir, name, version)
    return None if path is None else _parse_manifest(path, _read(path / MANIFEST))


def of_version(models_dir: Path, name: str, version: str) -> Path | None:
    """Where the bundle lies that a result's `version` names; None where it is not here any more. Blocks."""
    digits = re.fullmatch(r".+\+([0-9a-f]{12})", version)
    if digits is None or not _name.match(name):
        return None
    for folder in (models_dir, bundled_folder()):
        unpacked = folder / ".unpacked"
        for path in (folder / name, *versions(folder / name).values(), *unpacked.glob("*"), *unpacked.glob("*/*")):
            manifest = path / MANIFEST
            text = _read(manifest) if manifest.is_file() else b""
            if hashlib.sha256(text).hexdigest().startswith(digits[1]):
                return path
    return None


def promote(entry: Path, version: str) -> None:
    """Let `version` serve from the next load on. Raises ConfigError where there is none."""
    known = versions(entry)
    if version not in known:
        raise ConfigError(f"{entry} has no version {version!r}; known: {', '.join(known) or 'none'}")
    serving = serving_version(entry)
    earlier = history(entry) or ([serving.name] if serving else [])
    remember(entry, [version, *(line for line in earlier if line != version)])


def rollback(entry: Path) -> str:
    """Let the version serve that served before; returns its name. Raises ConfigError where there was none."""
    served = [line for line in history(entry) if line in versions(entry)]
    if len(served) < 2:
        raise ConfigError(f"{entry} has no earlier version to go back to")
    remember(entry, served[1:])
    return served[1]


def history(entry: Path) -> list[str]:
    """The versions that served, the newest first."""
    return _lines(entry / CURRENT)


def remember(entry: Path, served: list[str]) -> None:
    """Let the first of these serve from the next load on; without any, the newest version does."""
    _write_lines(entry / CURRENT, served[:20])


def canary(entry: Path) -> Canary | None:
    """The version that is tried out, where there is one; one that serves everywhere by now is not tried out any more."""
    version, *sites = _lines(entry / CANARY) or [""]
    path = versions(entry).get(version)
    return None if path is None or path == serving_version(entry) else Canary(version, tuple(sites))


def remember_canary(entry: Path, chosen: Canary | None) -> None:
    """Let this version answer for its sites from its next load on; None: let none."""
    _write_lines(entry / CANARY, [chosen.version, *chosen.sites] if chosen else [])


def locate_canary(models_dir: Path, address: str) -> tuple[Path, Canary]:
    """Where the canary that is asked for under this address lies. Raises NotFound."""
    name = address.partition("@")[0]
    entry = models_dir / name
    found = canary(entry) if _name.match(name) else None
    if found is None or found.address(name) != address:
        raise NotFound(f"no version is tried out under {address!r}")
    return versions(entry)[found.version], found


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line] if path.is_file() else []


def _write_lines(path: Path, lines: list[str]) -> None:
    """All of them or none; without any there is no file."""
    if not lines:
        path.unlink(missing_ok=True)
        return
    scratch = path.parent / f".{path.name}.{os.getpid()}"
    scratch.write_text("".join(f"{line}\n" for line in lines))
    scratch.replace(path)


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", name.partition("+")[0]))
