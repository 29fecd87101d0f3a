"""Calls a function as soon as another package has been imported, without importing it."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than all else here
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader, MetaPathFinder
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any
else:
    Loader = MetaPathFinder = object


def when_imported(package: str, function: Callable[[], Any]) -> None:
    """Calls a function once a package has been imported; now, if it has been already."""
    if sys.modules.get(package) is not None:
        function()
    else:
        sys.meta_path.insert(0, _Finder(package, function))


class _Finder(MetaPathFinder):
    """Stands before all other finders, and gives what they find a loader that tells."""

    def __init__(self, package: str, function: Callable[[], Any]) -> None:
        self.package, self.function = package, function

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.package or self not in sys.meta_path:
            return None
        after = sys.meta_path[sys.meta_path.index(self) + 1 :]
        find = (finder.find_spec for finder in after if hasattr(finder, "find_spec"))
        specs = (find_spec(name, path, target) for find_spec in find)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(self, spec.loader)
        return spec


class _Loader(Loader):
    """Loads a package by its own loader, which it leaves in its place."""

    def __init__(self, finder: _Finder, own: Loader) -> None:
        self.finder, self.own = finder, own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.own
        if module.__spec__ is not None:
            module.__spec__.loader = self.own
        self.own.exec_module(module)
        # Not before this: a package that couldn't be imported may be at the next attempt.
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)
            self.finder.function()

    def __getattr__(self, name: str) -> Any:
        if name == "own":  # not there yet, as while it is copied
            raise AttributeError(name)
        return getattr(self.own, name)
