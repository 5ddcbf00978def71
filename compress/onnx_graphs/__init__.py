"""ONNX text classifiers that others exported: found, looked at, and put into the form that is served."""
