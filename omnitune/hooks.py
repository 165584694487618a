"""Makes exported models load by transformers' Auto classes, without importing either beforehand.

``import omnitune`` stays quick: what is registered is a promise. It is kept when somebody asks
the Auto classes for a model of this type.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

MODEL_TYPE = "omnitune"
# Named, not imported: it lies above the ground floor, and takes seconds to load.
REGISTER = "omnitune.models.registration:register"
# By module of transformers, its mapping that models of others are registered in.
MAPPINGS = {
    "transformers.models.auto.configuration_auto": "CONFIG_MAPPING",
    "transformers.models.auto.processing_auto": "PROCESSOR_MAPPING",
}


class Promised(dict[Any, Any]):
    """What a mapping of transformers holds of others' models; ours join when they are asked for."""

    def _keep(self, key: object = MODEL_TYPE) -> None:
        if key == MODEL_TYPE and not super().__contains__(key):
            resolve_name(REGISTER)()

    def __contains__(self, key: object) -> bool:
        self._keep(key)
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        self._keep(key)
        return super().__getitem__(key)

    def values(self) -> Any:
        """Asked for by who looks for a class by its name."""
        self._keep()
        return super().values()


def promise(module: ModuleType) -> None:
    """Enters the promise into a module's mapping; nothing if this version has another one."""
    mapping: Any = getattr(module, MAPPINGS[module.__name__], None)
    extra = getattr(mapping, "_extra_content", None)
    if type(extra) is dict:
        mapping._extra_content = Promised(extra)


class _Loader(Loader):
    """Loads a module as another loader does, then enters the promise."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        promise(module)


class _Finder(MetaPathFinder):
    """Waits for the modules of ``MAPPINGS``."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in MAPPINGS:
            return None
        for finder in sys.meta_path:
            found = None if finder is self else finder.find_spec(name, path, target)
            if found is not None and found.loader is not None:
                found.loader = _Loader(found.loader)
                return found
        return None


def install() -> None:
    """Enters the promise, now or when transformers is imported; once."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    for name in MAPPINGS:
        if module := sys.modules.get(name):
            promise(module)
