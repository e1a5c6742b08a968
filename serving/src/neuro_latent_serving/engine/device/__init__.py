"""The decoder on a device: caches, tokens and results lie in its memory, and only small things cross to the host.

runtime.py         what is asked of the library that runs the graphs
device_cache.py    rows of keys and values in the device's memory
device_decoder.py  prefill and step over them, whichever library runs them
onnx.py            ONNX Runtime: the CUDA provider, and the CPU's for tests
tensorrt.py        TensorRT
"""
