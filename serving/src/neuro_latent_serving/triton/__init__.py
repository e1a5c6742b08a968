"""The Triton python models; each ``model.py`` of the repository names one of these classes.

    tokenizer.py   text and options -> checked, token ids
    graph.py       one ONNX graph: encoder, T5 encoder
    projector.py   the adapters: an ONNX graph each
    decoder.py     the engine, decoupled: a response a piece
    unary.py       one response a request, collected from the decoder

They run inside Triton's python stub, where ``triton_python_backend_utils`` exists.
"""
