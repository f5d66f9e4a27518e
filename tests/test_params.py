"""Params and init_params: shapes, reproducible draws, spectral radius, files."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any

import bptt
import numpy as np
import pytest

F8 = np.float64


def zeros(*shape: int, dtype: Any = F8) -> np.ndarray:
    return np.zeros(shape, dtype)


def draw(**changed: Any) -> bptt.Params:
    call = {"input_size": 3, "hidden_size": 5, "output_size": 2, "rng": 0, **changed}
    return bptt.init_params("tanh", **call)


def assert_equal(one: bptt.Params, other: bptt.Params) -> None:
    assert one.arrays().keys() == other.arrays().keys()
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)
        assert array.dtype == other.dtype


# --- init_params -------------------------------------------------------------------------------


def test_draws_have_the_shapes_of_pytorch(cell: str) -> None:
    gates = bptt.CELLS[cell].gates
    params = bptt.init_params(cell, input_size=3, hidden_size=5, output_size=2)
    shapes = {name: array.shape for name, array in params.arrays().items()}
    assert shapes == {
        "w_ih": (gates * 5, 3),
        "w_hh": (gates * 5, 5),
        "b_ih": (gates * 5,),
        "b_hh": (gates * 5,),
        "w_ho": (2, 5),
        "b_o": (2,),
    }
    assert (params.input_size, params.hidden_size, params.output_size) == (3, 5, 2)
    assert params.dtype == np.float32


def test_what_is_not_asked_for_is_absent() -> None:
    assert draw(output_size=None).arrays().keys() == {"w_ih", "w_hh", "b_ih", "b_hh"}
    assert draw(bias=False).arrays().keys() == {"w_ih", "w_hh", "w_ho"}
    assert draw(output_size=None).output_size is None


def test_the_same_seed_draws_the_same_numbers() -> None:
    assert_equal(draw(rng=7), draw(rng=7))
    assert_equal(draw(rng=7), draw(rng=np.random.default_rng(7)))
    assert not np.array_equal(draw(rng=7).w_hh, draw(rng=8).w_hh)
    assert not np.array_equal(draw(rng=None).w_hh, draw(rng=None).w_hh)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_every_dtype_gets_the_same_numbers_rounded(dtype: str) -> None:
    found, expected = draw(dtype=dtype), draw(dtype="float64")
    assert found.dtype == np.dtype(dtype)
    assert_equal(found, expected.astype(dtype))


def test_draws_are_uniform_on_the_interval_of_pytorch() -> None:
    w = draw(hidden_size=100, rng=1).w_hh * np.sqrt(100)
    assert 0.99 < np.abs(w).max() <= 1
    assert abs(w.mean()) < 0.02
    assert w.var() == pytest.approx(1 / 3, rel=0.02)


@pytest.mark.parametrize("radius", [0.0, 0.5, 1.0, 1.25])
def test_every_eigenvalue_has_the_spectral_radius_as_modulus(radius: float) -> None:
    w = draw(hidden_size=33, spectral_radius=radius, dtype="float64").w_hh
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(w)), radius, rtol=1e-13)
    np.testing.assert_allclose(w.T @ w, radius**2 * np.eye(33), atol=1e-14)


def test_the_spectral_radius_changes_nothing_but_w_hh_s_kind() -> None:
    assert_equal(draw(rng=3, spectral_radius=1.0), draw(rng=3, spectral_radius=1.0))
    np.testing.assert_array_equal(draw(spectral_radius=1.0).w_ih, draw().w_ih)


BAD_DRAWS: list[tuple[str, Any, type[Exception], str]] = [
    ("input_size", -1, ValueError, r"expected an integer of at least 1, got -1"),
    ("hidden_size", 0, ValueError, r"expected an integer of at least 1, got 0"),
    ("output_size", -2, ValueError, r"expected an integer of at least 1, got -2"),
    ("hidden_size", 2.0, TypeError, r"expected an integer, got float"),
    ("hidden_size", "8", TypeError, r"expected an integer, got str"),
    ("input_size", True, TypeError, r"expected an integer, got bool"),
    ("spectral_radius", -0.5, ValueError, r"finite number that is not negative, got -0.5"),
    ("spectral_radius", np.nan, ValueError, r"finite number that is not negative, got nan"),
    ("spectral_radius", np.inf, ValueError, r"finite number that is not negative, got inf"),
    ("spectral_radius", "1", TypeError, r"expected a number, got str"),
    ("dtype", "int32", TypeError, r"expected a float dtype, got int32"),
    ("dtype", "complex64", TypeError, r"expected a float dtype, got complex64"),
    ("dtype", "float33", TypeError, r"expected a float dtype, got 'float33'"),
    ("rng", -1, ValueError, r"expected None, an integer of at least 0 .*Generator, got -1"),
    ("rng", "seed", TypeError, r"expected None, an integer of at least 0 .*Generator, got 'seed'"),
    ("bias", "no", TypeError, r"expected True or False, got str"),
]


@pytest.mark.parametrize(("argument", "value", "error", "words"), BAD_DRAWS)
def test_a_bad_draw_is_refused_in_words(
    argument: str, value: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=f"^{argument}: .*{words}"):
        draw(**{argument: value})


# --- Params ------------------------------------------------------------------------------------

W_IH, W_HH = zeros(5, 3), zeros(5, 5)
BAD_PARAMS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("w_hh", {"w_hh": zeros(5)}, ValueError, r"expected shape \(G\*H, H\), got \(5,\)"),
    ("w_hh", {"w_hh": zeros(5, 4)}, ValueError, r"expected shape \(G\*H, H\).*got \(5, 4\)"),
    ("w_hh", {"w_hh": zeros(0, 0)}, ValueError, r"\(G\*H, H\) with H at least 1, got \(0, 0\)"),
    ("w_hh", {"w_hh": None}, TypeError, r"expected a NumPy array .*got NoneType"),
    ("w_hh", {"w_hh": zeros(5, 5, dtype=int)}, TypeError, r"expected a float array, got .*int64"),
    ("w_hh", {"w_hh": zeros(5, 5, dtype="O")}, TypeError, r"expected a float array, got .*object"),
    (
        "w_hh",
        {"w_ih": zeros(12, 4), "w_hh": zeros(12, 2)},
        ValueError,
        r"gates .*\(12, 2\).*swapped",
    ),
    ("w_ih", {"w_ih": zeros(4, 3)}, ValueError, r"\(5, I\) to match w_hh .*\(5, 5\), got \(4, 3\)"),
    ("w_ih", {"w_ih": zeros(5)}, ValueError, r"expected shape \(5, I\).*got \(5,\)"),
    ("w_ih", {"w_ih": zeros(5, 0)}, ValueError, r"expected sizes of at least 1, got \(5, 0\)"),
    ("w_ih", {"w_ih": None}, TypeError, r"expected a NumPy array .*got NoneType"),
    ("w_ih", {"w_ih": zeros(5, 3, dtype="f4")}, TypeError, r"float64 like w_hh, got float32"),
    ("b_ih", {"b_ih": zeros(4)}, ValueError, r"expected shape \(5,\).*got \(4,\)"),
    ("b_hh", {"b_hh": zeros(5, 1)}, ValueError, r"expected shape \(5,\).*got \(5, 1\)"),
    ("b_hh", {"b_hh": zeros(5, dtype="f4")}, TypeError, r"float64 like w_hh, got float32"),
    ("b_hh", {"b_hh": [0.0] * 5}, TypeError, r"expected a NumPy array .*got list"),
    ("w_ho", {"w_ho": zeros(2, 4)}, ValueError, r"expected shape \(O, 5\).*got \(2, 4\)"),
    ("w_ho", {"w_ho": zeros(0, 5)}, ValueError, r"expected sizes of at least 1, got \(0, 5\)"),
    ("b_o", {"b_o": zeros(2)}, ValueError, r"needs the readout weights w_ho, got None"),
    ("b_o", {"w_ho": zeros(2, 5), "b_o": zeros(3)}, ValueError, r"\(2,\) to match w_ho, got"),
]


@pytest.mark.parametrize(("argument", "changed", "error", "words"), BAD_PARAMS)
def test_parameters_that_do_not_fit_are_refused_in_words(
    argument: str, changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=f"^{argument}: .*{words}"):
        bptt.Params(**{"w_ih": W_IH, "w_hh": W_HH, **changed})


def test_arrays_are_kept_and_not_copied() -> None:
    params = bptt.Params(W_IH, W_HH)
    assert params.w_ih is W_IH
    assert params.arrays()["w_hh"] is W_HH


def test_astype_copies() -> None:
    params = bptt.Params(W_IH, W_HH)
    assert not np.shares_memory(params.astype("float64").w_hh, W_HH)
    assert params.astype("float32").dtype == np.float32
    with pytest.raises(TypeError, match=r"^dtype: expected a float dtype, got int64"):
        params.astype("int64")
    assert params.dtype == np.float64


def test_params_print_their_shapes() -> None:
    assert repr(bptt.Params(W_IH, W_HH)) == "Params(w_ih=(5, 3), w_hh=(5, 5), dtype=float64)"


def test_params_can_be_pickled() -> None:
    params = draw()
    assert_equal(pickle.loads(pickle.dumps(params)), params)


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_a_file_gives_back_what_was_saved(dtype: str, tmp_path: Path) -> None:
    for n, params in enumerate((draw(dtype=dtype), draw(dtype=dtype, bias=False))):
        path = tmp_path / f"{n}.npz"
        params.save(path)
        assert_equal(bptt.Params.load(path), params)
        assert_equal(bptt.Params.load(str(path)), params)


def test_numpy_reads_the_file_without_pickle(tmp_path: Path) -> None:
    draw().save(tmp_path / "params.npz")
    with np.load(tmp_path / "params.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {"w_ih", "w_hh", "b_ih", "b_hh", "w_ho", "b_o"}


@pytest.mark.parametrize("name", ["gru", "gru.txt", "gru.npz"])
def test_npz_is_appended_where_it_is_missing_and_load_finds_it(name: str, tmp_path: Path) -> None:
    draw().save(tmp_path / name)
    written = name if name == "gru.npz" else f"{name}.npz"
    assert [entry.name for entry in tmp_path.iterdir()] == [written]
    (tmp_path / "gru").mkdir(exist_ok=True)  # of which `save` knows nothing
    assert_equal(bptt.Params.load(tmp_path / name), draw())


def test_a_file_of_another_name_is_loaded_all_the_same(tmp_path: Path) -> None:
    draw().save(tmp_path / "params.npz")
    (tmp_path / "params.npz").rename(tmp_path / "weights")
    assert_equal(bptt.Params.load(tmp_path / "weights"), draw())


@pytest.mark.parametrize("path", ["", "folder/"])
def test_a_path_without_a_name_is_refused(path: str) -> None:
    for call in (draw().save, bptt.Params.load):
        with pytest.raises(ValueError, match=r"^path: expected the name of a file, got '"):
            call(path)


def test_a_file_tells_the_cell_that_it_was_saved_with(cell: str, tmp_path: Path) -> None:
    params = bptt.init_params(cell, input_size=3, hidden_size=5)
    params.save(tmp_path / "with", cell=cell)
    params.save(tmp_path / "without")
    assert bptt.Params.saved_cell(tmp_path / "with") == cell
    assert bptt.Params.saved_cell(tmp_path / "without") is None
    assert_equal(bptt.Params.load(tmp_path / "with"), params)


def test_a_cell_that_does_not_fit_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^w_hh: expected shape \(20, 5\) for cell 'lstm'"):
        draw().save(tmp_path / "params", cell="lstm")
    with pytest.raises(ValueError, match=r"^cell: expected one of .*, got 'ltsm'"):
        draw().save(tmp_path / "params", cell="ltsm")
    assert list(tmp_path.iterdir()) == []


def test_a_cell_in_a_file_is_a_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", w_ih=W_IH, w_hh=W_HH, cell=np.zeros(3))
    with pytest.raises(ValueError, match=r"the name of a cell .* got an array of float64 \(3,\)"):
        bptt.Params.load(tmp_path / "params.npz")


def test_a_save_into_no_folder_names_the_path_given(tmp_path: Path) -> None:
    path = tmp_path / "nofolder" / "params.npz"
    with pytest.raises(FileNotFoundError) as caught:
        draw().save(path)
    assert caught.value.filename == str(path)


def test_a_save_that_fails_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "params.npz"
    draw(rng=1).save(path)

    def savez(file: Any, **arrays: np.ndarray) -> None:
        file.write(b"half a file")
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(OSError, match="disk full") as caught:
        draw(rng=2).save(path)
    assert caught.value.filename == str(path)
    assert_equal(bptt.Params.load(path), draw(rng=1))
    assert [entry.name for entry in tmp_path.iterdir()] == ["params.npz"]


class Ran:
    """Code that a pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the pickle in a file of parameters was run",))


def test_a_file_with_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "params.npz"
    np.savez(path, w_ih=np.array([Ran()], dtype=object), w_hh=W_HH)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        bptt.Params.load(path)


def test_a_foreign_file_is_refused_in_words(tmp_path: Path) -> None:
    text, other, partial = (tmp_path / name for name in ("text.npz", "other.npz", "partial.npz"))
    text.write_text("not an archive")
    np.savez(other, w_ih=W_IH, w_hh=W_HH, weights=W_HH)
    np.savez(partial, w_ih=W_IH)
    with pytest.raises(ValueError, match=r"^path: '.*text.npz' is not an .npz file"):
        bptt.Params.load(text)
    with pytest.raises(ValueError, match=r"^path: '.*other.npz' does not hold .*'weights'"):
        bptt.Params.load(other)
    with pytest.raises(ValueError, match=r"^path: '.*partial.npz' does not hold .*missing.*w_hh"):
        bptt.Params.load(partial)
    with pytest.raises(FileNotFoundError):
        bptt.Params.load(tmp_path / "nothing.npz")
