"""Models that cannot answer a closed question with one label, told by name before anything is read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from contract.errors import RecipeError

# What a class of transformers ends in -> what it does instead of naming one label of a text.
OTHER_HEADS: Mapping[str, str] = {
    "ForTokenClassification": "labels every token",
    "ForQuestionAnswering": "marks an answer in a text",
    "ForMultipleChoice": "chooses among texts",
    "ForNextSentencePrediction": "says whether two texts follow one another",
    "ForConditionalGeneration": "writes text (sequence to sequence)",
    "ForCausalLM": "writes text (a causal language model)",
    "LMHeadModel": "writes text (a causal language model)",
    "ForImageClassification": "classifies images",
    "ForAudioClassification": "classifies sounds",
}
ENCODER_ALONE = "AutoModel.from_pretrained(FOLDER).save_pretrained(NEW) keeps its encoder, to train a head on"
# Ending of a file's name -> what it is, and what to do.
OTHER_FORMATS: tuple[tuple[str, str, str], ...] = (
    (".gguf", "GGUF, the quantized form of llama.cpp", "take the folder that it was made from"),
    (".onnx", "an ONNX graph", "give the .onnx file itself as teacher.weights, with `epochs: 0`"),
    (
        "tf_model.h5",
        "TensorFlow's",
        "transformers 4 converts it: AutoModel.from_pretrained(FOLDER, from_tf=True).save_pretrained(NEW)",
    ),
    (
        "flax_model.msgpack",
        "Flax's",
        "transformers 4 converts it: AutoModel.from_pretrained(FOLDER, from_flax=True).save_pretrained(NEW)",
    ),
    (".npz", "MLX's", "take the folder that it was converted from"),
    (".ckpt", "a training checkpoint", "load it and call save_pretrained(FOLDER) of the model inside it"),
    (".pt", "a training checkpoint", "load it and call save_pretrained(FOLDER) of the model inside it"),
    (".pth", "a training checkpoint", "load it and call save_pretrained(FOLDER) of the model inside it"),
)
_AUTO = ("AutoModelForSequenceClassification", "AutoModel")
_WEIGHTS = re.compile(r"/(model|pytorch_model)[^/]*\.(safetensors|bin)$")
MERGE = (
    "merge it: peft.AutoPeftModelForSequenceClassification.from_pretrained(FOLDER, num_labels=N)"
    ".merge_and_unload().save_pretrained(NEW)"
)


def require_config(config: Mapping[str, Any], names: Collection[str], source: str) -> None:
    """Check a configuration and the names beside it.

    Raises:
        RecipeError: an adapter, quantized weights, code of its own, a head for another task, several labels
            at once, or a number.
    """

    def refuse(rule: str, hint: str) -> RecipeError:
        return RecipeError(f"teacher.weights: {rule}", where=source, hint=hint)

    if "adapter_config.json" in names:
        raise refuse("the folder holds an adapter (PEFT) that changes a model elsewhere", MERGE)
    quantized = config.get("quantization_config") or config.get("compression_config")
    if quantized:
        method = quantized.get("quant_method", "quantized") if isinstance(quantized, dict) else "quantized"
        raise refuse(
            f"its weights are quantized ({method}); a teacher is read in full precision and quantized here",
            "take the folder that it was made from, or `model.dequantize()` and save_pretrained(NEW)",
        )
    heads = [str(name) for name in config.get("architectures") or ()]
    for head in heads:
        for ending, does in OTHER_HEADS.items():
            if head.endswith(ending):
                raise refuse(
                    f"{head} {does}; a teacher here says which one of several labels a text has",
                    "an encoder or a ...ForSequenceClassification"
                    + ("" if "text" in does else f"; {ENCODER_ALONE}"),
                )
    problem = config.get("problem_type")
    if problem == "multi_label_classification":
        raise refuse(
            "its head gives a text several labels at once (problem_type: multi_label)", ENCODER_ALONE
        )
    classifies = any(head.endswith("ForSequenceClassification") for head in heads)
    if problem == "regression" or (classifies and labels_in(config) == 1):
        raise refuse("its head gives a number, not a label (regression: num_labels is 1)", ENCODER_ALONE)


def labels_in(config: Mapping[str, Any]) -> int | None:
    """Return how many labels a configuration names, or None where it names none."""
    named = config.get("id2label") or config.get("label2id")
    if named:
        return len(named)
    count = config.get("num_labels")
    return None if count is None else int(count)


def unrun_code(config: Mapping[str, Any]) -> str | None:
    """Return a line on code of its own that a folder names for its model, None where it names none."""
    named = config.get("auto_map")
    classes = [named.get(key) for key in _AUTO] if isinstance(named, Mapping) else []
    told = next((str(name) for name in classes if name), None)
    if told is None:
        return None
    return f"its code of its own ({told} in config.json) is not run: it is read as transformers reads it"


def models_inside(paths: Collection[str]) -> list[str]:
    """Return the folders in a folder that hold models, such as checkpoints, the latest first."""
    outer = [path.rpartition("/")[0] for path in paths if path.endswith("/config.json")]
    whole = [
        folder for folder in outer if any(p.startswith(f"{folder}/") and _WEIGHTS.search(p) for p in paths)
    ]
    return sorted(whole, key=lambda folder: [int(n) for n in re.findall(r"[0-9]+", folder)], reverse=True)


def why_no_weights(names: Collection[str], inside: Sequence[str] = ()) -> tuple[str, str]:
    """Return what a folder holds in place of weights that are read, and what to do about it.

    Args:
        names: of the files in it and below, without their folders.
        inside: folders in it that hold models.
    """
    if inside:
        return f", but folders with models: {', '.join(inside[:5])}", f"give one of them, such as {inside[0]}"
    if "zero_to_fp32.py" in names:
        return ", but a checkpoint of DeepSpeed in parts", (
            "python zero_to_fp32.py . OUT --safe_serialization, in that folder, puts them together"
        )
    if "adapter_model.safetensors" in names or "adapter_config.json" in names:
        return " but an adapter (PEFT) that changes a model elsewhere", MERGE
    for ending, form, hint in OTHER_FORMATS:
        found = sorted(name for name in names if name.endswith(ending))
        if found:
            return f"; {found[0]} is {form}", hint
    other = sorted(name for name in names if name.endswith(".safetensors"))
    if other:
        return f"; it has {other[0]}", "rename that file if it holds the whole model"
    return "", "save it with save_pretrained(FOLDER) of model and tokenizer"
