"""A few cases of a test in which every pair of parameter values still meets.

Most faults need one value or two that meet, such as an LSTM in float32; few need three (Kuhn,
Wallace & Gallo 2004, *Software fault interactions and implications for software testing*, IEEE
Trans. Softw. Eng. 30, table 2). So the quick tier runs a pairwise covering array of each test, and
the other tier the rest of the product.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from heapq import heapify, heappop, heappush
from itertools import combinations

Case = Sequence[Hashable]  # a value of each parameter, in one order for all cases


def pairwise(cases: Sequence[Case]) -> list[int]:
    """Indices of cases among which every pair meets that meets in any case.

    Greedy: always the case with the most pairs that have not met, the first of several. Of a test
    with one parameter every value is there, and a test without any is one case.
    """
    pairs = [_pairs(case) for case in cases]
    missing = set().union(*pairs)
    # How many pairs of a case are missing, as it was last counted: it has no more than that.
    counts = [(-len(of_case), n) for n, of_case in enumerate(pairs)]
    heapify(counts)
    chosen = []
    while missing:
        counted, best = heappop(counts)
        new = -len(pairs[best] & missing)
        if new > counted:
            heappush(counts, (new, best))
            continue
        chosen.append(best)
        missing -= pairs[best]
    return sorted(chosen)


def _pairs(case: Case) -> set[tuple[tuple[int, Hashable], ...]]:
    return set(combinations(enumerate(case), min(2, len(case))))
