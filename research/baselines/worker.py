"""One system as a process: JSON lines in and out. Runs in the baselines' environment; imports what it is told to.

=============  =============================================  ==========================================
op             fields                                         answer
=============  =============================================  ==========================================
``load``       ``system``, ``folder``, ``threads``, ...       ``versions``
``generate``   ``ids``, ``new_tokens``                        ``seconds``, ``tokens`` (ids of the text)
``groups``     ``groups``, ``rows_end``                       ``seconds``
``requests``   ``requests``, ``clients``, ``size``            ``seconds``
``quit``       --                                             none; the process ends
=============  =============================================  ==========================================

Greedy decoding everywhere; the weights never end a text, so it has ``new_tokens`` tokens. Times are taken here, around
the system's own call. While no question is open the process sleeps in a read.
"""

import importlib.metadata
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

DECODER_START, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPECIAL = {DECODER_START: 0, END: 1, UNKNOWN: 2}


def serve(make):
    """Answer questions until ``quit`` or the end of stdin; ``make`` turns a ``load`` into a system."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started us
    # Libraries print to stdout; the answers go where they cannot.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    system = None
    for line in sys.stdin:
        question = json.loads(line)
        op = question.pop("op")
        if op == "quit":
            break
        try:
            if op == "load":
                system = make(question)
                answer = {"versions": system.versions}
            else:
                answer = getattr(system, op)(**question)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    if system is not None and hasattr(system, "close"):
        system.close()


class CTranslate2:
    """CTranslate2 with one translator; ``translators`` above 1 work at the same time, with ``threads`` each.

    ``pair`` is the folder of the models, for :meth:`requests`.
    """

    versions = property(lambda self: {"ctranslate2": importlib.metadata.version("ctranslate2")})

    def __init__(self, folder, threads, quantization, converted, translators=1, pair=None):
        import ctranslate2  # type: ignore[import-not-found]

        if not (Path(converted) / "model.bin").is_file():
            converter = ctranslate2.converters.TransformersConverter(folder)
            converter.convert(converted, quantization=None if quantization == "float32" else quantization, force=True)
        options = {
            "device": "cpu",
            "compute_type": quantization,
            "inter_threads": translators,
            "intra_threads": threads,
        }
        self._translator = ctranslate2.Translator(converted, **options)
        self._names = {i: name for name, i in SPECIAL.items()}
        if pair is not None:
            from tokenizers import Tokenizer

            encoder = _roberta(Path(pair) / "encoder", Path(f"{converted}-encoder"), quantization)
            self._encoder = ctranslate2.Encoder(encoder, **options)
            self._reader, self._writer = (
                Tokenizer.from_file(str(Path(pair) / name / "tokenizer.json")) for name in ("encoder", "generator")
            )
            self._translators = translators

    def _tokens(self, ids):
        return [self._names.get(i, str(i)) for i in ids]

    def generate(self, ids, new_tokens):
        tokens = self._tokens(ids)
        start = time.perf_counter()
        (result,) = self._translate([tokens], new_tokens)
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "tokens": [SPECIAL.get(t) if t in SPECIAL else int(t) for t in result.hypotheses[0]],
        }

    def groups(self, groups, rows_end):
        """Decode group after group, each as one static batch.

        ``rows_end``: a row leaves the batch at its own length (as it does when its text ends by itself), which a
        callback a token says; else all rows are decoded to the length of the longest.
        """
        prepared = [([self._tokens(ids) for ids, _ in group], [length for _, length in group]) for group in groups]
        start = time.perf_counter()
        pending = []
        for tokens, lengths in prepared:
            more = {"callback": _ends_at(lengths)} if rows_end else {}
            pending += self._translate(tokens, max(lengths), asynchronous=True, **more)
        for row in pending:
            row.result()
        return {"seconds": time.perf_counter() - start}

    def requests(self, requests, clients, size):
        """Whole requests, text in and text out: both tokenizers, RoBERTa, T5 encoder and decoder.

        ``clients`` ask again as soon as their answer is complete, which may be before its batch ends; each translator
        takes what waits when it is free, in the order of arrival and ``size`` at the most.
        """
        waiting, later = deque(requests[:clients]), deque(requests[clients:])
        changed = threading.Condition()

        def answered():
            with changed:
                if later:
                    waiting.append(later.popleft())
                    changed.notify()
                if not later:
                    changed.notify_all()

        def work():
            while True:
                with changed:
                    changed.wait_for(lambda: waiting or not later)
                    group = [waiting.popleft() for _ in range(min(size, len(waiting)))]
                if not group:
                    return
                try:
                    self._answer(group, answered)
                except BaseException:
                    with changed:  # the others must not wait for answers that will not come
                        waiting.clear()
                        later.clear()
                        changed.notify_all()
                    raise

        start = time.perf_counter()
        with ThreadPoolExecutor(self._translators) as pool:
            for work_done in [pool.submit(work) for _ in range(self._translators)]:
                work_done.result()
        return {"seconds": time.perf_counter() - start}

    def _answer(self, group, answered):
        """One batch of texts; a row leaves it at its own length, and ``answered`` is called."""
        texts, lengths = zip(*group, strict=True)
        self._encoder.forward_batch([self._reader.encode(text).ids for text in texts])
        tokens = [self._tokens(self._writer.encode(text).ids) for text in texts]
        rows = self._translate(tokens, max(lengths), callback=_ends_at(lengths, answered))
        return [self._writer.decode([int(t) for t in row.hypotheses[0] if t not in SPECIAL]) for row in rows]

    def _translate(self, tokens, new_tokens, **more):
        return self._translator.translate_batch(
            tokens, beam_size=1, max_decoding_length=new_tokens, min_decoding_length=new_tokens, **more
        )


def _ends_at(lengths, ended=lambda: None):
    """A callback for each token of a batch: does the row end with it?"""

    def ends(step):
        if step.step + 1 == lengths[step.batch_id]:
            ended()
        return step.step + 1 >= lengths[step.batch_id]

    return ends


def _roberta(folder, converted, quantization):
    """The text encoder in CTranslate2's form, converted on first use."""
    import ctranslate2
    import transformers

    class Converter(ctranslate2.converters.TransformersConverter):
        def load_tokenizer(self, tokenizer_class, folder, **more):
            # Our transformers writes a class that this one does not know, and fewer tokens than the model has.
            tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
            size = transformers.AutoConfig.from_pretrained(folder).vocab_size
            tokenizer.add_tokens([f"<{i}>" for i in range(len(tokenizer), size)])
            return tokenizer

    if not (converted / "model.bin").is_file():
        Converter(str(folder)).convert(str(converted), quantization=quantization, force=True)
    return str(converted)


class HuggingFace:
    """``generate`` of transformers on PyTorch, eager or compiled, on ONNX Runtime (optimum-onnx) or on OpenVINO."""

    def __init__(self, folder, threads, runtime, converted=None):
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self._packages = ["torch", "transformers"]
        self._options = {}
        if runtime == "onnx":
            self._packages += ["optimum-onnx", "onnxruntime"]
            self._model = self._onnx(folder, threads, converted)
        elif runtime.startswith("openvino"):
            self._packages += ["optimum-intel", "openvino", "nncf"]
            self._model = self._openvino(folder, threads, converted, 8 if runtime.endswith("int8") else None)
        else:
            from transformers import T5ForConditionalGeneration

            self._model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
            if runtime == "compiled":
                # Its best here: weights laid out for the processor, and the best of several kernels for each product.
                options = {"freezing": True, "max_autotune": True}
                self._model.forward = torch.compile(self._model.forward, options=options)
                self._options["cache_implementation"] = "static"

    @property
    def versions(self):
        return {name: importlib.metadata.version(name) for name in self._packages}

    @staticmethod
    def _onnx(folder, threads, converted):
        import onnxruntime
        from optimum.onnxruntime import ORTModelForSeq2SeqLM  # type: ignore[import-not-found]

        # Two decoder graphs, with past and without: faster here than the merged one.
        options = {"use_merged": False, "use_cache": True}
        if not (Path(converted) / "decoder_with_past_model.onnx").is_file():
            ORTModelForSeq2SeqLM.from_pretrained(folder, export=True, **options).save_pretrained(converted)
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        return ORTModelForSeq2SeqLM.from_pretrained(converted, session_options=session, **options)

    @staticmethod
    def _openvino(folder, threads, converted, bits):
        """``bits`` of the weights; None is fp32 for weights and arithmetic, where OpenVINO would take bf16."""
        from optimum.intel import OVModelForSeq2SeqLM, OVWeightQuantizationConfig  # type: ignore[import-not-found]

        if not (Path(converted) / "openvino_decoder_model.xml").is_file():
            how = {"quantization_config": OVWeightQuantizationConfig(bits=bits)} if bits else {"load_in_8bit": False}
            model = OVModelForSeq2SeqLM.from_pretrained(folder, export=True, compile=False, **how)
            model.save_pretrained(converted)
        config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if bits is None:
            config["INFERENCE_PRECISION_HINT"] = "f32"
        return OVModelForSeq2SeqLM.from_pretrained(converted, ov_config=config)

    def generate(self, ids, new_tokens):
        torch = self._torch
        batch = torch.tensor([ids])
        mask = torch.ones_like(batch)
        options = {"max_new_tokens": new_tokens, "do_sample": False, "num_beams": 1, **self._options}
        start = time.perf_counter()
        with torch.inference_mode():
            out = self._model.generate(input_ids=batch, attention_mask=mask, **options)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "tokens": out[0, 1:].tolist()}


class LlamaCpp:
    """llama.cpp's library: ``llama_encode`` once, ``llama_decode`` for each token. Only ids: it gets no vocabulary."""

    versions = property(lambda self: {name: importlib.metadata.version(name) for name in ("llama-cpp-python", "gguf")})

    def __init__(self, folder, threads, quantization, converted):
        import llama_cpp  # type: ignore[import-not-found]

        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)  # kept: the library calls it
        llama_cpp.llama_log_set(self._quiet, None)
        file = Path(converted) / "model.gguf"
        if not file.is_file():
            _write_gguf(Path(folder), file, quantization)
        self._llama = llama_cpp
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = 512
        options.n_threads = options.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        if not self._context:
            raise RuntimeError("llama.cpp cannot open the model")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def generate(self, ids, new_tokens):
        import numpy as np

        llama, context = self._llama, self._context
        prompt, token = (llama.llama_token * len(ids))(*ids), (llama.llama_token * 1)(SPECIAL[DECODER_START])
        one, tokens = llama.llama_batch_get_one(token, 1), []
        start = time.perf_counter()
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        failed = llama.llama_encode(context, llama.llama_batch_get_one(prompt, len(ids)))
        while not failed and len(tokens) < new_tokens:
            failed = llama.llama_decode(context, one)
            logits = llama.llama_get_logits_ith(context, -1)
            token[0] = int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())
            tokens.append(token[0])
        seconds = time.perf_counter() - start
        if failed:
            raise RuntimeError(f"llama.cpp says {failed}")
        return {"seconds": seconds, "tokens": tokens}


def _write_gguf(folder, file, quantization):
    """A T5 in hub format as a GGUF file, with llama.cpp's names for it; quantized as its own tool does."""
    import ctypes

    import gguf  # type: ignore[import-not-found]
    import llama_cpp
    import numpy as np
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    file.parent.mkdir(parents=True, exist_ok=True)
    exact = file.with_suffix(".f32")
    writer = gguf.GGUFWriter(str(exact), "t5")
    writer.add_context_length(config.get("n_positions", 512))
    writer.add_embedding_length(config["d_model"])
    writer.add_feed_forward_length(config["d_ff"])
    writer.add_block_count(config["num_layers"])
    writer.add_decoder_block_count(config["num_decoder_layers"])
    writer.add_head_count(config["num_heads"])
    writer.add_key_length(config["d_kv"])
    writer.add_value_length(config["d_kv"])
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    writer.add_relative_attn_buckets_count(config["relative_attention_num_buckets"])
    writer.add_decoder_start_token_id(config["decoder_start_token_id"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config["vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, max(config["num_layers"], config["num_decoder_layers"]))
    for name, tensor in load_file(folder / "model.safetensors").items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if quantization != "f32":
        quantized = file.with_suffix(f".{quantization}")
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{quantization.upper()}")
        if llama_cpp.llama_model_quantize(str(exact).encode(), str(quantized).encode(), ctypes.byref(options)):
            raise RuntimeError(f"llama.cpp cannot quantize to {quantization}")
        exact.unlink()
        exact = quantized
    exact.rename(file)


def make(question):
    """The system that a ``load`` asks for."""
    system = question.pop("system")
    return {"ctranslate2": CTranslate2, "huggingface": HuggingFace, "llama": LlamaCpp}[system](**question)


if __name__ == "__main__":
    serve(make)
