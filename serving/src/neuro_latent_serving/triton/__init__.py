"""The Triton python models; each ``model.py`` of the repository names one of these classes.

    tokenizer.py   text and options -> checked, token ids
    graph.py       one ONNX graph: encoder, projector, T5 encoder
    decoder.py     the engine, decoupled: a response a piece
    unary.py       one response a request, collected from the decoder

They run inside Triton's python stub, where ``triton_python_backend_utils`` exists.
"""
