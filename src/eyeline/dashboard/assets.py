"""The static files: read once, named by one digest over all of them, sent compressed and kept by browsers for ever."""

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from starlette.requests import Request
from starlette.responses import Response

from eyeline.core.errors import NotFound
from eyeline.core.telemetry import printable

FOLDER = Path(__file__).parent / "static"
#: Fixed, whatever the machine's own table says: a browser runs no module of a wrong type.
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """One file as it is sent."""

    media_type: str
    body: bytes
    zipped: bytes
    etag: str


class Assets:
    """All static files of the package. A link names the digest of them all, so modules may import each other by bare paths."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = _read(folder)
        digest = hashlib.sha256()
        for name, asset in sorted(self._files.items()):
            digest.update(name.encode() + b"\0" + asset.body + b"\0")
        self.digest = digest.hexdigest()[:12]

    @property
    def names(self) -> Mapping[str, Asset]:
        """Every file by its path below the folder."""
        return self._files

    def url(self, name: str) -> str:
        """Where a browser finds it. Raises KeyError for a file that is not there: a page's mistake."""
        if name not in self._files:
            raise KeyError(name)
        return f"/assets/{self.digest}/{name}"

    async def serve(self, request: Request) -> Response:
        """The answer for one file. A link of another version gets today's file, to be asked for again."""
        name = str(request.path_params["name"])
        asset = self._files.get(name)
        if asset is None:
            raise NotFound(f"no file is called {printable(name, 80)!r} here; load the page again")
        current = request.path_params["digest"] == self.digest
        headers = {
            "ETag": asset.etag,
            "Cache-Control": FOR_EVER if current else "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Vary": "Accept-Encoding",
        }
        if request.headers.get("if-none-match") == asset.etag:
            return Response(status_code=304, headers=headers)
        body = asset.body
        if "gzip" in request.headers.get("accept-encoding", "") and len(asset.zipped) < len(body):
            body = asset.zipped
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers, media_type=asset.media_type)


def _read(folder: Path) -> dict[str, Asset]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = str(PurePosixPath(path.relative_to(folder)))
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            media_type = TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
            found[name] = Asset(media_type, body, gzip.compress(body, mtime=0), etag)
    return found
