"""Tiny models of many architectures, with random weights, as folders that transformers wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.compress.conftest import FILLERS, WORDS

LABELS = tuple(WORDS)
VOCABULARY = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *FILLERS,
    *(word for group in WORDS.values() for word in group),
)
COMMON: dict[str, Any] = {
    "vocab_size": len(VOCABULARY), "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
    "intermediate_size": 48, "max_position_embeddings": 80, "pad_token_id": 0,
    "id2label": dict(enumerate(LABELS)), "label2id": {label: row for row, label in enumerate(LABELS)},
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "distilbert": {"dim": 32, "n_heads": 4, "n_layers": 2, "hidden_dim": 48},
}
FOREIGN: dict[str, dict[str, Any]] = {
    "mpnet": {},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "deberta-v2": {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16,
        "norm_rel_ebd": "layer_norm", "share_att_key": True, "max_relative_positions": -1,
        "position_biased_input": False, "type_vocab_size": 0, "pooler_hidden_size": 32,
    },
    "deberta": {
        "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
        "pooler_hidden_size": 32,
    },
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "convbert": {"embedding_size": 32},
    "squeezebert": {"embedding_size": 32},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "fnet": {},
    "big_bird": {"attention_type": "original_full"},
    "roformer": {"embedding_size": 32},
    "xlm": {"emb_dim": 32, "n_heads": 4, "n_layers": 2},
    "flaubert": {"emb_dim": 32, "n_heads": 4, "n_layers": 2},
    "ernie": {},
    "megatron-bert": {},
    "data2vec-text": {},
    "roberta-prelayernorm": {},
    "xlm-roberta-xl": {},
    "ibert": {},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "esm": {"mask_token_id": 1},
    "nomic_bert": {},
    "gte": {},
    "eurobert": {},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 80},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "llama": {},
}  # fmt: skip


def wordpiece() -> Tokenizer:
    """Return a WordPiece tokenizer over the toy words, uncased."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def tiny_model(folder: Path, kind: str, *, classifier: bool = True, **changes: Any) -> Any:
    """Write a tiny model of an architecture with its tokenizer into a folder, and return it."""
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**COMMON, **(OWN | FOREIGN)[kind], **changes}
    config = transformers.AutoConfig.for_model(kind, **settings)
    made = transformers.AutoModelForSequenceClassification if classifier else transformers.AutoModel
    torch.manual_seed(0)
    model = made.from_config(config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
            elif not name.lower().endswith("norm.weight"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    model.save_pretrained(folder)
    wordpiece().save(str(folder / "tokenizer.json"))
    return model
