"""Locks a decoder child in: no network, no new rights, no files of its own, bounded memory and CPU, death with its parent.

Each lock is set where the kernel grants it and named in the answer; a platform without one still decodes.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

#: Address space a child may take beyond what its libraries and the shared memory need: bytes.
MEMORY = 1_280 * 2**20
OPEN_FILES = 32
NOBODY = 65534

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def leave_network() -> list[str]:
    """Move into an empty network namespace. To be called before any thread starts."""
    if sys.platform != "linux":
        return []
    flags = _CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET
    return ["network"] if _libc().unshare(flags) == 0 else []


def drop_rights() -> list[str]:
    """Become nobody where this is root, never gain rights again, and die with the parent."""
    done = []
    with contextlib.suppress(OSError):
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            done.append("nobody")
    if sys.platform == "linux":
        libc = _libc()
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            done.append("no_new_privileges")
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0:  # after setuid, which clears it
            done.append("dies_with_parent")
    return done


def limit_resources() -> list[str]:
    """Memory beyond what is mapped now, no core dumps, no file writes, few open files."""
    limits = {"core": (resource.RLIMIT_CORE, 0), "files": (resource.RLIMIT_NOFILE, OPEN_FILES)}
    limits["writes"] = (resource.RLIMIT_FSIZE, 0)
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        limits["memory"] = (resource.RLIMIT_AS, mapped + MEMORY)
    done = []
    for name, (which, value) in limits.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (value, value))
            done.append(name)
    return done


def allow_cpu(seconds: int) -> None:
    """From now on at most about `seconds` of CPU; the kernel ends this process beyond (SIGXCPU)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
