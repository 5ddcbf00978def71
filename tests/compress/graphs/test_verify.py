"""What an artifact is verified on."""

from __future__ import annotations

from collections import Counter

from compress.datasets.data import Dataset
from compress.graphs.verify import TEXTS, verification_texts


def test_texts_of_every_label_are_verified_though_the_file_is_sorted() -> None:
    """Of 50 labels in order every one has its four texts, all of them from validation."""
    labels = tuple(f"label-{i:02}" for i in range(50))
    label = tuple(name for name in labels for _ in range(20))
    split = ("train", "validation") * 500
    data = Dataset(labels, tuple(f"{i} {name}" for i, name in enumerate(label)), label, split, ((),) * 1000)
    found = verification_texts(data, seed=0)
    assert len(found) == TEXTS
    assert Counter(text.split()[1] for text in found) == dict.fromkeys(labels, TEXTS // 50)
    assert set(found) <= set(data.of("validation").texts)
    assert found == verification_texts(data, seed=0) != verification_texts(data, seed=1)
