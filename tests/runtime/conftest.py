"""A toy tokenizer and a toy graph, real files for real libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "##s", "very")


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word-piece tokenizer of nine pieces."""
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def graph_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logits of two classes: the sum of the embeddings of the unmasked tokens."""
    return write_graph(tmp_path_factory.mktemp("graph") / "model.onnx")


def write_graph(path: Path, *, token_types: bool = False) -> Path:
    """Write the toy graph, with the third BERT input where asked."""
    table = np.zeros((len(WORDS), 2), dtype=np.float32)
    table[4], table[5] = (0, 1), (1, 0)
    table[0] = 100.0
    shape: list[str | int | None] = ["batch", "length"]
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if token_types else [])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["logits"], keepdims=0),
    ]
    if token_types:
        nodes[0] = helper.make_node("Add", ["input_ids", "token_type_ids"], ["ids"])
        nodes.insert(1, helper.make_node("Gather", ["table", "ids"], ["embedded"]))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(n, TensorProto.INT64, shape) for n in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "middle"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def graph_with_token_types(tmp_path: Path) -> Path:
    """The toy graph with `token_type_ids` declared."""
    return write_graph(tmp_path / "three.onnx", token_types=True)
