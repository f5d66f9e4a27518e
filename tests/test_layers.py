"""Arrows between layers point one way: read from the imports and includes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "bptt"

# --- C++ ---------------------------------------------------------------------------------------

# What each layer may include besides itself. contract/ is plain data: any layer may see it.
MAY_INCLUDE = {
    "contract": set(),
    "simd": set(),
    "gemm": {"contract", "simd"},
    "cells": {"contract", "simd"},
    "losses": {"contract", "simd"},
    "cuda": {"simd", "cells"},
    "isa": {"contract", "simd", "gemm", "cells", "losses"},
    "dispatch": {"contract"},
    "engine": {"contract", "dispatch"},
    "sequences": {"contract", "dispatch", "engine"},
    "c": {"contract", "dispatch", "engine", "sequences"},
    "bindings": {"contract", "dispatch", "engine", "sequences"},
}
OUTSIDE = {"bindings": {"xla"}, "c": {"bptt"}}  # headers in quotes that are not in csrc
CPP_SUFFIXES = {".h", ".hpp", ".inl", ".cpp", ".cc", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def cpp_files() -> list[Path]:
    return [path for path in sorted(CSRC.rglob("*")) if path.suffix in CPP_SUFFIXES]


def test_every_layer_has_files_and_every_file_a_layer() -> None:
    found = {path.relative_to(CSRC).parts[0] for path in cpp_files()}
    assert found == set(MAY_INCLUDE)


@pytest.mark.parametrize("layer", MAY_INCLUDE)
def test_a_layer_includes_only_layers_below_it(layer: str) -> None:
    allowed = MAY_INCLUDE[layer] | {layer}
    wrong = []
    for path in cpp_files():
        if path.relative_to(CSRC).parts[0] != layer:
            continue
        for quote, name in INCLUDE.findall(path.read_text()):
            if quote == '"' and name.split("/")[0] not in {*allowed, *OUTSIDE.get(layer, ())}:
                wrong.append(f"{path.relative_to(ROOT)} includes {name}")
            outside = name.split("/")[0] in OUTSIDE.get(layer, ())
            assert (quote == '"') == ((CSRC / name).exists() or outside), f"{path}: {name}"
    assert not wrong


def test_only_the_bindings_know_python() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} includes {name}"
        for path in cpp_files()
        for _, name in INCLUDE.findall(path.read_text())
        if path.relative_to(CSRC).parts[0] != "bindings"
        and re.match(r"pybind11|Python\.h|numpy", name)
    ]
    assert not wrong
    bindings = "".join(path.read_text() for path in cpp_files() if "bindings" in path.parts)
    assert "#include <pybind11/pybind11.h>" in bindings


# --- Python ------------------------------------------------------------------------------------

# From below to above; a module may import those of lower rank, and backends/ is one module.
RANKS = (
    ("compiled", "control_groups", "threadpoolctl"),
    ("layer_options", "library", "memory", "peaks", "pointwise", "progress", "releasing", "ticks"),
    ("checks",),
    ("array_libraries", "budget", "cells"),
    ("custom_cell", "files", "threads", "subnormals", "layouts", "states"),
    ("layer_arguments",),
    ("row_copies",),
    ("param_arrays", "param_readers", "row_map"),
    ("params", "sequence_options"),
    ("holdings", "stack"),
    ("grads", "initial", "losses"),
    ("wanted",),
    ("outputs",),
    ("backends",),
    ("device_plan",),
    ("checkpoints", "recorded", "info", "inputs", "plan", "stream"),
    ("linearized", "truncation"),
    ("tape", "stepper"),
    ("reused_tape",),
    ("stacked",),
    ("on_gpu",),
    ("forward_pass", "gradient", "prediction"),
    ("gradient_check", "lags", "jacobians"),
    ("__init__",),
    ("torch", "jax"),
    ("cli",),
    ("__main__",),
)
RANK = {module: rank for rank, modules in enumerate(RANKS) for module in modules}
# What a layer above __init__ may name of the package: its public names, and these.
FRONT = ("torch", "jax", "cli", "__main__")
SHARED = ("checks", "files", "ticks")
# A front end hands its framework's arrays to a backend, and what is saved to the framework.
OF_FRONT_ENDS = {
    "torch": (
        "array_libraries",
        "backends",
        "cells",
        "compiled",
        "layer_arguments",
        "params",
        "row_map",
        "sequence_options",
        "states",
        "subnormals",
        "threads",
    ),
    "cli": ("backends",),  # their names
    "jax": ("cells", "compiled", "layer_arguments", "params", "sequence_options", "states"),
}


def module_of(path: Path) -> str:
    """The unit of the package that a file belongs to: a module, or a folder."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """The units of the package that a file imports, also inside functions."""
    parts = ("bptt", *path.relative_to(PACKAGE).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(parts[: -node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [".".join([*base, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        for name in names:
            if name.split(".")[0] == "bptt":
                unit = [*name.split("."), "__init__"][1]
                is_unit = unit == "_core" or (PACKAGE / unit).is_dir()
                is_unit = is_unit or (PACKAGE / f"{unit}.py").exists()
                found.add(unit if is_unit else "__init__")
    return found


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_rank() -> None:
    units = {module_of(path) for path in python_files()}
    assert units <= set(RANK), f"no rank for {units - set(RANK)}"
    assert {"backends", "tape", "gradient", "checks"} <= units


def test_the_diagram_of_the_architecture_has_every_module() -> None:
    diagram = (ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    python = diagram.split("csrc/")[0]
    written = {unit for unit in map(module_of, python_files()) if not unit.startswith("__")}
    assert written <= set(re.findall(r"\w+", python))


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_modules_below_it(path: Path) -> None:
    unit = module_of(path)
    for other in imported(path) - {unit}:
        if other == "_core":
            assert path == PACKAGE / "compiled.py", f"{path.name} imports _core"
        elif unit in {"info", "threadpoolctl"} and other == "__init__":
            continue  # the version, read when it is asked for
        else:
            assert RANK[other] < RANK[unit], f"{unit} imports {other}"
        if unit in FRONT:
            allowed = (*SHARED, *OF_FRONT_ENDS.get(unit, ()))
            public = RANK[other] >= RANK["__init__"] or other in allowed
            assert public, f"{unit} imports {other}"


# An import that is no arrow between layers: the version, read from the front when it is asked for.
OF_THE_VERSION = {("bptt.info", "bptt"), ("bptt.threadpoolctl", "bptt")}


def imports_by_module() -> dict[str, set[str]]:
    """The modules that each module names in an import: at the top, in functions, for types."""
    names = {}
    for path in python_files():
        parts = ("bptt", *path.relative_to(PACKAGE).with_suffix("").parts)
        names[path] = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    modules = set(names.values())
    found: dict[str, set[str]] = {}
    for path, module in names.items():
        package = module.split(".")[: None if path.name == "__init__.py" else -1]
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found[module] |= {alias.name for alias in node.names} & modules
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                source = ".".join([*base, *([node.module] if node.module else [])])
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    found[module] |= {inner if inner in modules else source} & modules
    return found


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one node, or of one with a loop."""

    def reached(start: str) -> set[str]:
        seen, ahead = set(), [start]
        while ahead:
            new = arrows[ahead.pop()] - seen
            seen |= new
            ahead += new
        return seen

    reach = {node: reached(node) for node in arrows}
    within = {frozenset(b for b in reach[a] if a in reach[b]) for a in arrows}
    return [set(circle) for circle in within if circle]


def test_circles_are_found() -> None:
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}, "e": set()}
    assert sorted(map(sorted, circles(arrows))) == [["b", "c"], ["d"]]


def test_no_modules_import_each_other() -> None:
    """Not even in functions or for their types: each can be read without those that use it."""
    arrows = imports_by_module()
    assert {"bptt.lags.result", "bptt.ticks"} <= arrows.keys()
    assert "bptt.lags.plots" in arrows["bptt.lags.result"]  # in a function
    assert "bptt.lags.record" in arrows["bptt.lags.plots"]  # for a type
    for module, other in OF_THE_VERSION:
        arrows[module].remove(other)
    found = [{a: arrows[a] & circle for a in circle} for circle in circles(arrows)]
    assert not found, f"modules that import each other: {found}"


def test_one_module_imports_the_compiled_one() -> None:
    users = [path for path in python_files() if "_core" in imported(path)]
    assert users == [PACKAGE / "compiled.py"]


def test_backends_know_nothing_of_each_other() -> None:
    shared = (
        "aligned",
        "by_rows",
        "data",
        "in_segments",
        "one_step",
        "parts",
        "plain_readout",
        "protocol",
    )
    for path in (PACKAGE / "backends").glob("*.py"):
        if path.stem in ("__init__", *shared):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                for name in names:
                    own = name in shared or name.split("_")[0] == path.stem.split("_")[0]
                    assert own, f"{path.name} imports {name}"


@pytest.mark.parametrize(
    "package",
    ["numba", "cuda", "torch", "jax", "flax", "equinox", "matplotlib", "sklearn", "tqdm"],
)
def test_optional_packages_are_imported_where_they_are_used_and_nowhere_else(
    package: str,
) -> None:
    homes = {"numba": ("backends",), "cuda": ("backends",), "jax": ("jax",)}
    homes |= {"torch": ("torch", "layouts", "array_libraries")}
    homes |= {"flax": ("jax",), "equinox": ("jax",)}
    homes |= {
        "matplotlib": ("cli", "lags", "jacobians", "ticks"),
        "tqdm": ("cli", "lags", "progress"),
    }
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            if any(name.split(".")[0] == package for name in names):
                assert module_of(path) in homes.get(package, ("cli",)), path
