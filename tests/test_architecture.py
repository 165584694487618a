"""The map of the project, read from the source and enforced.

Nothing of omnitune is imported here: the rules are checked on the syntax trees, so a
module that does not load is still checked.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "omnitune"

# From top to bottom. An import points to the same layer or further down.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"cli", "commands", "__main__"}),
    frozenset({"tiny"}),
    frozenset({"serving"}),
    frozenset({"reporting"}),
    frozenset({"training"}),
    frozenset({"distributed"}),
    frozenset({"evaluation"}),
    frozenset({"generation"}),
    frozenset({"models"}),
    frozenset({"data"}),
    frozenset({"encoders"}),
    frozenset({"media"}),
    frozenset({"containers"}),
    frozenset(
        {"config", "tasks", "sources", "sample", "storage", "hub", "hooks", "console", "__init__"}
    ),
)
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_NESTING = 4

# Words that `training/` may not know, and the names (configuration keys) excepted from that.
MODALITY_WORDS = re.compile("image|audio", re.IGNORECASE)
ALLOWED_IN_TRAINING: frozenset[str] = frozenset()

# Where a medium may be named: its own rooms, the entries of registries, the embedded default, and
# two files for what stands by name: the nine keys of a configuration, and who makes a checkpoint.
MEDIA = frozenset({"image", "audio"})
NAMING = frozenset({"media", "encoders", "tasks", "sources", "tiny"})
NAMING_FILES = frozenset({"config.sft", "models.loading"})
NAMING_FOLDERS = ("data.sources.",)  # what others call media is what dialects are about

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)


@dataclass(frozen=True)
class Module:
    """One source file: where it lies, what it says, and its syntax tree."""

    path: Path
    name: str  # dotted, relative to the package: "data.chat", or "" for the package itself
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The entry of the map that the file belongs to."""
        return self.name.split(".")[0] or "__init__"

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


def parse(path: Path, text: str) -> Module:
    """Makes a Module of `text`; `path` is relative to the package's folder."""
    parts = list(path.with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return Module(path, ".".join(parts), text, ast.parse(text, filename=str(path)))


def read_modules() -> list[Module]:
    folder = ROOT / PACKAGE
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else []
    return [parse(file.relative_to(folder), file.read_text(encoding="utf-8")) for file in files]


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return read_modules()


def _base_of_relative_import(module: Module, level: int) -> list[str]:
    parts = [PACKAGE, *filter(None, module.name.split("."))]
    return parts[: len(parts) - level + (1 if module.is_package else 0)]


def _names_imported(module: Module, node: ast.AST) -> list[str]:
    """Dotted names that one statement imports, relative ones resolved."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = _base_of_relative_import(module, node.level) if node.level else []
        origin = ".".join([*base, *filter(None, [node.module])])
        return [f"{origin}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args:
        function = node.func.attr if isinstance(node.func, ast.Attribute) else None
        function = node.func.id if isinstance(node.func, ast.Name) else function
        target = node.args[0]
        if function in {"import_module", "__import__"} and isinstance(target, ast.Constant):
            return [str(target.value)]
    return []


def rooms_imported(module: Module) -> Iterator[tuple[int, str]]:
    """Yields (line, room) for every import of omnitune, those inside functions included."""
    for node in ast.walk(module.tree):
        for name in _names_imported(module, node):
            package, _, rest = name.partition(".")
            if package != PACKAGE:
                continue
            room = rest.split(".")[0]
            is_a_file = (ROOT / PACKAGE / room).is_dir() or (ROOT / PACKAGE / f"{room}.py").exists()
            on_the_map = room in DEPTH or (room and is_a_file)
            # `from omnitune import __version__` names something of the package itself.
            yield node.lineno, room if on_the_map else "__init__"


def files_imported(module: Module, names: set[str]) -> set[str]:
    """Files of the package that a file imports, wherever in it, under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(module.tree):
        for name in _names_imported(module, node):
            inner = name.removeprefix(f"{PACKAGE}.")
            found |= {inner, inner.rpartition(".")[0]} & names
    return found - {module.name, ""}


def circles(imports: dict[str, set[str]]) -> list[str]:
    """Files that are left when those that import nothing left are taken away, again and again."""
    left = {name: set(found) for name, found in imports.items()}
    while ends := [name for name, found in left.items() if not found]:
        left = {name: found - set(ends) for name, found in left.items() if name not in ends}
    return sorted(left)


def import_violations(module: Module) -> list[str]:
    found = []
    for line, target in rooms_imported(module):
        where = f"{module.path}:{line}: {module.room} imports {target}"
        if target == module.room:
            continue
        if DEPTH.get(target, -1) < DEPTH.get(module.room, -1):
            found.append(f"{where}, which lies above it")
    return found


def nesting_depth(statements: list[ast.stmt], depth: int = 0) -> int:
    """Deepest block below `statements`; an elif is on the level of its if, and functions
    and classes defined inside start afresh (each function is measured on its own)."""
    deepest = depth
    for statement in statements:
        if isinstance(statement, BLOCKS):
            deepest = max(deepest, _depth_of_block(statement, depth + 1))
    return deepest


def _depth_of_block(block: ast.stmt, depth: int) -> int:
    deepest = nesting_depth(getattr(block, "body", []), depth)
    for part in [*getattr(block, "handlers", []), *getattr(block, "cases", [])]:
        deepest = max(deepest, nesting_depth(part.body, depth))
    deepest = max(deepest, nesting_depth(getattr(block, "finalbody", []), depth))
    orelse = getattr(block, "orelse", [])
    is_elif = (
        isinstance(block, ast.If)
        and len(orelse) == 1
        and isinstance(orelse[0], ast.If)
        and orelse[0].col_offset == block.col_offset
    )
    return max(deepest, nesting_depth(orelse, depth - 1 if is_elif else depth))


def function_violations(module: Module) -> list[str]:
    found = []
    for node in ast.walk(module.tree):
        if not isinstance(node, FUNCTIONS):
            continue
        where = f"{module.path}:{node.lineno}: {node.name}"
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            found.append(f"{where} has {lines} lines (at most {MAX_FUNCTION_LINES})")
        depth = nesting_depth(node.body)
        if depth > MAX_NESTING:
            found.append(f"{where} nests {depth} deep (at most {MAX_NESTING})")
    return found


def word_violations(module: Module) -> list[str]:
    found = []
    for number, line in enumerate([module.path.stem, *module.text.splitlines()]):
        words = [w for w in re.findall(r"\w+", line) if w not in ALLOWED_IN_TRAINING]
        found += [f"{module.path}:{number}: {w}" for w in words if MODALITY_WORDS.search(w)]
    return found


def media_named(module: Module) -> list[str]:
    """Where a file could branch on a medium: texts that are the name of one."""
    return [
        f"{module.path}:{node.lineno}: {node.value!r}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in MEDIA
    ]


def test_every_file_is_on_the_map(modules: list[Module]) -> None:
    strangers = [str(module.path) for module in modules if module.room not in DEPTH]
    assert not strangers, f"not in the list of layers: {strangers}"


def test_imports_point_down(modules: list[Module]) -> None:
    found = [violation for module in modules for violation in import_violations(module)]
    assert not found, "\n" + "\n".join(found)


def test_no_files_import_each_other(modules: list[Module]) -> None:
    names = {module.name for module in modules}
    assert not circles({module.name: files_imported(module, names) for module in modules})


def test_files_are_short(modules: list[Module]) -> None:
    lengths = {str(module.path): len(module.text.splitlines()) for module in modules}
    found = {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES}
    assert not found, f"over {MAX_FILE_LINES} lines: {found}"


def test_functions_are_short_and_flat(modules: list[Module]) -> None:
    found = [violation for module in modules for violation in function_violations(module)]
    assert not found, "\n" + "\n".join(found)


def test_training_knows_no_modality(modules: list[Module]) -> None:
    rooms = [module for module in modules if module.room == "training"]
    found = [violation for module in rooms for violation in word_violations(module)]
    assert not found, "\n" + "\n".join(found)


def test_no_other_room_branches_on_a_medium(modules: list[Module]) -> None:
    rest = [m for m in modules if m.room not in NAMING and m.name not in NAMING_FILES]
    rest = [m for m in rest if not m.name.startswith(NAMING_FOLDERS)]
    assert not [place for module in rest for place in media_named(module)]


def test_torchvision_is_absent() -> None:
    assert importlib.util.find_spec("torchvision") is None, (
        "torchvision is installed; it can break the image imports of transformers"
    )


# The checks themselves: each must see what it is there to see.


@pytest.mark.parametrize(
    ("path", "statement", "caught"),
    [
        ("data/template.py", "from omnitune.config import Config", False),
        ("data/template.py", "from omnitune import __version__", False),
        ("data/template.py", "from .records import read", False),
        ("data/template.py", "from ..sample import Sample", False),
        ("data/template.py", "from omnitune.models.omni import OmniModel", True),
        ("data/template.py", "from omnitune import models", True),
        ("data/template.py", "from .. import models", True),
        ("data/template.py", "import omnitune.training.loop", True),
        ("data/__init__.py", "from .chat import render", False),
        ("data/__init__.py", "from ..models import omni", True),
        ("data/template.py", "def f():\n    from omnitune.models import omni", True),
        ("data/template.py", "import_module('omnitune.models.omni')", True),
        ("__init__.py", "from .models import omni", True),
        ("config.py", "from omnitune import sample", False),
        ("config/run.py", "from omnitune.media import base", True),
        ("data/loader.py", "from omnitune.encoders import base", False),
        ("encoders/base.py", "from omnitune.data import loader", True),
        ("training/sft.py", "from omnitune.reporting import report", True),
        ("serving/folder.py", "from omnitune.tiny import ready", True),
        ("cli.py", "from omnitune.serving import terminal", False),
        ("cli.py", "import torch.models", False),
    ],
)
def test_import_check(path: str, statement: str, caught: bool) -> None:
    assert bool(import_violations(parse(Path(path), statement))) is caught


def test_circle_check() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a", "b", "c"]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        ("x = 1", 0),
        ("if a:\n    pass\nelif b:\n    pass\nelif c:\n    pass\nelse:\n    pass", 1),
        ("if a:\n    pass\nelse:\n    if b:\n        pass", 2),
        ("if a:\n    pass\nelif b:\n    for x in y:\n        pass", 2),
        ("try:\n    pass\nexcept E:\n    with a:\n        while b:\n            pass", 3),
        ("for x in y:\n    def f():\n        if a:\n            pass", 1),
        ("match a:\n    case 1:\n        if b:\n            pass", 2),
    ],
)
def test_nesting_check(body: str, depth: int) -> None:
    assert nesting_depth(ast.parse(body).body) == depth


def test_length_check() -> None:
    long = "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES
    assert function_violations(parse(Path("cli.py"), long))
    assert not function_violations(parse(Path("cli.py"), long.removesuffix("    pass\n")))


def test_medium_check() -> None:
    text = 'if name == "image":\n    print("an image")'
    assert media_named(parse(Path("data/loader.py"), text)) == ["data/loader.py:1: 'image'"]


@pytest.mark.parametrize(
    ("line", "caught"),
    [("n_images = 1", True), ("# Audio first", True), ("imagine = 1", False)],
)
def test_word_check(line: str, caught: bool) -> None:
    assert bool(word_violations(parse(Path("training/loop.py"), line))) is caught
