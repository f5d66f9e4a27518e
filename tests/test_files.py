"""A file is read whole or refused by its name, and replaced whole or left as it was."""

from __future__ import annotations

import io
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bptt
import numpy as np
import pytest
from bptt import files

PARAMS = bptt.init_params("gru", input_size=2, hidden_size=3, output_size=2, rng=0)


def saved(**options: Any) -> bytes:
    """The bytes of an .npz file of `PARAMS`."""
    content = io.BytesIO()
    save: Callable[..., None] = np.savez_compressed if options.get("compressed") else np.savez
    save(content, **PARAMS.arrays())
    return content.getvalue()


def read(path: Path, content: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(content)
    return files.read_arrays(path)


# --- reading


@pytest.mark.parametrize("compressed", [False, True])
def test_no_truncated_file_is_read(compressed: bool, tmp_path: Path) -> None:
    whole = saved(compressed=compressed)
    for length in range(0, len(whole), 7):
        with pytest.raises(ValueError, match=r"^path: '.*net\.npz' is (empty|not an|damaged)"):
            read(tmp_path / "net.npz", whole[:length])


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_byte_is_found_or_changes_nothing(compressed: bool, tmp_path: Path) -> None:
    whole, messages = saved(compressed=compressed), []
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x41
        try:
            found = read(tmp_path / "net.npz", bytes(changed))
        except ValueError as error:
            messages.append(str(error))
        else:  # the byte was in a date, or the like
            assert found.keys() == PARAMS.arrays().keys()
            for name, array in PARAMS.arrays().items():
                np.testing.assert_array_equal(found[name], array)
    assert len(messages) > len(whole) / 2
    begin = f"path: '{tmp_path}/net.npz' is "
    assert all(message.startswith(begin) and "\n" not in message for message in messages)


def zipped(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def one_array(**header: Any) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "<f4", "fortran_order": False, "shape": (2,), **header}
    )
    return content.getvalue() + bytes(8)


OTHER_FILES = {
    "empty": (b"", "is empty"),
    "text": (b"no arrays", "is not an .npz file"),
    "pickle": (pickle.dumps([1.0]), "is not an .npz file"),
    "one array": (one_array(), "is an .npy file, of one array; expected an .npz file"),
    "of no arrays": (zipped(), "is no .npz file: it holds nothing"),
    "other archive": (zipped(readme=b"text"), "is no .npz file: it holds ['readme']"),
    "one name twice": (saved().replace(b"w_hh", b"b_hh"), "is damaged: it lists an array twice"),
    "torch": (zipped(**{"net/data.pkl": b"", "net/data/0": b""}), "bptt.Params.from_torch"),
    "old torch": (pickle.dumps(0x1950A86A20F9469CFC6C, 2), "bptt.Params.from_torch"),
    "no array": (zipped(**{"w_ih.npy": b"text"}), "cannot be read: "),
    "short array": (zipped(**{"w_ih.npy": one_array(shape=(3,))}), "cannot be read: "),
}


@pytest.mark.parametrize(("content", "words"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_another_kind_of_file_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: '.*net\.npz' ") as caught:
        read(tmp_path / "net.npz", content)
    assert words in str(caught.value)


def test_an_array_larger_than_the_memory_is_named(tmp_path: Path) -> None:
    content = zipped(**{"w_ih.npy": one_array(shape=(1 << 50,))})
    with pytest.raises(MemoryError, match=r"^path: '.*net\.npz' does not fit the memory"):
        read(tmp_path / "net.npz", content)


def test_what_torch_writes_is_led_to_from_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for new_format in (True, False):
        path = tmp_path / "net.pt"
        torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=new_format)
        with pytest.raises(ValueError, match=r"^path: '.*net\.pt' was written by torch\.save; .*"):
            bptt.Params.load(path)


# --- writing


def test_a_symbolic_link_stays_one_and_leads_to_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "net.npz", tmp_path / "net.npz"
    link.symlink_to(Path("elsewhere") / "net.npz")
    for _ in range(2):  # at first it leads to nothing
        PARAMS.save(link)
        assert link.is_symlink()
        np.testing.assert_array_equal(bptt.Params.load(target).w_hh, PARAMS.w_hh)
    assert [path.name for path in target.parent.iterdir()] == ["net.npz"]


def test_a_circle_of_links_is_an_error_of_the_path_given(tmp_path: Path) -> None:
    (tmp_path / "net.npz").symlink_to("net.npz")
    with pytest.raises(OSError, match=r"symbolic links: '.*net\.npz'"):
        PARAMS.save(tmp_path / "net.npz")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_that_is_replaced_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    path.touch()
    path.chmod(mode)
    PARAMS.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_that_others_have(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    PARAMS.save(tmp_path / "net.npz")
    assert (tmp_path / "net.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_fails_on_the_way_leaves_the_older_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    files.write(path, "old")

    def write_half() -> None:
        with files.replacing(path) as file:
            file.write(b"new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_name_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    files.write(tmp_path / ("n" * 255), "text")
    assert (tmp_path / ("n" * 255)).read_text() == "text"


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    files.write(f"/dev/fd/{writing}", "text")
    os.close(writing)
    assert os.read(reading, 9) == b"text"
    os.close(reading)
    with pytest.raises(IsADirectoryError):
        files.write(tmp_path, "text")


def test_a_full_disk_is_an_error_of_the_path_given_and_leaves_the_older_file(
    tmp_path: Path,
) -> None:
    """The largest size of a file takes the place of the disk's."""
    path = tmp_path / "net.npz"
    PARAMS.save(path)
    before = path.read_bytes()
    code = (
        "import bptt, sys\n"
        "params = bptt.init_params('tanh', input_size=2, hidden_size=200)\n"
        "try: params.save(sys.argv[1])\n"
        "except OSError as error: print(error.filename)\n"
    )

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"{path}\n", "")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["net.npz"]


def test_a_file_that_may_not_be_written_to_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.npz"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "access", lambda name, mode: False)  # root may write to any
    with pytest.raises(PermissionError, match=r"net\.npz"):
        PARAMS.save(path)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"before"]


def test_a_path_of_bytes_is_a_path_and_the_name_of_a_folder_is_none(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "net")
    PARAMS.save(path, cell="gru")
    params, cell = bptt.Params.load_with_cell(path)
    assert cell == "gru"
    np.testing.assert_array_equal(params.w_hh, PARAMS.w_hh)
    for folder in ("..", ".", str(tmp_path / "..")):
        with pytest.raises(ValueError, match=r"^path: expected the name of a file"):
            PARAMS.save(folder)
