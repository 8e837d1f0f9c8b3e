"""The errors of PEP 249 that both drivers raise: what SQLAlchemy and the store know a database's trouble by."""

apilevel = "2.0"
threadsafety = 1
Binary = bytes


class Error(Exception):
    """The base that PEP 249 asks for."""


class DatabaseError(Error):
    """Something about the database itself."""


class OperationalError(DatabaseError):
    """Locked, full, unreadable, away: the surroundings. `disk_full` tells the one that a person must mend."""

    disk_full = False


class DiskFull(OperationalError):
    """No room for the write."""

    disk_full = True


class IntegrityError(DatabaseError):
    """A constraint was broken."""


class ProgrammingError(DatabaseError):
    """The statement makes no sense here."""
