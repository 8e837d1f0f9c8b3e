"""Passwords: argon2id in threads, two at a time, with a bounded line of those who wait.

Parameters: 64 MiB, 3 passes, 1 lane (RFC 9106's second choice on one lane), 16 bytes of salt, 32 of hash: 0.1 s on one
core of 2024. They stand in each hash, so that they can be raised: an older hash is replaced when its owner signs in.
"""

import asyncio
import unicodedata
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from eyeline.core.errors import InputError, Overloaded

T = TypeVar("T")

AT_ONCE = 2
WAITING = 16
SHORTEST, LONGEST = 10, 256

HASHER = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1)


def acceptable(password: str, name: str) -> str:
    """The password, if it will do. Raises InputError."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise InputError(f"a password has {SHORTEST} to {LONGEST} characters; this one has {len(password)}")
    if password.casefold() == name.casefold() or len(set(password)) < 4:
        raise InputError("this password would be guessed at once; choose another one")
    return password


class Passwords:
    """Hashes and compares; the event loop never does."""

    def __init__(self, hasher: PasswordHasher = HASHER) -> None:
        self._hasher = hasher
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobodys: str | None = None

    async def hashed(self, password: str) -> str:
        """The encoded hash to keep. Raises Overloaded."""
        return await self._in_turn(lambda: self._hasher.hash(plain(password)))

    async def matches(self, encoded: str | None, password: str) -> bool:
        """Whether it is this password; None is nobody's, which takes the same work and is never right. Raises Overloaded."""
        return await self._in_turn(lambda: self._compare(encoded, password))

    def outdated(self, encoded: str) -> bool:
        """Whether it was made with other parameters than are used now."""
        return self._hasher.check_needs_rehash(encoded)

    def _compare(self, encoded: str | None, password: str) -> bool:
        if self._nobodys is None:
            self._nobodys = self._hasher.hash("nobody's")
        try:
            self._hasher.verify(encoded or self._nobodys, plain(password))
        except (VerificationError, InvalidHashError):
            return False
        return encoded is not None

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING:
            raise Overloaded("too many people sign in at once; try again in a few seconds", retry_after=3.0)
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1


def plain(password: str) -> str:
    """The same letters, however a keyboard composes them."""
    return unicodedata.normalize("NFC", password)
