"""One planner at a time per target: a lock file that the system releases when its holder ends."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from sagescale.errors import InputError, SagescaleError

if TYPE_CHECKING:
    from types import TracebackType


class Right(Protocol):
    """The right to scale a target, which one planner at a time has; it may be lost."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    def holds(self) -> bool:
        """Say whether it is still ours."""


class FileLock:
    """An advisory lock on a file that is made for it; usable as a context manager once acquired.

    Args:
        path: The file; it stays when the lock is given back.
        what: What whoever holds it does, for the message: "scaling X".
        otherwise: What to do about it.
    """

    def __init__(self, path: Path, what: str, otherwise: str) -> None:
        self.path = path
        self._what = what
        self._otherwise = otherwise
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Take the lock; say whether it was free.

        Raises:
            InputError: the lock file cannot be made.
        """
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError as error:
            os.close(handle)
            raise InputError(
                f"{self.path}: cannot be locked: {error.strerror}; expected a file system with locks"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle
        return True

    def acquire_or_refuse(self) -> None:
        """Take the lock.

        Raises:
            SagescaleError: another planner holds it.
        """
        if not self.acquire():
            holder = ""
            with contextlib.suppress(OSError, ValueError):
                holder = f" (process {int(self.path.read_text(encoding='ascii'))})"
            raise SagescaleError(f"another planner{holder} is {self._what}; {self._otherwise}")

    def release(self) -> None:
        """Give the lock back; the file stays."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class TargetLock(FileLock):
    """The lock of a target.

    It holds on one machine. Where planners run on several, a Kubernetes Deployment with one replica and
    strategy Recreate does what a lock file cannot.
    """

    def __init__(self, target: str, folder: str | None = None) -> None:
        try:
            place = Path(folder or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        except FileNotFoundError:
            raise InputError(
                "lock_dir: no temporary folder can be written; expected one to be named"
            ) from None
        digest = hashlib.sha256(target.encode()).hexdigest()[:16]
        super().__init__(
            place / f"sagescale-{digest}.lock",
            f"scaling {target}",
            "stop it first, or start this one with --standby",
        )
        self.target = target
