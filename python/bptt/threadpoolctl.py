"""Lets the limits of threadpoolctl hold for this package, without importing threadpoolctl."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["join"]

NAME = "threadpoolctl"


def join(get_num_threads: Callable[[], int], set_num_threads: Callable[[int], None]) -> None:
    """Have threadpoolctl use the two functions: now, or as soon as somebody imports it."""

    def register(module: Any) -> None:
        if hasattr(module, "register"):  # since threadpoolctl 3.2
            module.register(_controller(module, get_num_threads, set_num_threads))

    if NAME in sys.modules:
        register(sys.modules[NAME])
    else:
        sys.meta_path.insert(0, _AfterImport(register))


def _controller(
    module: Any, get_num_threads: Callable[[], int], set_num_threads: Callable[[int], None]
) -> type:
    class Controller(module.LibController):  # type: ignore[misc, unused-ignore]
        user_api = internal_api = "bptt"
        filename_prefixes = ("_core",)
        check_symbols = ("bptt_core",)  # other packages have a _core as well

        def get_num_threads(self) -> int:
            return get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            set_num_threads(num_threads)

        def get_version(self) -> str:
            from . import __version__

            return __version__

    return Controller


class _AfterImport:
    """A finder that has `then` called on threadpoolctl as soon as that is loaded.

    Limits may be set right after the import, with no call of this package in between: there is no
    later moment to notice that it has happened.
    """

    def __init__(self, then: Callable[[ModuleType], None]) -> None:
        self._then = then

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != NAME:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = _Loader(spec.loader, self._loaded)
            spec.loader = loader
        return spec

    def _loaded(self, module: ModuleType) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self._then(module)


class _Loader:
    """Another loader, and a call with the module afterwards."""

    def __init__(self, loader: Any, then: Callable[[ModuleType], None]) -> None:
        self._loader, self._then = loader, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # What is there afterwards is as it would be without this, to copy or to pickle.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._then(module)
