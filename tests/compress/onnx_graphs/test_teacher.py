"""A graph of any spelling is taken with the answers that it gives in ONNX Runtime, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from tokenizers import Tokenizer

from compress.encoders import encoder_of
from compress.networks.models import load_network
from compress.onnx_graphs.fitting import CLOSE, logarithms
from compress.onnx_graphs.network import GRAPH, GraphNetwork
from compress.onnx_graphs.ports import Port, answers_of_graph
from compress.pipeline import running
from compress.plan import plan_steps
from compress.recipes.recipe import Recipe
from compress.store import Finished
from contract.errors import RecipeError, SluiceError
from contract.family import Batching
from runtime.onnx_model import OnnxRuntime
from tests.compress.conftest import toy_texts, toy_tokenizer
from tests.compress.onnx_graphs.test_pipeline_of_graphs import recipe_of
from tests.compress.onnx_graphs.toys import CONFIG, LABELS, Toy, toy_folder, toy_graph

TEXTS = [text for text, _ in toy_texts(40, seed=5)]
BERT = {"input_ids": "input_ids", "attention_mask": "attention_mask", "token_type_ids": "token_type_ids"}
TENSORFLOW = {
    "attention_mask": "input_mask:0",
    "token_type_ids": "segment_ids:0",
    "input_ids": "serving_default_input_word_ids:0",
}
PLACED = {"input_ids": "input_ids", "position_ids": "position_ids", "attention_mask": "attention_mask"}
ALONE = {"input_ids": "x"}
ORDER = [LABELS.index(label) for label in sorted(LABELS)]


def taken(recipe: Recipe, out: Path) -> Finished:
    """Make data and teacher of a recipe, and return the teacher."""
    with running(recipe, out) as run:
        data, teacher = plan_steps(recipe)[:2]
        run.make(data)
        return run.make(teacher)


def served(teacher: Finished) -> NDArray[np.float32]:
    """Return what a taken graph answers as it is served."""
    encoder, network = encoder_of(teacher), load_network(teacher.folder)
    batching: Batching = "single" if network.alone else "batched"
    runtime = OnnxRuntime(teacher.file(GRAPH), encoder=encoder.sha256, batching=batching)
    return runtime.logits(encoder.encode(TEXTS))


def by_hand(model: ModelProto, toy: Toy, *, read: Tokenizer | None = None) -> NDArray[np.float64]:
    """Return what ONNX Runtime and tokenizers give by themselves, text by text, as the data has labels."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    tokenizer = read or toy_tokenizer()
    tokenizer.enable_truncation(24)
    batch, length = (size if isinstance(size, int) else None for size in toy.axes)
    if length:
        tokenizer.enable_padding(length=length)
    found = []
    for text in TEXTS:
        told = tokenizer.encode(text)
        rows = {
            "input_ids": told.ids,
            "attention_mask": told.attention_mask,
            "token_type_ids": told.type_ids,
            "position_ids": range(len(told.ids)),
        }
        feeds = {
            name: np.array([list(rows[role])] * (batch or 1)).astype(
                helper.tensor_dtype_to_np_dtype(toy.kinds.get(role, TensorProto.INT64))
            )
            for role, name in toy.names.items()
        }
        found.append(session.run([toy.outputs[0]], feeds)[0][0])
    return np.array(found, dtype=np.float64)[:, ORDER]


def shares(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return probabilities of logits."""
    powers = np.exp(np.asarray(logits, dtype=np.float64))
    found: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return found


FLOAT = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("outputs", "labels", "chosen"),
    [
        ({"output": 768, "label_scores": 2}, 2, "label_scores"),
        ({"label_scores": 2, "logits": 2}, 2, "logits"),
        ({"output": 768, "label_scores": 2}, None, "output"),
    ],
)
def test_the_output_that_is_as_wide_as_the_labels_holds_the_answers(
    outputs: dict[str, int], labels: int | None, chosen: str
) -> None:
    """Names decide among outputs of the right width alone, or where no width is known."""
    ports = [Port(name, FLOAT, (1, width)) for name, width in outputs.items()]
    assert answers_of_graph(ports, labels, "graph").name == chosen


@pytest.mark.parametrize(
    ("toy", "alone"),
    [
        (Toy(), False),
        (Toy(names=BERT, dims=None), False),
        (Toy(names=TENSORFLOW, kinds=dict.fromkeys(TENSORFLOW, TensorProto.INT32)), False),
        (Toy(names=BERT, kinds={"attention_mask": TensorProto.FLOAT, "input_ids": TensorProto.INT32}), False),
        (Toy(kinds={"attention_mask": TensorProto.BOOL}), False),
        (Toy(names=PLACED), False),
        (Toy(names=ALONE, outputs=("output_0",)), False),
        (Toy(outputs=("logits", "states")), False),
        (Toy(opset=9, ir=3), False),
        (Toy(opset=11, end="Softmax", outputs=("probabilities",)), False),
        (Toy(end="Softmax"), False),
        (Toy(end="LogSoftmax"), False),
        (Toy(ir=99), False),
        (Toy(axes=(1, "sequence")), False),
        (Toy(axes=(1, 24), names=PLACED), False),
        (Toy(axes=(1, 24), baked=True, names=BERT), True),
        (Toy(axes=("batch", "sequence"), baked=True), True),
    ],
    ids=lambda value: "" if isinstance(value, bool) else None,
)
def test_a_graph_answers_as_it_did_before_it_was_taken(tmp_path: Path, toy: Toy, alone: bool) -> None:
    """Names, order, types, sizes, opsets and ends of every kind are served with the answers of the graph."""
    model = toy_graph(toy)
    toy_folder(tmp_path / "model", model)
    teacher = taken(recipe_of(tmp_path, tmp_path / "model"), tmp_path / "family")
    found = served(teacher)
    read = model
    read.ir_version = min(model.ir_version, 10)
    wanted = by_hand(read, toy)
    if toy.end == "Softmax":
        np.testing.assert_allclose(shares(found), wanted, atol=1e-5)
    else:
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert load_network(teacher.folder).alone is alone
    inputs = {item.name for item in onnx.load(teacher.file(GRAPH)).graph.input}
    assert inputs <= {"input_ids", "attention_mask", "token_type_ids"}


@pytest.mark.parametrize(
    ("changes", "config", "words"),
    [
        ({"names": {"input_ids": "input_ids", "attention_mask": "pixel_values"}}, {}, "pixel_values"),
        ({"end": "Sigmoid"}, {}, "multi-label"),
        ({"dims": ("batch", 1)}, {}, "one number"),
        ({"outputs": ("last_hidden_state",)}, {}, "encoder without a head"),
        ({"outputs": ("a", "b"), "dims": ("batch", "sequence", 3)}, {}, "every token"),
        ({"outputs": ("start_logits", "end_logits")}, {}, "question answering"),
        ({}, {"problem_type": "multi_label_classification"}, "several labels"),
        ({}, {"architectures": ["BertForTokenClassification"]}, "labels every token"),
        ({"kinds": {"input_ids": TensorProto.STRING}}, {}, "takes texts"),
        ({"axes": ("batch", "sequence", 4)}, {}, "3 axes"),
    ],
)
def test_what_is_no_classifier_is_refused_by_name_when_planned(
    tmp_path: Path, changes: dict[str, Any], config: dict[str, Any], words: str
) -> None:
    """Outputs and inputs of other tasks are named before any step runs."""
    toy_folder(tmp_path / "model", toy_graph(**changes), {**CONFIG, **config})
    with pytest.raises(RecipeError, match=words):
        plan_steps(recipe_of(tmp_path, tmp_path / "model"))


INT8 = {"name": "int8", "kind": "quantize", "parent": "teacher"}


@pytest.mark.parametrize(
    ("variants", "teacher", "words"),
    [
        ([], {"training": {"epochs": 2}}, "an ONNX graph is not trained"),
        ([{"name": "cut", "kind": "prune", "parent": "teacher"}], {}, "'prune' takes its parent apart"),
        ([{"name": "sparse", "kind": "magnitude", "parent": "teacher"}], {}, "'magnitude' trains"),
        ([{"name": "aware", "kind": "qat", "parent": "teacher"}], {}, "'qat' takes"),
        ([INT8 | {"smooth": 0.5}], {}, "`smooth`"),
        ([{"name": "s", "kind": "distil", "parent": "teacher", "layers": [0]}], {}, "unless it has"),
        (
            [
                {
                    "name": "s", "kind": "distil", "parent": "teacher", "layers": [0], "weights": "random",
                    "hidden": 16, "heads": 2, "neurons": 16, "distillation": {"hidden_weight": 1},
                }
            ],
            {},
            "imitate what is inside",
        ),
    ],
)  # fmt: skip
def test_what_a_graph_cannot_be_used_for_is_refused_when_planned(
    tmp_path: Path, variants: list[dict[str, Any]], teacher: dict[str, Any], words: str
) -> None:
    """Training, pruning and what looks inside are refused by the variant's name."""
    toy_folder(tmp_path / "model")
    with pytest.raises(RecipeError, match=words):
        plan_steps(recipe_of(tmp_path, tmp_path / "model", variants, **teacher))


def test_labels_that_are_not_the_data_s_are_refused_with_a_map_that_names_them(tmp_path: Path) -> None:
    """A graph without names, or with others, is refused; `teacher.labels` says what its rows mean."""
    graph = toy_folder(tmp_path / "model", config=None)
    with pytest.raises(SluiceError, match=r"teacher\.labels: \{LABEL_0: "):
        taken(recipe_of(tmp_path, graph), tmp_path / "family")
    said = {str(row): label for row, label in enumerate(LABELS)}
    teacher = taken(recipe_of(tmp_path, graph, labels=said), tmp_path / "family")
    network = load_network(teacher.folder)
    assert isinstance(network, GraphNetwork)
    np.testing.assert_allclose(served(teacher), by_hand(toy_graph(), Toy()), atol=1e-4)


@pytest.mark.parametrize(
    "named",
    [
        list(LABELS),
        {str(row): LABELS[row] for row in (2, 0, 1)},
        {row: label for row, label in enumerate(LABELS)},
    ],
)
def test_labels_are_read_in_every_spelling(tmp_path: Path, named: Any) -> None:
    """A list, and rows out of order, name the rows that they name."""
    toy_folder(tmp_path / "model", config={**CONFIG, "id2label": named})
    teacher = taken(recipe_of(tmp_path, tmp_path / "model"), tmp_path / "family")
    np.testing.assert_allclose(served(teacher), by_hand(toy_graph(), Toy()), atol=1e-4)


def halved(model: ModelProto) -> ModelProto:
    """Return a graph in half precision, inputs and outputs too."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    made: ModelProto = convert_float_to_float16(model, keep_io_types=False)
    return made


def test_half_precision_is_widened_and_said(tmp_path: Path) -> None:
    """A float16 graph is served as float32 with its labels, and can be quantized."""
    toy_folder(tmp_path / "model", halved(toy_graph()))
    recipe = recipe_of(tmp_path, tmp_path / "model", [INT8])
    teacher = taken(recipe, tmp_path / "family")
    wanted = by_hand(halved(toy_graph()), Toy())
    assert (served(teacher).argmax(1) == wanted.argmax(1)).all()
    assert any("half precision" in note for note in teacher.result["notes"])
    assert load_network(teacher.folder).precision == "fp32"


def test_a_quantized_graph_keeps_its_precision_and_is_asked_text_by_text(tmp_path: Path) -> None:
    """What scales activations over a batch is served alone, and is not quantized again."""
    from onnxruntime.quantization import quantize_dynamic

    graph = toy_folder(tmp_path / "model")
    quantize_dynamic(str(graph), str(graph.with_name("model_quantized.onnx")))
    given = graph.with_name("model_quantized.onnx")
    with pytest.raises(RecipeError, match="quantized already"):
        plan_steps(recipe_of(tmp_path, given, [INT8]))
    teacher = taken(recipe_of(tmp_path, given), tmp_path / "family")
    network = load_network(teacher.folder)
    assert (network.precision, network.alone) == ("int8-dynamic", True)
    assert (served(teacher).argmax(1) == by_hand(onnx.load(given), Toy()).argmax(1)).all()


def test_as_many_tokens_are_kept_as_the_graph_has_places_for(tmp_path: Path) -> None:
    """Without `max_length` the longest text that runs decides; with it the failure of the graph is told."""
    toy_folder(tmp_path / "model", toy_graph(names=PLACED))
    recipe = recipe_of(tmp_path, tmp_path / "model")
    without = recipe.teacher.model_dump(exclude={"max_length"})
    free = recipe.model_copy(update={"teacher": type(recipe.teacher)(**without)})
    teacher = taken(free, tmp_path / "family")
    assert teacher.result["encoder"]["max_length"] == 48
    assert any("48 tokens" in note for note in teacher.result["notes"])
    with pytest.raises(RecipeError, match="fails at a text of 60 tokens"):
        taken(recipe_of(tmp_path, tmp_path / "model", max_length=60), tmp_path / "family")


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """A graph that overflows is told from one of another form."""
    model = toy_graph()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([0, np.nan, 0], np.float32), "bias"))
    toy_folder(tmp_path / "model", model)
    with pytest.raises(RecipeError, match="not finite for 129 of 129 texts"):
        taken(recipe_of(tmp_path, tmp_path / "model"), tmp_path / "family")


@pytest.mark.parametrize(
    ("domain", "kind", "words"),
    [
        ("ai.onnx.contrib", "Identity", "ai.onnx.contrib::Identity, which needs a library"),
        ("com.microsoft", "Nonsense", "does not read the graph: .*Nonsense"),
    ],
)
def test_operators_of_other_libraries_are_refused_by_name(
    tmp_path: Path, domain: str, kind: str, words: str
) -> None:
    """No library of custom operators is loaded, and what ONNX Runtime has not got is named."""
    model = toy_graph()
    model.graph.node[-1].domain, model.graph.node[-1].op_type = domain, kind
    model.opset_import.append(helper.make_opsetid(domain, 1))
    toy_folder(tmp_path / "model", model)
    with pytest.raises(RecipeError, match=words):
        taken(recipe_of(tmp_path, tmp_path / "model"), tmp_path / "family")


def test_a_graph_without_a_mask_reads_padding_off_its_ids(tmp_path: Path) -> None:
    """Where padding has another number than what serves gives it, texts are asked one by one."""
    model = toy_graph(names=ALONE)
    padding = next(tensor for tensor in model.graph.initializer if tensor.name == "pad")
    padding.CopyFrom(onnx.numpy_helper.from_array(np.array(1, np.int64), "pad"))
    toy_folder(tmp_path / "model", model)
    teacher = taken(recipe_of(tmp_path, tmp_path / "model"), tmp_path / "family")
    assert load_network(teacher.folder).alone
    toy_folder(tmp_path / "told", model, {**CONFIG, "pad_token_id": 1})
    teacher = taken(recipe_of(tmp_path, tmp_path / "told"), tmp_path / "second")
    assert not load_network(teacher.folder).alone
    np.testing.assert_allclose(served(teacher), by_hand(model, Toy(names=ALONE)), atol=1e-4)


@pytest.mark.parametrize("named", [None, list(BERT)])
def test_segments_that_a_tokenizer_gives_reach_the_graph(tmp_path: Path, named: list[str] | None) -> None:
    """A text in segment 1, as its tokenizer has it, is answered as by hand and not as in segment 0."""
    from tokenizers import processors

    toy = Toy(names=BERT)
    toy_folder(tmp_path / "model", toy_graph(toy))
    tokenizer = toy_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(tmp_path / "model/tokenizer.json"))
    if named is not None:
        beside = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": named}
        (tmp_path / "model/tokenizer_config.json").write_text(json.dumps(beside))
    found = served(taken(recipe_of(tmp_path, tmp_path / "model"), tmp_path / "family"))
    np.testing.assert_allclose(found, by_hand(toy_graph(toy), toy, read=tokenizer), atol=1e-4)
    assert np.abs(found - by_hand(toy_graph(toy), toy)).max() > 0.1


def test_a_student_cannot_start_from_a_graph(tmp_path: Path) -> None:
    """Layers come from weights; a graph has none to give."""
    graph = toy_folder(tmp_path / "model")
    part = {"name": "student", "kind": "distil", "parent": "teacher", "layers": [0], "weights": str(graph)}
    with pytest.raises(RecipeError, match="'student': `weights` is an ONNX graph"):
        plan_steps(recipe_of(tmp_path, graph, [part]))


def branched() -> ModelProto:
    """Return a graph whose answers come out of a branch that reads the outer graph and its input."""
    model = toy_graph()
    names = ("short_answers", "long_answers")
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    short = helper.make_graph(
        [
            helper.make_node("Cast", ["attention_mask"], ["mask_inside"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["mask_inside"], ["count_inside"], keepdims=0),
            helper.make_node("Sub", ["raw_answers", "count_inside"], [names[0]]),
        ],
        "short",
        [],
        floats[:1],
    )
    long = helper.make_graph(
        [helper.make_node("Identity", ["raw_answers"], [names[1]])], "long", [], floats[1:]
    )
    del model.graph.node[-1]
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["input_ids"], ["sizes"]),
            helper.make_node("Gather", ["sizes", "axis_1"], ["length"], axis=0),
            helper.make_node("Greater", ["length", "axis_1"], ["is_long"]),
            helper.make_node("If", ["is_long"], ["logits"], then_branch=long, else_branch=short),
        ]
    )
    return model


def test_branches_that_read_the_outer_graph_are_kept_and_quantized(tmp_path: Path) -> None:
    """What only an inner graph reads is neither renamed away nor taken out."""
    toy_folder(tmp_path / "model", branched())
    recipe = recipe_of(tmp_path, tmp_path / "model", [INT8])
    with running(recipe, tmp_path / "family") as run:
        for step in plan_steps(recipe):
            if step.kind != "measure":
                run.make(step)
        finished = run.finished
    np.testing.assert_allclose(served(finished["teacher"]), by_hand(branched(), Toy()), atol=1e-4)
    assert finished["int8"].result["verification"]["label_agreement"] == 1
    assert finished["teacher.export"].result["verification"]["n"] > 20


def test_a_statically_quantized_graph_is_served_in_batches(tmp_path: Path) -> None:
    """Scales that are constants make no difference among batchmates, up to rounding."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Texts(CalibrationDataReader):  # type: ignore[misc]
        """Feeds of the toy texts."""

        def __init__(self) -> None:
            ids = (np.array([toy_tokenizer().encode(text).ids]) for text in TEXTS)
            self._feeds = ({"input_ids": one, "attention_mask": np.ones_like(one)} for one in ids)

        def get_next(self) -> dict[str, NDArray[np.int64]] | None:
            """Return the next text's."""
            return next(self._feeds, None)

    graph = toy_folder(tmp_path / "model")
    quantize_static(str(graph), str(graph.with_name("int8.onnx")), Texts())
    teacher = taken(recipe_of(tmp_path, graph.with_name("int8.onnx")), tmp_path / "family")
    network = load_network(teacher.folder)
    assert (network.precision, network.alone) == ("int8-static", False)
    wanted = by_hand(onnx.load(graph.with_name("int8.onnx")), Toy())
    assert (served(teacher).argmax(1) == wanted.argmax(1)).mean() > 0.95


def test_the_check_of_a_served_graph_is_that_beside_the_given_one(tmp_path: Path) -> None:
    """The copy is not compared with itself: FP32 keeps its strict limit, and errors are those of logits."""
    toy_folder(tmp_path / "model", toy_graph(Toy(end="Softmax", outputs=("probabilities",))))
    recipe = recipe_of(tmp_path, tmp_path / "model")
    with running(recipe, tmp_path / "family") as run:
        made = [run.make(step) for step in plan_steps(recipe)[:3]]
    taken_check, check = (one.result["verification"] for one in made[1:])
    assert {key: check[key] for key in check if not key.startswith("batched")} == {
        key: taken_check[key] for key in check if not key.startswith("batched")
    }
    assert check["agreement_limit"] == 0.999
    assert check["batched_agreement"] == 1
    assert check["n"] == 129


def test_probabilities_that_differ_where_they_are_small_are_not_close() -> None:
    """1e-3 in place of 1e-4 is nearly nothing as a probability, and more than two in a logit."""
    one, other = np.array([[1e-4, 1 - 1e-4]]), np.array([[1e-3, 1 - 1e-3]])
    assert np.abs(one - other).max() < CLOSE
    assert np.abs(logarithms(one) - logarithms(other)).max() > 2


def test_tensors_inside_that_have_the_names_of_what_is_served_are_told_apart(tmp_path: Path) -> None:
    """A graph may call anything inside `logits` or `input_ids`."""
    toy = Toy(names={"input_ids": "ids", "attention_mask": "mask"}, outputs=("z",))
    model = toy_graph(toy)
    others = {"looked_up": "logits", "mean": "input_ids", "layer": "attention_mask", "kept": "token_type_ids"}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [others.get(name, name) for name in names]
    toy_folder(tmp_path / "model", model)
    teacher = taken(recipe_of(tmp_path, tmp_path / "model"), tmp_path / "family")
    np.testing.assert_allclose(served(teacher), by_hand(model, toy), atol=1e-4)
