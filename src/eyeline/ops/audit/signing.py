"""Signs checkpoints (ed25519, RFC 8032), beside the verification in verifier.py.

One signature now and then needs no library. It is not in constant time: sign on a machine whose clock nobody can watch that
closely, which is so wherever the key file itself is safe.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from eyeline.core.errors import ConfigError
from eyeline.ops.audit.verifier import _L, BASE, checkpoint_text, compress, multiply, number_of

SEED_BYTES = 32


def _expanded(seed: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | (1 << 254)
    return scalar, digest[32:]


def public_key(seed: bytes) -> bytes:
    """The public half of a key."""
    return compress(multiply(_expanded(seed)[0], BASE))


def sign(seed: bytes, message: bytes) -> bytes:
    """The signature; the same each time."""
    scalar, prefix = _expanded(seed)
    public = compress(multiply(scalar, BASE))
    number = number_of(prefix, message)
    nonce = compress(multiply(number, BASE))
    answer = (number + number_of(nonce, public, message) * scalar) % _L
    return nonce + answer.to_bytes(32, "little")


def load_key(path: Path) -> bytes:
    """The key in the file, which is made on first use for its owner alone. Raises ConfigError."""
    try:
        if not path.exists():
            _make_key(path)
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others than its owner; make another key, or chmod 600 it")
        seed = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        raise ConfigError(
            f"the key {path} cannot be used: {error.strerror}; name a file in a folder of yours"
        ) from error
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise ConfigError(
            f"{path} holds no key (64 hexadecimal digits); name another file, one that is not there is made"
        )
    return seed


def _make_key(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(os.urandom(SEED_BYTES).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())


def signed_checkpoint(seed: bytes, block: int, size: int, block_hash: str, at: str) -> dict[str, Any]:
    """What a person keeps outside."""
    return {
        "type": "checkpoint",
        "block": block,
        "size": size,
        "hash": block_hash,
        "at": at,
        "key": public_key(seed).hex(),
        "signature": sign(seed, checkpoint_text(block, size, block_hash, at)).hex(),
    }
