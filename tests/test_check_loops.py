"""The check of the hot loops' assembly sees what does not belong there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("check_loops", ROOT / ".ci" / "check-loops.py")
check_loops = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = check_loops  # where dataclasses look for it
_spec.loader.exec_module(check_loops)

TILE = "product_tile<float, 2, 1, 0>"
LOOP = [
    "vmovups (%rdx),%zmm0",
    "vbroadcastss (%rax),%zmm1",
    "vfmadd231ps %zmm0,%zmm1,%zmm2",
    "vfmadd231ps (%rdx),%zmm1,%zmm3",
    "prefetcht0 0x40(%rdx)",
    "add    $0x40,%rdx",
    "add    $0x4,%rax",
    "cmp    %rcx,%rax",
]


def listing(loop, name=TILE, before=(), after=(), jump="jne"):
    """What objdump prints of a function with such a loop, a byte for each instruction."""
    first = len(before)
    code = [*before, *loop, f"{jump}    {first:x} <f+0x{first:x}>", *after, "ret"]
    lines = [f"{place:8x}:\t{line}" for place, line in enumerate(code)]
    head = f"0000000000000000 <void bptt::avx512::{name}(bptt::Product<float> const&, long)>:"
    return "\n".join(["", "a.o:     file format elf64-x86-64", "", head, *lines, ""])


def test_a_loop_of_what_it_needs_has_no_fault():
    (loop,) = check_loops.loops(listing(LOOP, before=["push   %rbp", "mov    0x8(%rsp),%rax"]))
    assert loop == check_loops.Loop(
        TILE, fmas=2, loads=2, broadcasts=1, prefetches=1, integers=4, stack=0, moves=0, others=0
    )
    assert not [*loop.faults()]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("vmovaps %zmm2,0x40(%rsp)", "1 accesses to the stack"),
        ("vfmadd231ps 0x40(%rsp),%zmm1,%zmm2", "1 accesses to the stack"),
        ("mov    0x40(%rsp),%rbx", "1 accesses to the stack"),
        ("vmovaps %zmm2,%zmm4", "1 moves of vectors"),
        ("vaddps %zmm2,%zmm4,%zmm4", "1 other instructions"),
        ("inc    %rbx", "5 integer instructions, 4 are needed"),
    ],
)
def test_a_line_that_does_not_belong_there_is_a_fault(line, fault):
    (loop,) = check_loops.loops(listing([line, *LOOP]))
    assert any(fault in found for found in loop.faults())


def test_the_frame_pointer_is_the_stack_only_where_it_is_one():
    (loop,) = check_loops.loops(listing(["vmovups 0x40(%rbp),%zmm0", *LOOP]))
    assert loop.stack == 0
    framed = listing(["vmovups -0x40(%rbp),%zmm0", *LOOP], before=["mov    %rsp,%rbp"])
    assert check_loops.loops(framed)[0].stack == 1


def test_only_the_innermost_loop_counts_wherever_its_code_lies():
    """Around it is a loop that uses the stack; its own code lies behind that one's."""
    before = ["mov    (%rsp),%rax", "jmp    5 <f+0x5>", "cmp    %rsi,%rdi", "jne    0 <f>", "ret"]
    (loop,) = check_loops.loops(listing(LOOP, before=before, after=["jmp    2 <f+0x2>"]))
    assert (loop.fmas, loop.stack, loop.integers) == (2, 0, 4)


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("product_tile<double, 6, 4, 0>", 4),
        ("product_tile<double, 6, 4, 2>", 5),
        ("product_row<float>", 5),
        ("outer_tile<float, 2, 1, FetchNothing<float, 1> >", 4),
        ("outer_tile<float, 1, 2, FetchAhead<float, 2> >", 4),
    ],
)
def test_each_pointer_more_is_an_instruction_more(name, needed):
    (loop,) = check_loops.loops(listing(LOOP, name))
    assert loop.needed == needed
    (by_four,) = check_loops.loops(listing([*LOOP[:4] * 4, *LOOP[4:]], name))
    assert by_four.needed == needed + 2 * name.startswith("outer")


def test_a_full_tile_that_is_not_there_is_a_fault(capsys):
    faults = check_loops.check("avx512", listing(LOOP, "product_tile<float, 6, 4, 0>"))
    assert "avx512: no loop of product_tile<double, 6, 4, 0>" in faults
    assert "avx512: no loop of product_tile<float, 6, 4, 0>" not in faults
    assert "product_tile<float, 6, 4, 0>" in capsys.readouterr().out


def test_what_is_not_checked_is_said(tmp_path, capsys, monkeypatch):
    compiler = tmp_path / "CMakeFiles" / "3.31" / "CMakeCXXCompiler.cmake"
    compiler.parent.mkdir(parents=True)
    compiler.write_text('set(CMAKE_CXX_COMPILER_ID "Clang")\n')
    monkeypatch.setattr(check_loops.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(check_loops.shutil, "which", lambda name: "/usr/bin/objdump")
    assert check_loops.main(tmp_path) == 0
    assert "loops are not checked: the compiler was not GCC" in capsys.readouterr().out
    compiler.write_text('set(CMAKE_CXX_COMPILER_ID "GNU")\n')
    assert check_loops.main(tmp_path) == 2  # a build, but without the objects
    monkeypatch.setattr(check_loops.shutil, "which", lambda name: None)
    assert check_loops.main(tmp_path) == 0
    assert "objdump is not installed" in capsys.readouterr().out
