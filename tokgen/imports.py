"""Change what happens when another package's module is imported, without importing it now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["Execute", "Wrapper", "wrap_import"]

Execute = Callable[[ModuleType], None]  # runs the code of a module
Wrapper = Callable[[Execute, ModuleType], None]  # called in its place

_WRAPPERS: dict[str, Wrapper] = {}


class _Finder(MetaPathFinder):
    """Finds modules as the other finders do, and puts the wrappers around their code."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        wrapper = _WRAPPERS.get(fullname)
        if wrapper is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: wrapper(execute, module)  # type: ignore[method-assign]
        return spec


_FINDER = _Finder()


def wrap_import(name: str, wrapper: Wrapper) -> None:
    """Call `wrapper(execute, module)` in place of `execute(module)` when a module is imported.

    A module that is imported already stays as it is. A second wrapper replaces the first.

    Args:
        name: of the module, such as "transformers.models.auto.modeling_auto".
        wrapper: it should call `execute(module)`, which runs the module's code.
    """
    _WRAPPERS[name] = wrapper
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
