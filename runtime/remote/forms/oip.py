"""An Open Inference Protocol server (Triton, KServe, MLServer, Sluicegate): POST v2/models/MODEL/infer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from contract.probabilities import softmax
from contract.remote import RemoteModel
from runtime.remote.forms.said import Probabilities, Said, finite, index_of, led_by, spread, unreadable

MOST_NUMBERS = 1 << 22


class OipForm:
    """Asks several texts at a time; reads JSON tensors."""

    def __init__(self, model: RemoteModel, labels: tuple[str, ...]) -> None:
        self._options = options = model.oip
        self._names = model.names(labels)
        self._order: NDArray[np.int64] | None = None
        if options.columns:
            self._order = np.array([options.columns.index(label) for label in labels])
        wanted = [options.output] + ([options.confidence] if options.confidence is not None else [])
        self._outputs = [{"name": name} for name in wanted]
        self.path = f"/v2/models/{quote(model.model, safe='')}/infer"
        self.batch = options.batch

    def body(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return the body for some texts."""
        shape = [len(texts)] if self._options.shape == "[N]" else [len(texts), 1]
        asked = {
            "name": self._options.input, "datatype": "BYTES", "shape": shape, "data": list(texts)
        }  # fmt: skip
        return {"inputs": [asked], "outputs": self._outputs}

    def read(self, reply: Any, n: int) -> Said:
        """Return what it says; see runtime.remote.forms.said.Form."""
        options = self._options
        if options.values == "label":
            return self._labels(reply, n)
        numbers = _numbers(_output(reply, options.output), n * len(self._names), options.output)
        table = numbers.reshape(n, len(self._names))
        if self._order is not None:
            table = table[:, self._order]
        if options.values == "logits":
            table = softmax(table)
        labels = table.argmax(axis=1)
        rows = [led_by(int(label), row) for label, row in zip(labels, table, strict=True)]
        return Said(labels.astype(np.int64), np.stack(rows))

    def _labels(self, reply: Any, n: int) -> Said:
        options = self._options
        names = _flat(_output(reply, options.output))
        if len(names) != n:
            raise unreadable(f"output {options.output!r} holds {len(names)} labels for {n} texts")
        labels = np.array([index_of(name, self._names) for name in names], dtype=np.int64)
        if options.confidence is None:
            return Said(labels, None)
        sure = _numbers(_output(reply, options.confidence), n, options.confidence)
        rows: list[Probabilities] = [
            spread(int(label), float(one), len(self._names)) for label, one in zip(labels, sure, strict=True)
        ]
        return Said(labels, np.stack(rows))


def _output(reply: Any, name: str) -> Any:
    outputs = reply.get("outputs") if isinstance(reply, dict) else None
    if not isinstance(outputs, list):
        raise unreadable("there are no `outputs`")
    for one in outputs:
        if isinstance(one, dict) and one.get("name") == name:
            return one.get("data")
    raise unreadable(f"there is no output {name!r}")


def _flat(data: Any) -> list[Any]:
    """Return the values of a tensor in JSON, which may be nested by its rows."""
    if not isinstance(data, list):
        raise unreadable("the data of an output is a list")
    if any(isinstance(one, list) for one in data):
        if not all(isinstance(one, list) for one in data):
            raise unreadable("the data of an output is nested unevenly")
        return [value for row in data for value in _flat(row)]
    return data


def _numbers(data: Any, n: int, name: str) -> NDArray[np.float64]:
    found = _flat(data)
    if len(found) != n or n > MOST_NUMBERS:
        raise unreadable(f"output {name!r} holds {len(found)} numbers where {n} were to be")
    numbers = [one for value in found if (one := finite(value)) is not None]
    if len(numbers) != n:
        raise unreadable(f"output {name!r} holds what is no finite number")
    return np.array(numbers, dtype=np.float64)
