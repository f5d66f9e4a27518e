#!/usr/bin/env python3
"""Checks the innermost loops of the products in a build folder: nothing but what the sum needs.

    .ci/check-loops.py build/release

Of every tile that the kernels of AVX2 and AVX-512 have, from the disassembly of their object files:
no access to the stack, which is a register too few; no sum moved from register to register; and of
integer instructions only those of `Loop.needed`. Prints what each loop of a full tile holds.

Needs objdump, and objects by GCC on x86-64; where one of these is missing it says so and ends well.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

# Per instruction set the loops that have to be there, by their function's name for float and double
# without namespaces: whoever changes a tile or renames it looks here. The others are checked like
# them, and not shown.
FULL_TILES = {
    "avx2": (
        *("product_tile<{}, 3, 4, 0>", "product_row<{}>"),
        "outer_tile<{}, 4, 3, FetchAhead<{}, 3> >",
    ),
    "avx512": (
        *("product_tile<{}, 6, 4, 0>", "product_tile<{}, 6, 4, 1>", "product_tile<{}, 6, 4, 2>"),
        *("product_row<{}>", "outer_tile<{}, 8, 3, FetchAhead<{}, 3> >"),
        *("outer_tile<{}, 8, 3, FetchNext<{}, 3> >", "outer_tile<{}, 8, 3, FetchNothing<{}, 3> >"),
    ),
}


class Instruction(NamedTuple):
    """A line of the disassembly, in AT&T's syntax: the destination comes last."""

    address: int
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where it jumps to."""
        found = re.match(r"([0-9a-f]+)\b", self.operands) if self.name[0] == "j" else None
        return int(found[1], 16) if found else None


@dataclass
class Loop:
    """What the innermost loop of a function holds."""

    function: str
    fmas: int = 0
    loads: int = 0  # of whole vectors, those by a multiply-add, too
    broadcasts: int = 0
    prefetches: int = 0
    integers: int = 0
    stack: int = 0  # instructions that read or write it
    moves: int = 0  # of vectors, between registers
    others: int = 0  # of vectors: what is none of the above

    def add(self, instruction: Instruction) -> None:
        _, name, operands = instruction
        memory = "(" in operands
        self.stack += "(%rsp" in operands
        if name.startswith("vfmadd"):
            self.fmas += 1
            self.loads += memory
        elif name.startswith("vbroadcast"):
            self.broadcasts += 1
        elif name.startswith("vmov") and memory and not operands.endswith(")"):
            self.loads += 1
        elif name.startswith("vmov") and not memory:
            self.moves += 1
        elif name.startswith("v"):
            self.others += 1
        elif name.startswith("prefetch"):
            self.prefetches += 1
        else:
            self.integers += 1

    @property
    def needed(self) -> int:
        """The integer instructions that it needs at most."""
        if not self.function.startswith("outer"):
            # Of a product the pointers to the rows and to each panel, a comparison and a jump.
            ahead = re.match(r"product_tile<.*, [1-9]\d*>", self.function)
            return 5 if ahead or self.function.startswith("product_row") else 4
        # Pointers left and right, the count of rows and a jump. Where four rows are one round,
        # apart by what no compiler knows, right moves twice, and the count has a comparison.
        tile = re.match(r"outer_tile<\w+, (\d+), (\d+)", self.function)
        needed = 6 if tile and self.fmas == 4 * int(tile[1]) * int(tile[2]) else 4
        # The rows of the next panel are not as many: a pointer, a test and a jump.
        return needed + 3 * ("FetchNext" in self.function)

    def faults(self) -> Iterator[str]:
        if self.stack:
            yield f"{self.stack} accesses to the stack"
        if self.moves or self.others:
            yield f"{self.moves} moves of vectors, {self.others} other instructions with them"
        if self.integers > self.needed:
            yield f"{self.integers} integer instructions, {self.needed} are needed"


def functions(listing: str) -> Iterator[tuple[str, list[Instruction]]]:
    """The functions of the products in the output of objdump, without namespaces and arguments."""
    for block in listing.split("\n\n"):
        head = re.match(r"\s*[0-9a-f]+ <(.*)>:\n", block)
        if not head:
            continue
        name = re.sub(r"bptt::(\w+::)?|\(.*|^(void|double) ", "", head[1])
        if not re.match(r"(product|outer|add_up|fma_tile)", name):
            continue
        if re.search(r"\tmov +%rsp,%rbp", block):  # else it is a register like others
            block = block.replace("(%rbp", "(%rsp")
        lines = re.findall(r"^ *([0-9a-f]+):\t(\S+) *([^#\n]*)", block, re.MULTILINE)
        yield name, [Instruction(int(a, 16), op, rest.strip()) for a, op, rest in lines]


def innermost_loops(code: list[Instruction]) -> Iterator[list[Instruction]]:
    """The natural loops of a function that have no other in them (Aho et al., Compilers, 9.6)."""
    place: dict[int | None, int] = {instruction.address: i for i, instruction in enumerate(code)}
    after: list[list[int]] = []
    for i, instruction in enumerate(code):
        ends = instruction.name.startswith(("jmp", "ret"))
        nexts = [] if ends or i + 1 == len(code) else [i + 1]
        if instruction.target in place:
            nexts.append(place[instruction.target])
        after.append(nexts)
    before: list[list[int]] = [[] for _ in code]
    for i, nexts in enumerate(after):
        for n in nexts:
            before[n].append(i)
    bodies: dict[int, set[int]] = {}  # by the first instruction
    for first, last in _back_edges(after):
        body = bodies.setdefault(first, {first})
        open_ = [last]
        while open_:
            if (i := open_.pop()) not in body:
                body.add(i)
                open_ += before[i]
    for first, body in bodies.items():
        if not any(other in body for other in bodies if other != first):
            yield [code[i] for i in sorted(body)]


def _back_edges(after: list[list[int]]) -> Iterator[tuple[int, int]]:
    """(to, from) of each edge that a search in depth from the entry finds to lead back."""
    begun, left = {0}, set()
    path = [(0, iter(after[0]))]
    while path:
        at, nexts = path[-1]
        for n in nexts:
            if n in begun and n not in left:
                yield n, at
            elif n not in begun:
                begun.add(n)
                path.append((n, iter(after[n])))
                break
        else:
            left.add(at)
            path.pop()


def loops(listing: str) -> list[Loop]:
    """Those with multiply-adds of the products in what objdump printed."""
    found = []
    for name, code in functions(listing):
        for body in innermost_loops(code):
            loop = Loop(name)
            for instruction in body:
                loop.add(instruction)
            if loop.fmas:
                found.append(loop)
    return found


def check(isa: str, listing: str) -> list[str]:
    """Print the loops of full tiles, and return what is wrong with any."""
    found = loops(listing)
    columns = [field.name for field in fields(Loop)][1:]
    faults = []
    print(f"{isa}: {len(found)} innermost loops; of full tiles:")
    print("".join(f"{name:>11}" for name in columns), " needed")
    for pattern in FULL_TILES[isa]:
        for dtype in ("float", "double"):
            name = pattern.replace("{}", dtype)
            full = [loop for loop in found if loop.function == name]
            if not full:
                faults.append(f"{isa}: no loop of {name}")
            for loop in full:
                counts = "".join(f"{getattr(loop, column):11}" for column in columns)
                print(f"{counts}{loop.needed:8}  {name}")
    for loop in found:
        faults += [f"{isa}: {loop.function}, a loop of {loop.fmas}: {f}" for f in loop.faults()]
    return faults


def reason_to_skip(build: Path) -> str | None:
    """Why there is nothing to check."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"no AVX on {platform.machine()}"
    if shutil.which("objdump") is None:
        return "objdump is not installed"
    compilers = build.glob("CMakeFiles/*/CMakeCXXCompiler.cmake")
    if not any('CMAKE_CXX_COMPILER_ID "GNU"' in path.read_text("utf-8") for path in compilers):
        return "the compiler was not GCC, for which the loops are written"
    return None


def main(build: Path) -> int:
    """The exit status."""
    if not build.is_dir():
        print(f"{build}: no such folder", file=sys.stderr)
        return 2
    if reason := reason_to_skip(build):
        print(f"loops are not checked: {reason}")
        return 0
    faults = []
    for isa in FULL_TILES:
        objects = [*build.glob(f"**/csrc/isa/{isa}.cpp.o")]
        if len(objects) != 1:
            print(f"{build}: {len(objects)} objects of {isa}, expected one", file=sys.stderr)
            return 2
        command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(objects[0])]
        faults += check(isa, subprocess.check_output(command, text=True))
    print(*faults, sep="\n")
    print(f"{len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
