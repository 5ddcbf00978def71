"""Models as they are published: every spelling is read, and what is no classifier is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from compress.networks.opening import open_model
from compress.networks.refusals import unrun_code
from compress.networks.weights import fingerprint, network_from, read_bundle
from contract.errors import RecipeError
from tests.compress.networks.tiny import LABELS, VOCABULARY, tiny_model, wordpiece

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT classifier as transformers writes it; copied, never altered."""
    folder = tmp_path_factory.mktemp("published") / "model"
    tiny_model(folder, "bert")
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return Path(shutil.copytree(published, tmp_path / "model"))


def logits(source: Path, **more: Any) -> torch.Tensor:
    """Return the answers of the network that is read from a folder."""
    network, _ = network_from(read_bundle(str(source)), LABELS, seed=0, dropout=0.0, **more)
    network.eval()
    ids = torch.randint(4, len(VOCABULARY), (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        answered: torch.Tensor = network(ids, torch.ones_like(ids))
    return answered


def edit(folder: Path, **keys: Any) -> None:
    """Set keys of a configuration; None removes one."""
    path = folder / "config.json"
    raw = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))


def respell(change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    """Return what rewrites the tensors of a folder."""

    def write(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path)

    return write


def _old(tensors: Tensors) -> Tensors:
    renamed = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    found = {}
    for name, tensor in tensors.items():
        for new, old in renamed.items():
            name = name.replace(new, old)
        found[name] = tensor
    return found


def _prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def _shards(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    placed = {name: names[place % 2] for place, name in enumerate(sorted(tensors))}
    for shard in names:
        save_file({name: tensors[name] for name, where in placed.items() if where == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))


def _pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _extra(tensors: Tensors) -> Tensors:
    more = {
        "bert.embeddings.position_ids": torch.arange(80)[None],
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
    }
    return tensors | more


SPELLINGS: dict[str, Callable[[Path], None]] = {
    "gamma and beta": respell(_old),
    "module.": respell(_prefixed("module.")),
    "_orig_mod.": respell(_prefixed("_orig_mod.")),
    "both": respell(_prefixed("module._orig_mod.")),
    "a trainer's model.": respell(_prefixed("model.")),
    "shards": _shards,
    "a pickle of tensors": _pickle,
    "tied and extra keys": respell(_extra),
    "no model_type": lambda folder: edit(folder, model_type=None),
    "dtype float16": lambda folder: edit(folder, torch_dtype="float16", dtype="float16"),
    "keys of id2label that are not in order": lambda folder: edit(
        folder, id2label=dict(reversed(json.loads((folder / "config.json").read_text())["id2label"].items()))
    ),
    "label2id alone": lambda folder: edit(folder, id2label=None),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_one_model_gives_the_same_answers(
    spelling: str, published: Path, folder: Path
) -> None:
    """Names that conversions and wrappers gave, and files that hold the tensors in another way, are read."""
    SPELLINGS[spelling](folder)
    assert torch.equal(logits(folder), logits(published))
    assert len(fingerprint(str(folder))) == 64


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_read_in_full(kind: torch.dtype, published: Path, folder: Path) -> None:
    """Half-precision weights become float32, close to what they were."""
    respell(lambda tensors: {name: tensor.to(kind) for name, tensor in tensors.items()})(folder)
    found = logits(folder)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logits(published), atol=0.2, rtol=0.2)


def _sentence_transformers(folder: Path, place: str, mode: str) -> None:
    inner = folder / place
    inner.mkdir(exist_ok=True)
    if place:
        for path in [path for path in folder.iterdir() if path.is_file()]:
            path.rename(inner / path.name)
    modules = [
        {"idx": 0, "name": "0", "path": place, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": name == mode for name in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


@pytest.mark.parametrize("place", ["", "0_Transformer"])
@pytest.mark.parametrize(("mode", "pooling"), [("cls_token", "first"), ("mean_tokens", "mean")])
def test_sentence_transformers_layouts_are_read(place: str, mode: str, pooling: str, tmp_path: Path) -> None:
    """The encoder is found where modules.json says, and a new head pools as 1_Pooling says."""
    tiny_model(tmp_path / "m", "bert", classifier=False)
    _sentence_transformers(tmp_path / "m", place, mode)
    network, head = network_from(read_bundle(str(tmp_path / "m")), LABELS, seed=0, dropout=0.0)
    assert network.shape.pooling == pooling
    assert head.order is None
    assert head.notes == ()


def test_a_pooling_that_no_head_has_is_said(tmp_path: Path) -> None:
    """Maximum pooling becomes the mean, and a note says so."""
    tiny_model(tmp_path / "m", "bert", classifier=False)
    _sentence_transformers(tmp_path / "m", "", "max_tokens")
    assert "max_tokens" in open_model(str(tmp_path / "m")).notes[0]


def test_the_hub_s_cache_is_followed_to_its_revision(folder: Path, published: Path, tmp_path: Path) -> None:
    """The folder models--ORG--NAME is read through its one snapshot; two are a question."""
    cache = tmp_path / "models--org--name"
    shutil.copytree(folder, cache / "snapshots" / "abc")
    assert torch.equal(logits(cache), logits(published))
    shutil.copytree(folder, cache / "snapshots" / "abd")
    with pytest.raises(RecipeError, match="2 revisions"):
        open_model(str(cache))


def _one_shard(folder: Path) -> None:
    _shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def _named(folder: Path, head: str) -> None:
    edit(folder, architectures=[head])


def _checkpoints(folder: Path) -> None:
    inner = [folder / f"checkpoint-{step}" for step in (500, 1000)]
    for place in inner:
        place.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(folder / name, place / name)
    (folder / "model.safetensors").unlink()


def _in_parts(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "zero_to_fp32.py").write_text("")


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "multi-label": (lambda f: edit(f, problem_type="multi_label_classification"), "several labels at once"),
    "regression": (lambda f: edit(f, problem_type="regression"), "gives a number"),
    "one label": (lambda f: edit(f, id2label={"0": "LABEL_0"}, label2id=None), "num_labels is 1"),
    "tokens": (lambda f: _named(f, "BertForTokenClassification"), "labels every token"),
    "answers": (lambda f: _named(f, "BertForQuestionAnswering"), "marks an answer"),
    "sequence to sequence": (lambda f: _named(f, "BartForConditionalGeneration"), "writes text"),
    "causal": (lambda f: _named(f, "GPT2LMHeadModel"), "writes text"),
    "bitsandbytes": (
        lambda f: edit(f, quantization_config={"quant_method": "bitsandbytes"}),
        r"quantized \(bitsandbytes\)",
    ),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter"),
    "an adapter alone": (
        lambda f: (f / "model.safetensors").rename(f / "adapter_model.safetensors"),
        "adapter",
    ),
    "gguf": (lambda f: (f / "model.safetensors").rename(f / "m.Q4.gguf"), "GGUF"),
    "flax": (lambda f: (f / "model.safetensors").rename(f / "flax_model.msgpack"), "Flax"),
    "tensorflow": (lambda f: (f / "model.safetensors").rename(f / "tf_model.h5"), "TensorFlow"),
    "mlx": (lambda f: (f / "model.safetensors").rename(f / "weights.npz"), "MLX"),
    "lightning": (lambda f: (f / "model.safetensors").rename(f / "last.ckpt"), "training checkpoint"),
    "git lfs": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "pointer of Git LFS",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
    "checkpoints of a trainer": (_checkpoints, "folders with models: checkpoint-1000, checkpoint-500"),
    "parts of DeepSpeed": (_in_parts, "DeepSpeed in parts"),
    "a width in words": (lambda f: edit(f, hidden_size="32"), "`hidden_size` must be a whole number above 0"),
    "no heads": (lambda f: edit(f, num_attention_heads=0), "`num_attention_heads` must be"),
    "labels in a row": (lambda f: edit(f, label2id=["neg", "pos"]), "`label2id` must be a mapping"),
    "labels that are a number": (lambda f: edit(f, id2label=3), "`id2label` must be a mapping"),
    "a type that is none": (lambda f: edit(f, model_type=["bert"]), "`model_type` must be a name"),
    "padding that is none": (lambda f: edit(f, pad_token_id="[PAD]"), "`pad_token_id` must be the number"),
    "config nested without end": (lambda f: (f / "config.json").write_text("[" * 100_000), "is not JSON"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
    "a shard is missing": (
        _one_shard,
        "names the shard",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_a_teacher_is_refused_before_a_tensor_is_read(what: str, folder: Path) -> None:
    """Names and configuration tell; each refusal says what it is and what to do."""
    spoil, told = REFUSED[what]
    spoil(folder)
    with pytest.raises(RecipeError, match=told) as caught:
        open_model(str(folder))
    assert caught.value.hint or "config" in str(caught.value)


def _code(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": Path("x")}, folder / "pytorch_model.bin")


def _of_each(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return respell(lambda tensors: {n: change(v) if n.endswith(name) else v for n, v in tensors.items()})


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut short": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        "damaged",
    ),
    "a pickle of code": (_code, r"more than tensors \(pathlib"),
    "int8": (
        respell(lambda t: {n: v.to(torch.int8) if n.endswith("query.weight") else v for n, v in t.items()}),
        "quantized weights",
    ),
    "fp8": (_of_each("query.weight", lambda v: v.to(torch.float8_e4m3fn)), "float8_e4m3fn numbers: quant"),
    "NaN": (_of_each("query.weight", lambda v: v * torch.nan), "query.weight holds NaN or infinite numbers"),
    "too large for half": (
        _of_each("key.bias", lambda v: (v.abs() * 1e8).half()),
        "key.bias holds NaN",
    ),
    "fewer layers said": (lambda f: edit(f, num_hidden_layers=1), "more layers than the 1"),
    "a layer missing": (
        respell(lambda t: {n: v for n, v in t.items() if "layer.1.output" not in n}),
        "lack",
    ),
    "other heads than said": (
        lambda f: edit(f, num_attention_heads=5),
        "do not fit .*: size",
    ),
    "labels and rows differ": (lambda f: edit(f, id2label={"0": "a", "1": "b"}, label2id=None), "2 labels"),
}


def test_code_that_is_not_run_is_told() -> None:
    """A type that is known is read as transformers reads it, and the folder's own code is named."""
    config = {"model_type": "bert", "auto_map": {"AutoConfig": "c.C", "AutoModel": "modeling_x.X"}}
    assert "modeling_x.X in config.json" in (unrun_code(config) or "")
    assert unrun_code({"auto_map": {"AutoConfig": "c.C"}}) is None


@pytest.mark.parametrize("what", SPOILT)
def test_weights_that_are_not_what_they_say_are_refused(what: str, folder: Path) -> None:
    """Nothing is filled up with random numbers in silence."""
    spoil, told = SPOILT[what]
    spoil(folder)
    with pytest.raises(RecipeError, match=told):
        logits(folder)


def test_a_tokenizer_knows_no_piece_that_the_model_lacks(folder: Path) -> None:
    """More pieces than embeddings are refused; added tokens beyond them are left out."""
    from compress.networks.tokenizer import served_tokenizer

    model = open_model(str(folder))
    with pytest.raises(RecipeError, match="embeddings 20 rows"):
        served_tokenizer(model, rows=20, max_length=16)
    tokenizer = wordpiece()
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    served = served_tokenizer(model, rows=len(VOCABULARY), max_length=16)
    assert "[MASK]" not in served.content.decode()
