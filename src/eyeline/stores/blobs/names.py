"""The names that every blob store accepts, and no others: nothing outside a store can be named."""

import re

from eyeline.core.errors import BlobError

_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def require_names(site: str, sha256: str) -> None:
    """Raises BlobError where either is none."""
    if not _SITE.fullmatch(site) or ".." in site:
        raise BlobError(f"{site!r} is no site name; use letters, digits, '_', '.' and '-'", transient=False)
    if not is_sha256(sha256):
        raise BlobError(f"{sha256!r} is no SHA-256; write 64 lower-case hex digits", transient=False)


def names_of(url: str) -> tuple[str, str]:
    """Site and digest of a blob's URL. Raises BlobError for one that is none."""
    site, _, sha256 = url.partition("/")
    require_names(site, sha256)
    return site, sha256


def is_sha256(text: str) -> bool:
    """Whether `text` could be a blob's digest."""
    return _SHA256.fullmatch(text) is not None
