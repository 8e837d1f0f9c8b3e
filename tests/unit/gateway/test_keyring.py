"""When a key was used last: known within two minutes, written once a minute at most, and never by the request itself."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eyeline.core.settings import KeySettings
from eyeline.gateway import auth
from eyeline.gateway.auth import Keyring, new_key
from eyeline.stores.results.base import KeyRow
from tests.migrated import migrated

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


async def test_the_use_of_a_key_is_kept_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = NOON
    monkeypatch.setattr(auth, "utcnow", lambda: now)
    results = await migrated(tmp_path)
    (filed, filed_sha), (stored, stored_sha), (_, unused_sha) = new_key(), new_key(), new_key()
    for name, sha256 in (("belt", stored_sha), ("unused", unused_sha)):
        await results.put_key(KeyRow(name=name, sha256=sha256, role="ingest", sites=(), created_at=NOON))
    keyring = Keyring([KeySettings(name="filed", sha256=filed_sha)], results)
    await keyring.refresh()

    def use(secret: str) -> None:
        keyring.authenticate([(b"authorization", f"Bearer {secret}".encode())])

    use(filed)
    use(stored)
    assert await results.key_uses() == {}
    await keyring.keep_uses()
    assert await results.key_uses() == {filed_sha: NOON, stored_sha: NOON}
    now = NOON + timedelta(seconds=30)
    use(stored)
    await keyring.keep_uses()
    assert (await results.key_uses())[stored_sha] == NOON
    now = NOON + timedelta(seconds=61)
    await keyring.keep_uses()
    assert await results.key_uses() == {filed_sha: NOON, stored_sha: NOON + timedelta(seconds=30)}
    await results.close()
