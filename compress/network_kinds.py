"""The kinds of networks there are, by name: light enough to read without torch."""

from __future__ import annotations

# "network" of architecture.json -> the function (folder -> network) that reads such a folder.
NETWORKS: dict[str, str] = {
    "bert": "compress.networks.network:read_classifier",
    "cnn": "compress.learning.text_cnn:read_text_cnn",
    "transformers": "compress.networks.foreign_making:read_foreign",
    "onnx": "compress.onnx_graphs.network:read_graph",
    "image": "compress.networks.image_models:read_image_network",
}
