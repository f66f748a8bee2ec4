"""Networks that files describe as graphs of operators: torch.export and ONNX, read without running their code."""
