"""A run as one program for other runtimes: ONNX, or `torch.export`; kept only where it answers as `predict` does."""
