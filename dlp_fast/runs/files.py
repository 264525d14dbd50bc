"""Files written whole or not at all, folders that appear when they are complete, and what to say where that fails."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from dlp_fast.errors import ConfigError, ResourceError


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the file `path`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Let the disk have what was written to the file or folder `path`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that at any moment either the old or the new content is there, whole."""
    write_atomic_by(path, lambda file: file.write(content), len(content))


def write_atomic_by(path: Path, write: Callable[[BinaryIO], object], needed: int = 0) -> None:
    """The same of what `write` writes into the open file, about `needed` bytes."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise write_failed(error, path, needed) from error


def refuse_unwritable(path: Path) -> None:
    """ResourceError where the file `path` cannot be written: told before what goes into it is worked out."""
    if path.is_dir():
        raise ResourceError(f"{path} cannot be written: it is a folder. Choose another --out.")
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.open("wb").close()
        temporary.unlink()
    except OSError as error:
        raise write_failed(error, path, 0) from error


def refuse_full(out: Path) -> None:
    """ConfigError where `out` is there and not an empty folder: nothing is overwritten."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not empty; nothing is overwritten. Choose another --out.")


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, that becomes `out` when all is written, and is gone when something goes wrong."""
    refuse_full(out)
    out = out.resolve()  # `.` has no name of its own
    building = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name[:40]}.", dir=out.parent))
        building.chmod(0o777 & ~_umask())
        yield building
        if out.exists():  # somebody may stand in it: it stays, and is filled
            for entry in building.iterdir():
                entry.rename(out / entry.name)
        else:
            building.rename(out)
    except OSError as error:
        raise ResourceError(
            f"{out} cannot be written: {error.strerror}. Free some space or choose another --out."
        ) from None
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)


def _umask() -> int:
    """The process's mask of permissions; mkdtemp goes by its own."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_failed(error: OSError, path: Path, needed: int) -> ResourceError:
    """What to tell a person whose `needed` bytes could not be written to `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            f"no room to write {path} ({needed:,} bytes needed). What was saved before is intact: free some space "
            "and run the same command again."
        )
    return ResourceError(f"{path} cannot be written: {error.strerror}. Choose another folder with --out.")
