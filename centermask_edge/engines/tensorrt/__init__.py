"""TensorRT and TensorRT-RTX: build engines from the ONNX file, run them, say what they are."""
