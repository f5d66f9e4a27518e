"""A row map says which row of the caller's arrays each row of a layer's arrays is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bptt.row_map import RowMap, dense_rows
from bptt.sequence_options import read_row_map
from hypothesis import given, settings
from sequences import Case, cases

# x[t, b] is 10 t + b: a row of three steps, one of none, one of two.
PADDED = np.array([[0, 1, 2], [10, 11, 12], [20, 21, 22]])
LENGTHS = [3, 0, 2]


def test_rows_are_sorted_by_falling_length_and_padding_is_left_out() -> None:
    rows = read_row_map((3, 3), lengths=LENGTHS)
    assert rows.gather(PADDED).tolist() == [0, 2, 10, 12, 20]
    assert rows.offsets is not None
    assert rows.offsets.tolist() == [0, 2, 4, 5]
    assert rows.inner_batch == 3  # the row without steps has a state


def test_beyond_the_lengths_there_are_zeros() -> None:
    rows = read_row_map((3, 3), lengths=LENGTHS)
    assert rows.scatter(rows.gather(PADDED + 1)).tolist() == [[1, 0, 3], [11, 0, 13], [21, 0, 0]]
    out = np.full((3, 3), 7)
    assert rows.scatter(rows.gather(PADDED + 1), out) is out
    assert out.tolist() == [[1, 0, 3], [11, 0, 13], [21, 0, 0]]


def test_rows_of_equal_length_stay_in_their_order() -> None:
    rows = read_row_map((2, 4), lengths=[1, 2, 1, 2])
    state = (np.array([[0], [1], [2], [3]]),)
    assert rows.gather_state(state)[0].ravel().tolist() == [1, 3, 0, 2]
    assert rows.scatter_state(rows.gather_state(state))[0].ravel().tolist() == [0, 1, 2, 3]


def test_reverse_turns_each_row_round_within_its_own_length() -> None:
    rows = read_row_map((3, 3), lengths=LENGTHS, reverse=True)
    assert rows.gather(PADDED).tolist() == [20, 12, 10, 2, 0]


def test_batch_first_takes_rows_that_lie_one_after_the_other() -> None:
    rows = read_row_map((3, 3), batch_first=True)
    assert rows.offsets is None
    assert rows.gather(np.ascontiguousarray(PADDED.T)).tolist() == PADDED.tolist()


def test_a_reset_makes_rows_of_their_own() -> None:
    reset = np.array([[True, False], [False, False], [True, False]])
    rows = read_row_map((3, 2), reset=reset)
    #  row 0: steps 0, 1 from zeros, then step 2 from zeros; row 1: all of it, from S_0
    assert rows.gather(PADDED[:, :2]).tolist() == [1, 0, 20, 11, 10, 21]
    state = (np.array([[5.0], [6.0]]),)
    assert rows.gather_state(state)[0].ravel().tolist() == [6, 0, 0]
    last = (np.array([[1.0], [2.0], [3.0]]),)  # in the order of rows: 1, 0 first, 0 last
    assert rows.scatter_state(last)[0].ravel().tolist() == [3, 1]
    assert rows.gather_dstate(state)[0].ravel().tolist() == [6, 0, 5]
    assert rows.scatter_dstate(last)[0].ravel().tolist() == [0, 1]  # S_0 of row 0 is not used


def test_a_reset_in_reverse_is_before_the_step_that_is_processed_next() -> None:
    reset = [[False], [True], [False]]
    rows = read_row_map((3, 1), reset=reset, reverse=True)
    #  2 from S_0, then 1 and 0 from zeros
    assert rows.gather(PADDED[:, :1]).ravel().tolist() == [10, 20, 0]
    assert rows.gather_state((np.array([[5.0]]),))[0].ravel().tolist() == [0, 5]


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 2), {}),
        ((3, 2), {"lengths": [3, 3]}),
        ((3, 2), {"reset": np.zeros((3, 2), bool)}),
        ((1, 2), {"reverse": True}),
        ((2, 1), {"batch_first": True}),
        ((5,), {"batch_sizes": [2, 2, 1]}),
    ],
)
def test_nothing_is_copied_where_rows_are_what_they_were(
    shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    rows = read_row_map(shape, **options)
    x = np.zeros((*shape, 4))
    state = (np.zeros((rows.batch, 4)),)
    assert np.may_share_memory(rows.gather(x), x)
    assert np.may_share_memory(rows.scatter(rows.gather(x)), x)
    for move in (rows.gather_state, rows.scatter_state, rows.gather_dstate, rows.scatter_dstate):
        assert move(state) is state


@settings(max_examples=200, deadline=None, derandomize=True)
@given(case=cases())
def test_a_map_is_what_a_walk_through_the_pieces_finds(case: Case) -> None:
    rows = read_row_map(case.shape, **case.options)
    source = np.arange(np.prod(case.shape, dtype=int)).reshape(case.shape)
    pieces = sorted(case.pieces(), key=lambda piece: -len(piece.times))  # stable
    steps = max((len(piece.times) for piece in pieces), default=0)
    expected = [
        int(source[case.place(piece.times[t], piece.row)])
        for t in range(steps)
        for piece in pieces
        if t < len(piece.times)
    ]
    assert rows.gather(source).ravel().tolist() == expected
    assert rows.inner_batch == len(pieces)
    active = [sum(len(piece.times) > t for piece in pieces) for t in range(steps)]
    if rows.offsets is None:
        assert set(active) <= {len(pieces)}
    else:
        assert np.diff(rows.offsets).tolist() == active
        assert rows.offsets[0] == 0
    back = rows.scatter(rows.gather(source + 1)).ravel()
    assert np.flatnonzero(back).tolist() == sorted(expected)
    assert (back[expected] - 1).tolist() == expected
    check_states(rows, case, pieces)


def check_states(rows: RowMap, case: Case, pieces: list[Any]) -> None:
    state = (1 + np.arange(case.batch)[:, None],)
    enters = [1 + p.row if p.first and not p.anew else 0 for p in pieces]
    ends = [1 + p.row if p.last else 0 for p in pieces]
    assert rows.gather_state(state)[0].ravel().tolist() == enters
    assert rows.gather_dstate(state)[0].ravel().tolist() == ends
    inner = (1 + np.arange(len(pieces))[:, None],)
    final, initial = np.zeros((2, case.batch), int)
    for n, piece in enumerate(pieces):
        if piece.last:
            final[piece.row] = 1 + n
        if piece.first and not piece.anew:
            initial[piece.row] = 1 + n
    assert rows.scatter_state(inner)[0].ravel().tolist() == final.tolist()
    assert rows.scatter_dstate(inner)[0].ravel().tolist() == initial.tolist()


def test_steps_of_sequences_are_found_where_the_caller_has_them() -> None:
    rows = read_row_map((3, 3), lengths=LENGTHS, batch_first=True)
    x = np.ascontiguousarray(PADDED.T).ravel()
    sequence, place = rows.rows_at(None)
    assert sequence.tolist() == [0, 2]
    assert x[place].tolist() == [20, 12]
    sequence, place = rows.rows_at(2)
    assert sequence.tolist() == [0]
    assert x[place].tolist() == [20]
    sequence, place = dense_rows(3, 2).rows_at(1)
    assert place.tolist() == [2, 3]


F = [False, False]


@pytest.mark.parametrize(
    ("shape", "options", "error", "words"),
    [
        ((3, 2), {"lengths": [3, 4]}, ValueError, "lengths: expected lengths from 0 to 3, .* 4"),
        ((3, 2), {"lengths": [-1, 3]}, ValueError, "lengths: .*from -1"),
        ((3, 2), {"lengths": [3]}, ValueError, r"lengths: expected shape \(2,\).*got \(1,\)"),
        ((3, 2), {"lengths": 3}, TypeError, "lengths: expected .*got int"),
        ((3, 2), {"lengths": [[3, 3]]}, ValueError, r"lengths: expected shape \(2,\)"),
        ((3, 2), {"lengths": [3.0, 2.0]}, TypeError, "lengths: expected integers, got .*float64"),
        ((3, 2), {"lengths": [True, False]}, TypeError, "lengths: expected integers, got .*bool"),
        ((3, 2), {"lengths": [2**70, 1]}, TypeError, "lengths: expected integers"),
        ((3, 2), {"lengths": [2**63, 1]}, (TypeError, ValueError), "lengths: expected"),
        ((3, 2), {"lengths": [[1], [1, 2]]}, ValueError, "lengths: expected a list"),
        ((3, 2), {"lengths": "32"}, TypeError, "lengths: expected .*got str"),
        ((4,), {"batch_sizes": [1, 3]}, ValueError, "batch_sizes: .*never grow, got 1 and then 3"),
        ((4,), {"batch_sizes": [4, 0]}, ValueError, "batch_sizes: .*at least 1, got 0"),
        ((4,), {"batch_sizes": [5, -1]}, ValueError, "batch_sizes: .*at least 1, got -1"),
        ((4,), {"batch_sizes": [2, 1]}, ValueError, "batch_sizes: expected a sum of 4, .*got 3"),
        ((4,), {"batch_sizes": [2**62] * 4}, ValueError, "batch_sizes: expected a sum of 4"),
        ((4,), {"batch_sizes": [2.0, 2.0]}, TypeError, "batch_sizes: expected integers"),
        ((4,), {"batch_sizes": [[2, 2]]}, ValueError, r"batch_sizes: expected shape \(T,\)"),
        ((4,), {"batch_sizes": [2, 2], "lengths": [2, 2]}, ValueError, "lengths: .*got both"),
        ((4,), {"batch_sizes": [2, 2], "batch_first": True}, ValueError, "batch_first: .*True"),
        ((4,), {"batch_sizes": [2, 2], "reset": [F, F]}, ValueError, r"reset: .*\(4,\)"),
        ((3, 2), {"reset": [F, F]}, ValueError, r"reset: expected shape \(3, 2\).*got \(2, 2\)"),
        ((2, 3), {"reset": [F] * 3, "batch_first": True}, ValueError, r"reset: .*\(2, 3\)"),
        ((2, 2), {"reset": [[0, 1], [1, 0]]}, TypeError, "reset: expected an array of bools"),
        ((2, 2), {"reset": True}, TypeError, "reset: expected .*got bool"),
        ((2, 2), {"reverse": 1}, TypeError, "reverse: expected True or False, got int"),
        ((2, 2), {"batch_first": "yes"}, TypeError, "batch_first: expected True or False"),
    ],
)
def test_bad_descriptions_are_refused_by_name(
    shape: tuple[int, ...], options: dict[str, Any], error: Any, words: str
) -> None:
    with pytest.raises(error, match=rf"^{words}"):
        read_row_map(shape, **options)
