"""Classes of a data set stand by their names, as the schema of its table has them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from omnitune.containers.registry import container_of


@pytest.fixture
def table() -> pa.Table:
    features = Features({"label": ClassLabel(names=["cat", "dog"]), "n": Value("int64")})
    rows = {"label": [1, 0, None, 1], "n": [0, 1, 2, 3]}
    found = Dataset.from_dict(rows, features=features)
    assert isinstance(found.data.table, pa.Table)
    return found.data.table


def test_classes_stand_by_their_names(tmp_path: Path, table: pa.Table) -> None:
    parquet, arrow = tmp_path / "a.parquet", tmp_path / "a.arrow"
    pq.write_table(table, parquet, row_group_size=3)
    with pa.OSFile(str(arrow), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    for path in (parquet, arrow):
        container = container_of(path)
        found = list(container.scan(path))
        assert [value["label"] for _, _, value in found] == ["dog", "cat", None, "dog"]
        assert [value["n"] for _, _, value in found] == [0, 1, 2, 3]
        for start, length, value in found:
            assert container.value(container.content(path, start, length)) == value


def test_a_table_without_such_words_has_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"label": [1, 0]}), path)
    assert [value["label"] for _, _, value in container_of(path).scan(path)] == [1, 0]
    junk = pa.table({"label": [1]}).replace_schema_metadata({"huggingface": "junk"})
    pq.write_table(junk, path)
    assert [value["label"] for _, _, value in container_of(path).scan(path)] == [1]
