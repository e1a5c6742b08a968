"""Engines for NVIDIA's GPUs: which TensorRT builds them, for which sizes, and from the exported graphs."""
