"""Run the ONNX file: one call, detections of a fixed size."""
