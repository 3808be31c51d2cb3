"""The ONNX file: what it holds, how it is written, and how it is lowered for each engine."""
