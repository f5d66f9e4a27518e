"""The quick tier has few cases, in which every pair of values meets; the rest has all others."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations, product
from pathlib import Path

import pytest
from covering import pairwise

PRODUCT = list(product(range(11), range(3), "abcdef", (True, False), (True, False)))


def pairs(cases: list[tuple]) -> set:
    return {pair for case in cases for pair in combinations(enumerate(case), 2)}


@pytest.mark.parametrize("leave_out", [(), ((0, 3), (2, "a")), ((1, 2), (3, True))], ids=str)
def test_every_pair_that_meets_in_any_case_meets_in_a_chosen_one(leave_out: tuple) -> None:
    cases = [c for c in PRODUCT if not leave_out or any(c[n] != value for n, value in leave_out)]
    chosen = [cases[n] for n in pairwise(cases)]
    assert pairs(chosen) == pairs(cases)
    assert len(chosen) <= 1.2 * 11 * 6  # the two longest parameters need so many already


def test_one_parameter_has_all_its_values_and_none_is_one_case() -> None:
    assert pairwise([(value,) for value in "abc"]) == [0, 1, 2]
    assert pairwise([()]) == [0]
    assert pairwise([]) == []


def test_the_two_tiers_share_no_case_and_leave_none_out() -> None:
    quick, rest, everything = (collected(tier) for tier in ("quick", "rest", "all"))
    assert quick
    assert rest
    assert not quick & rest
    assert quick | rest == everything
    assert not [case for case in everything if "native" in case and "mgu" in case]


def test_the_choice_is_the_same_before_cases_are_made_and_afterwards() -> None:
    file = "test_backends_agree.py"  # some of whose tests are marked
    assert collected("quick", file) == collected("quick", file, "-k", "test_")


def collected(tier: str, *arguments: str) -> set[str]:
    """The cases that `--tier` chooses of one file."""
    arguments = arguments or ("test_trace.py",)
    command = ["-m", "pytest", "--collect-only", "--quiet", "--tier", tier, *arguments]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return {line for line in done.stdout.splitlines() if "::" in line}
