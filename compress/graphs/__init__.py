"""ONNX graphs: exported, rewritten, put in lower precision, and verified against their network."""
