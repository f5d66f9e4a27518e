"""The files of the package: arrays are read safely, and what is written replaces a file whole.

What is read came from anywhere: nothing in it is run, and whatever is wrong with it is a
`ValueError` that names the file. That it is not there, or may not be read, stays an `OSError`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Union

import numpy as np

from .checks import Array

if TYPE_CHECKING:
    import zipfile

__all__ = ["StrPath", "read_arrays", "read_text", "replacing", "write"]

StrPath = Union[str, "os.PathLike[str]"]

_ZIP, _NPY = (
    (b"PK\x03\x04", b"PK\x05\x06"),
    b"\x93NUMPY",
)  # the second of _ZIP is an archive without files
# What torch.save wrote before it wrote zip archives: a pickle that begins with this number.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_arrays(path: StrPath) -> dict[str, Array]:
    """The arrays of an ``.npz`` file, by name. A pickle in it is refused, and not run.

    Raises
    ------
    ValueError
        If it is another kind of file, or damaged.
    MemoryError
        If an array does not fit the memory.
    OSError
        If there is no such file, or it cannot be read.
    """
    where = f"path: {os.fspath(path)!r}"
    with open(path, "rb") as file:
        fault = _fault(file)
        if fault is not None:
            raise ValueError(f"{where} {fault}")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as stored:
                found = {name: stored[name] for name in stored.files}
        except MemoryError as error:
            raise MemoryError(f"{where} does not fit the memory: {error}") from None
        except Exception as error:  # what a header says is read by rules of its own
            raise ValueError(f"{where} cannot be read: {_reason(error)}") from None
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # what does not begin as an array does comes as bytes
            raise ValueError(f"{where} cannot be read: {name} is no array")
    return found


def read_text(path: StrPath) -> str:
    """The text of a file in UTF-8.

    Raises
    ------
    ValueError
        If it is no text.
    OSError
        If there is no such file, or it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"path: {os.fspath(path)!r} is no text in UTF-8: {error}") from None


def write(path: StrPath, content: str | bytes) -> None:
    """Replace the content of a file, or create it; see `replacing`."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: StrPath) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when the block ends without an error.

    Until then, and after an error, an older file is as it was. Its mode stays, and a symbolic link
    stays a link: the file that it leads to is replaced. Other hard links keep the older file. What
    is no file (a pipe, ``/dev/null``) is written to as it is.

    Raises
    ------
    PermissionError
        If the file may not be written to, or nothing may be created in its folder.
    OSError
        Of `path`, whichever file failed.
    """
    try:
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            with open(path, "wb") as device:
                yield device
            return
        # In the same folder, since a rename does not cross file systems; a name of its own, since
        # that of the target may be as long as names can be.
        target = os.path.realpath(path)
        if mode is not None and not os.access(target, os.W_OK):  # a rename would not ask
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        partial = os.path.join(os.path.dirname(target), f".bptt-{os.urandom(8).hex()}.part")
        try:
            with open(partial, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                os.chmod(partial, stat.S_IMODE(mode))
            os.replace(partial, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _mode(path: StrPath) -> int | None:
    """Type and permissions of what `path` leads to; None if that is nothing."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


_WRITTEN_BY_TORCH = (
    "was written by torch.save; load it there, and hand its state_dict to bptt.Params.from_torch"
)
_ZIP_END = 22  # bytes of the last record, behind which a comment may stand


def _fault(file: BinaryIO) -> str | None:
    """Why this is no whole ``.npz`` file; None if it is one."""
    import zipfile  # only here: it would cost `import bptt` a tenth

    begin = file.read(len(_OLD_TORCH))
    if not begin.startswith(_ZIP) or not zipfile.is_zipfile(file):
        return _what_it_is(begin)
    try:
        with zipfile.ZipFile(file) as archive:
            names, damage = archive.namelist(), _damage(file, archive)
    except Exception as error:  # bytes that may be anything, which may raise anything
        return f"is damaged: {_reason(error)}"
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return _WRITTEN_BY_TORCH
    if damage is not None:
        return f"is damaged: {damage}"
    others = [name for name in names if not name.endswith(".npy")]
    if others or not names:
        return f"is no .npz file: it holds {others or 'nothing'}"
    return None


def _what_it_is(begin: bytes) -> str:
    """What to say of a file that is no whole zip archive, from its first bytes."""
    if not begin:
        return "is empty"
    if begin.startswith(_ZIP):
        return "is damaged: its end is missing"
    if begin.startswith(_OLD_TORCH):
        return _WRITTEN_BY_TORCH
    if begin.startswith(_NPY):
        return "is an .npy file, of one array; expected an .npz file, as numpy.savez writes it"
    return "is not an .npz file"


def _damage(file: BinaryIO, archive: zipfile.ZipFile) -> str | None:
    """What is wrong with an archive that could be opened.

    Its checksums are those of the members. A damaged directory may hide some of them, which would
    leave a network without a bias; a damaged header asks for any amount of memory.
    """
    names = archive.namelist()
    file.seek(-_ZIP_END - len(archive.comment), os.SEEK_END)
    counted = int.from_bytes(file.read(_ZIP_END)[10:12], "little")
    if counted not in (len(names), 0xFFFF):  # the latter stands for more than that
        return f"it lists {len(names)} of {counted} arrays"
    if len(set(names)) < len(names):
        return "it lists an array twice"
    wrong = archive.testzip()
    return None if wrong is None else f"the checksum of {wrong!r} is wrong"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
