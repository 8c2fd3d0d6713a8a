"""Exporting a student to ONNX, `torch.export` or safetensors, and verifying each file."""
