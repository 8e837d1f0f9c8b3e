"""What is kept about backups: the last one, which whoever made it notes in the store and the page shows."""

from typing import Annotated

import msgspec

#: The name of the note among the states of the result store.
LAST = "backup/last"


class LastBackup(msgspec.Struct, frozen=True, kw_only=True):
    """The newest backup that arrived whole: when it was begun, where it lies, pictures, and bytes with the database."""

    at: Annotated[str, msgspec.Meta(description="RFC 3339")]
    to: str
    blobs: int
    bytes: int
