"""Which columns of a Parquet file are bytes that a scan need not read.

The footer says of each column and row group how many values are missing. Where none or all are,
it is known without reading where bytes are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omnitune.containers.arrow_rows import is_binary, relist, without_bytes

BATCH = 1024  # rows that are decoded at once


def marked_batches(file: Any, group: int) -> Iterator[Any]:
    """The rows of a row group, in batches, with true in place of bytes.

    Args:
        file: a ``ParquetFile``.
    """
    import pyarrow as pa

    schema, rows = file.schema_arrow, file.metadata.row_group(group)
    known = _known(file, group)
    paths = [file.schema.column(n).path for n in range(rows.num_columns) if n not in known]
    wholes = {n for n, first in enumerate(first_leaves(schema)) if first in known}
    wholes = {n for n in wholes if is_binary(schema.field(n).type)}
    if paths:
        batches = file.iter_batches(BATCH, row_groups=[group], columns=paths)
        sized = ((batch.num_rows, iter(batch.columns)) for batch in batches)
    else:
        starts = range(0, rows.num_rows, BATCH)
        sized = ((min(BATCH, rows.num_rows - start), iter(())) for start in starts)
    for count, columns in sized:
        made = []
        for n, first in enumerate(first_leaves(schema)):
            field = schema.field(n)
            if n in wholes:
                made.append(_constant_bytes(known[first], count))
            else:
                array = _filled(next(columns), field.type, first, known)
                made.append(without_bytes(array))
        batch = pa.RecordBatch.from_arrays(made, names=schema.names)
        yield batch.replace_schema_metadata(schema.metadata)


def _known(file: Any, group: int) -> dict[int, bool]:
    """Leaves that are bytes of which it is known, without reading, that all or none are there."""
    schema, rows = file.schema_arrow, file.metadata.row_group(group)
    found: dict[int, bool] = {}
    for n, first in enumerate(first_leaves(schema)):
        for leaf in _bytes_leaves(schema.field(n).type, first):
            column = rows.column(leaf)
            stats = column.statistics
            if stats is None or not stats.has_null_count:
                continue
            if stats.null_count in (0, column.num_values):
                found[leaf] = stats.null_count == 0
    return found


def _bytes_leaves(kind: Any, first: int) -> list[int]:
    """Leaves of a column that need not be read: others tell how many values there are."""
    import pyarrow as pa

    if is_binary(kind):
        return [first]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if not pa.types.is_struct(kind):
        return []
    leaves, others = [], False
    for n in range(kind.num_fields):
        if is_binary(kind.field(n).type):
            leaves.append(first)
        else:
            others = True
        first += _count(kind.field(n).type)
    return leaves if others else []


def first_leaves(schema: Any) -> list[int]:
    """The number of the first leaf of each column."""
    firsts, at = [], 0
    for field in schema:
        firsts.append(at)
        at += _count(field.type)
    return firsts


def _count(kind: Any) -> int:
    """How many leaves a type has in a Parquet file."""
    import pyarrow as pa

    if isinstance(kind, pa.ExtensionType):
        return _count(kind.storage_type)
    if pa.types.is_dictionary(kind) or not kind.num_fields:
        return 1
    if pa.types.is_map(kind):
        return _count(kind.key_type) + _count(kind.item_type)
    return sum(_count(kind.field(n).type) for n in range(kind.num_fields))


def _constant(there: bool, count: int) -> Any:
    import pyarrow as pa

    return pa.repeat(pa.scalar(True if there else None, pa.bool_()), count)


def _constant_bytes(there: bool, count: int) -> Any:
    """A column of bytes alone, all there or all missing."""
    import pyarrow as pa

    mask = pa.repeat(pa.scalar(not there, pa.bool_()), count)
    return pa.StructArray.from_arrays([_constant(there, count)], ["bytes"], mask=mask)


def _filled(array: Any, kind: Any, first: int, known: dict[int, bool]) -> Any:
    """A column with what was not read of it."""
    import pyarrow as pa

    leaves = [leaf for leaf in _bytes_leaves(kind, first) if leaf in known]
    if not leaves:
        return array
    if not pa.types.is_struct(kind):
        return relist(array, _filled(array.flatten(), kind.value_type, first, known))
    arrays, names = [], []
    for n in range(kind.num_fields):
        field = kind.field(n)
        names.append(field.name)
        if first in leaves:
            arrays.append(_constant(known[first], len(array)))
        else:
            arrays.append(array.field(field.name))
        first += _count(field.type)
    return pa.StructArray.from_arrays(arrays, names, mask=array.is_null())
