"""InternVL's meta file: by name, where the records of a data set lie and where its media do."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from omnitune.data.sources.layout import Layout, entry_named
from omnitune.sample import UserError

RECORDS, ROOT = "annotation", "root"  # keys of an entry
LARGEST = 1 << 22  # bytes of a file that is looked into
ABOVE = 2  # folders above the file that its paths may be relative to


def layout_of_meta(file: Path, name: str) -> Layout | None:
    """The file that an entry names, with the folder of its media; None if a file has no such.

    Args:
        name: of the entry; "" where there is only one.

    Raises:
        UserError: there is no such entry, or what it names is not there.
    """
    entries = _entries(file)
    if not entries:
        return None
    name = entry_named(file, name, entries)
    given = [entries[name][key] for key in (RECORDS, ROOT)]
    bases = (Path(), file.parent, *islice(file.absolute().parent.parents, ABOVE))
    for base in bases:
        records, root = (base / path for path in given)
        if records.is_file() and root.is_dir():
            return Layout([records], media_dir=str(root))
    raise UserError(
        f"{file}: {name} names the records {given[0]} and the folder {given[1]}, and they are not "
        f"there; both are looked for in the folder that the command is started in, in "
        f"{file.parent}, and above that"
    )


def _entries(file: Path) -> dict[str, Any]:
    if file.suffix != ".json" or not file.is_file() or file.stat().st_size > LARGEST:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # whoever reads the records tells
    values = found.values() if isinstance(found, dict) else ()
    ours = all(
        isinstance(v, dict) and all(isinstance(v.get(key), str) for key in (RECORDS, ROOT))
        for v in values
    )
    return found if values and ours else {}
