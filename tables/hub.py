"""The names of classes that the Hugging Face Hub keeps beside the numbers of a column."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from contract.errors import DataError, PredictionsError

MISSING = -1


def class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of classes by column that `datasets` keeps in a schema's metadata."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return feature_names(features)


def feature_names(features: Any) -> dict[str, list[str]]:
    """Return the names of classes by column of the features of `datasets`."""
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else feature
        if isinstance(inner, dict) and isinstance(inner.get("names"), list):
            found[column] = [str(name) for name in inner["names"]]
    return found


def name_classes(record: dict[str, Any], classes: dict[str, list[str]], where: str) -> None:
    """Put names in the place of a row's class numbers. Raises DataError for a number beyond them."""
    for column in classes.keys() & record.keys():
        try:
            record[column] = named(record[column], classes[column])
        except IndexError:
            raise DataError(
                f"`{column}` is {record[column]}; the file names {len(classes[column])} classes", where=where
            ) from None


def named(value: Any, names: list[str]) -> Any:
    """Return the name of a class number, or of each in a list. Raises IndexError beyond the names."""
    if isinstance(value, list):
        return [named(one, names) for one in value]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value == MISSING:
        return None
    if value < 0:
        raise IndexError(value)
    return names[value]


def with_class_names(table: pa.Table, where: object) -> tuple[pa.Table, list[str] | None]:
    """Return a predictions table with names in place of class numbers, and the names in their order.

    Numbers of `label` that the metadata name get these names, and so do the numbers that variants predict:
    they are places in the same list. Without such names the table is returned as it is.

    Raises:
        PredictionsError: a label beyond the names.
    """
    known = class_names(table.schema.metadata or {})
    names = known.get("label")
    if names is None or "label" not in table.column_names:
        return table, None
    for place, column in enumerate(table.column_names):
        values = table.column(place)
        if not pa.types.is_integer(values.type) or not (column == "label" or column.endswith("/prediction")):
            continue
        own = known.get(column, names)
        numbers = values.to_pylist()
        beyond = {v for v in numbers if v is not None and not MISSING <= v < len(own)}
        if column == "label" and beyond:
            raise PredictionsError(
                f"`label` has numbers beyond the {len(names)} classes that the file names", where=where
            )
        found = [f"class {v}" if v in beyond else named(v, own) for v in numbers]
        table = table.set_column(place, column, pa.array(found, pa.string()))
    return table, names
