"""Run one variant: text in, logits out, on ONNX Runtime, plain arrays or a fake; and measure the machine."""
