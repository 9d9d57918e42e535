"""What a judge of a stranger's file may no longer do.

Open files, make processes, speak to anybody: a process loses all of that.

A hole in a decoder, or in what parses a structure set, is then a hole in a process that has a few bytes in and a few bytes out.
Linux gives both locks to a process without rights: Landlock takes files away, seccomp takes system calls away. Neither can be
taken off. What the process needs is loaded before.

Python has no library for them that is kept (ADR 24), and they are four system calls.

Sources: landlock(7), seccomp(2), linux/landlock.h, linux/seccomp.h, linux/bpf_common.h.
"""

import ctypes
import errno
import logging
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)


def bare_environment() -> dict[str, str]:
    """The environment of a child that judges a stranger's file.

    It finds our modules, and none of our secrets. NumPy's libraries start no threads in it, as :func:`confine` wants.
    """
    found = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.environ.get("PATH", os.defpath)}
    return found | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class ConfinementFailed(RuntimeError):
    """A lock that the system has did not close.

    What is not confined must not judge a stranger's file.
    """


def confine(readable: Iterable[Path] = ()) -> None:
    """Give up for good what a judge of files need not have.

    As far as the system can take it away (:func:`lacking`).

    Memory, time and the pipes that are open stay, and so does the right to start threads. A refused call fails with EPERM, EACCES
    or ENOSYS.

    :param readable: files that may still be opened, and only be read.
    :raises ConfinementFailed: if a lock that the system has did not close, or if there are other threads already: Landlock would
        leave them as they are. It is not a warning, as nobody reads what a judge of files says.
    """
    if sys.platform != "linux":
        return
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1) != 0:
        raise ConfinementFailed("no new privileges")
    _check_alone()
    _take_files(readable)
    _take_calls()


def lacking() -> tuple[str, ...]:
    """What the system cannot take from a process.

    Empty where :func:`confine` does all that it says.
    """
    if sys.platform != "linux":
        return ("Landlock", "seccomp")
    found = {"Landlock": _landlock_version() > 0, "seccomp": _machine() is not None and _has_seccomp()}
    return tuple(name for name, has in found.items() if not has)


def tell_what_is_lacking() -> None:
    """Log a line where the system does not have both locks."""
    if missing := lacking():
        log.warning("processes that judge files of strangers are not confined in full", extra={"lacking": missing})


def _check_alone() -> None:
    """See that this thread is the only one, where the system shows them."""
    with suppress(OSError):
        if (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
            raise ConfinementFailed(f"{threads} threads")


# ── system calls ──────────────────────────────────────────────────────────────────────────────────────────────────────

_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_SECCOMP_SET_MODE_FILTER, _SECCOMP_GET_ACTION_AVAIL = 1, 2
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1
"""The filter is for all threads of the process, or, where one cannot take it, for none."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Of Landlock; one number on all machines."""


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """What a system call answers; -1 where it fails."""
    wide = (ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *wide))


def _prctl(option: int, value: int) -> int:
    return int(ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3))


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_READ_FILE: Final = 1 << 2
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many kinds of access to files Landlock knows, from a version on: each is a bit."""


def _landlock_version() -> int:
    return max(0, _syscall(_CREATE_RULESET, None, 0, 1))


def _take_files(readable: Iterable[Path]) -> None:
    version = _landlock_version()
    if not version:
        return
    files = (1 << max(count for since, count in _FILE_RIGHTS.items() if since <= version)) - 1
    rights = struct.pack("=Q", files)
    if version >= 4:
        rights += struct.pack("=Q", 0b11)  # TCP: bind and connect
    if version >= 6:
        rights += struct.pack("=Q", 0b11)  # abstract sockets of others, and signals to them
    rules = _syscall(_CREATE_RULESET, rights, len(rights), 0)
    if rules < 0:
        raise ConfinementFailed("Landlock")
    for path in readable:
        with suppress(OSError):  # who opens it is told
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", _READ_FILE, file), 0)
            os.close(file)
    failed = _syscall(_RESTRICT_SELF, rules, 0) != 0
    os.close(rules)
    if failed:
        raise ConfinementFailed("Landlock")


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_NEWEST: Final = 512
"""No call of today has a number from here on, but those of x86-64's second set of numbers."""

_REFUSED: Final = """
socket 41 198, socketpair 53 199, io_uring_setup 425 425
fork 57 -, vfork 58 -, execve 59 221, execveat 322 281
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, pidfd_open 434 434, pidfd_getfd 438 438
pidfd_send_signal 424 424, tkill 200 130, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240
bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, unshare 272 97, setns 308 268, mount 165 40
open_by_handle_at 304 265, keyctl 250 219, add_key 248 217, request_key 249 218
shmget 29 194, msgget 68 186, semget 64 190, mq_open 240 180
chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, lchown 94 -, fchown 93 55, fchownat 260 54
utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88, truncate 76 45
setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16
"""
"""Name, number on x86-64, number on ARM64; what of these would change a file, Landlock does not know."""

_ON_OTHERS: Final = "kill 62 129, tgkill 234 131, prlimit64 302 261"
"""Calls whose first argument is a process; they are left for this one."""

_CLONE, _CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
_CLONE_THREAD: Final = 0x10000

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of the packet filter: load a word, jump by the value, return."""

_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Where they stand in what the filter is shown; of the argument the low half."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _machine() -> str | None:
    """The machine, if its numbers are known."""
    return platform.machine() if platform.machine() in _ARCHITECTURES else None


def _has_seccomp() -> bool:
    action = struct.pack("=I", _ERRNO)
    return _syscall(_SECCOMP[platform.machine()], _SECCOMP_GET_ACTION_AVAIL, 0, action) == 0


def _take_calls() -> None:
    machine = _machine()
    if machine is None or not _has_seccomp():
        return
    program = b"".join(_filter(machine, os.getpid()))
    described = bytes(_Program(len(program) // 8, program))
    if _syscall(_SECCOMP[machine], _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, described) != 0:
        raise ConfinementFailed("seccomp")


def _filter(machine: str, own: int) -> Iterator[bytes]:
    """Instructions: what is refused is listed, as what NumPy and a decoder need of a system differs from one to the next."""
    yield _instruction(_LOAD, value=_ARCHITECTURE)
    yield _instruction(_EQUAL, value=_ARCHITECTURES[machine], then=1)
    yield _instruction(_RETURN, value=_KILL)
    yield _instruction(_LOAD, value=_NUMBER)
    yield from _if(_AT_LEAST, _NEWEST, _ERRNO | errno.ENOSYS)
    yield from _if(_EQUAL, _CLONE3, _ERRNO | errno.ENOSYS)  # its flags cannot be seen; the C library then asks for clone
    for number in _numbers(_REFUSED, machine):
        yield from _if(_EQUAL, number, _ERRNO | errno.EPERM)
    for number in _numbers(_ON_OTHERS, machine):
        yield from _first_argument(number, _EQUAL, [own, 0] if number in _numbers("prlimit64 302 261", machine) else [own])
    yield from _first_argument(_CLONE[machine], _ANY_BIT, [_CLONE_THREAD])
    yield _instruction(_RETURN, value=_ALLOW)


def _first_argument(number: int, test: int, allowed: list[int]) -> Iterator[bytes]:
    """Refuse a call unless its first argument passes a test with one of some values."""
    yield _instruction(_EQUAL, value=number, otherwise=len(allowed) + 3)
    yield _instruction(_LOAD, value=_FIRST_ARGUMENT)
    for place, value in enumerate(allowed):
        yield _instruction(test, value=value, then=len(allowed) - place)
    yield _instruction(_RETURN, value=_ERRNO | errno.EPERM)
    yield _instruction(_RETURN, value=_ALLOW)


def _if(test: int, value: int, answer: int) -> tuple[bytes, bytes]:
    return _instruction(test, value=value, otherwise=1), _instruction(_RETURN, value=answer)


def _instruction(code: int, *, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)


def _numbers(calls: str, machine: str) -> list[int]:
    place = 1 + list(_ARCHITECTURES).index(machine)
    found = (call.split()[place] for call in calls.replace("\n", ",").split(",") if call.strip())
    return [int(number) for number in found if number != "-"]
