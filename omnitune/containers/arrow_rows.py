"""Rows of Arrow's tables as JSON-like values, in which bytes are marked and not held."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from omnitune.containers.needs import optional
from omnitune.sample import UserError

BYTES = "bytes"  # what a value that is bytes alone has them under


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turns pyarrow's errors into a UserError; ``kind`` is such as "a Parquet"."""
    pa = optional("pyarrow", f"{path}: is {kind} file")
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = (str(error).splitlines() or [""])[0].rstrip(".")
        raise UserError(
            f"{path}: is not {kind.split()[-1]}, or not whole ({said}); fetch or write it again"
        ) from None


def class_names(schema: Any) -> dict[str, list[str]]:
    """By column, the names of its classes, which ``datasets`` keeps beside a table's schema."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        features = info["info"]["features"]
        found = {column: kind["names"] for column, kind in features.items() if "names" in kind}
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    return {column: names for column, names in found.items() if isinstance(names, list)}


def with_names(row: Any, names: Mapping[str, list[str]]) -> Any:
    """A row in which a class's name stands in place of its number."""
    for column, known in names.items() if isinstance(row, dict) else ():
        number = row.get(column)
        if isinstance(number, int) and 0 <= number < len(known):
            row[column] = known[number]
    return row


def without_bytes(array: Any, inside: bool = False) -> Any:
    """An array with true where bytes are, however deep; nothing of them is read.

    Args:
        array: of pyarrow. inside: it is a field of a structure; else bytes are put under
            ``bytes`` of a structure of their own.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(kind, pa.ExtensionType):
        return without_bytes(array.storage, inside)
    if pa.types.is_dictionary(kind):
        return without_bytes(array.dictionary_decode(), inside)
    if is_binary(kind):
        there = pc.if_else(array.is_valid(), True, pa.scalar(None, pa.bool_()))
        missing = array.is_null()
        return there if inside else pa.StructArray.from_arrays([there], [BYTES], mask=missing)
    if pa.types.is_struct(kind) and kind.num_fields:
        fields = [without_bytes(array.field(n), True) for n in range(kind.num_fields)]
        names = [kind.field(n).name for n in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, names, mask=array.is_null())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _list_without_bytes(array)
    return array


def _list_without_bytes(array: Any) -> Any:
    return relist(array, without_bytes(array.flatten())) if holds_bytes(array.type) else array


def relist(array: Any, values: Any) -> Any:
    """A list array with others in place of its values, as ``flatten`` gives these."""
    import pyarrow as pa
    import pyarrow.compute as pc

    large = pa.types.is_large_list(array.type)
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    offsets = offsets if large else offsets.cast(pa.int32())
    make = pa.LargeListArray if large else pa.ListArray
    return make.from_arrays(offsets, values, mask=array.is_null())


def is_binary(kind: Any) -> bool:
    """Whether a type of pyarrow is bytes."""
    import pyarrow as pa

    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def holds_bytes(kind: Any) -> bool:
    """Whether a type of pyarrow is bytes or holds such."""
    import pyarrow as pa

    if isinstance(kind, pa.ExtensionType):
        return holds_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return holds_bytes(kind.value_type)
    inner = range(kind.num_fields)
    return is_binary(kind) or any(holds_bytes(kind.field(n).type) for n in inner)


def plain_rows(batch: Any) -> list[dict[str, Any]]:
    """The rows of a batch as JSON has them: without bytes, dates as text, classes by name.

    Raises:
        pyarrow.ArrowInvalid: its file is damaged; else what lies elsewhere in memory could be read.
    """
    batch.validate(full=True)
    columns = [without_bytes(column).to_pylist() for column in batch.columns]
    names = batch.schema.names
    rows = zip(*columns, strict=True) if columns else ([()] * batch.num_rows)
    classes = class_names(batch.schema)
    found = ({k: plain(v) for k, v in zip(names, row, strict=True)} for row in rows)
    return [with_names(row, classes) for row in found]


def row_of(table: Any, number: int) -> dict[str, Any]:
    """One row of a table; raises LookupError."""
    if not 0 <= number < table.num_rows:
        raise LookupError(number)
    [batch] = table.slice(number, 1).combine_chunks().to_batches()
    return plain_rows(batch)[0]


def stored_in(table: Any, column: str, number: int, keys: list[str]) -> Any:
    """What one row of a column holds under keys, bytes too; raises LookupError, ArrowInvalid."""
    if not 0 <= number < table.num_rows:
        raise LookupError(number)
    value = table.column(column).slice(number, 1)
    value.validate(full=True)
    return find(value[0].as_py(), keys)


def plain(value: Any) -> Any:
    """A value as JSON reads it again."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):  # of kinds of lists that without_bytes passes over
        return {BYTES: True}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def find(value: Any, keys: list[str]) -> Any:
    """What stands in a row under keys; bytes alone stand under ``bytes`` too."""
    for key in keys:
        if isinstance(value, bytes) and key == BYTES:
            continue
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value
