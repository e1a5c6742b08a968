"""One system as a process: JSON lines in and out. Runs in the baselines' environment; imports what it is told to.

=============  =============================================  ==========================================
op             fields                                         answer
=============  =============================================  ==========================================
``load``       ``system``, ``folder``, ``threads``, ...       ``versions``
``generate``   ``ids``, ``new_tokens``                        ``seconds``, ``tokens`` (ids of the text)
``groups``     ``groups``, ``rows_end``                       ``seconds``
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
import time
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
    """CTranslate2 with one translator; ``translators`` above 1 work at the same time, with ``threads`` each."""

    versions = property(lambda self: {"ctranslate2": importlib.metadata.version("ctranslate2")})

    def __init__(self, folder, threads, quantization, converted, translators=1):
        import ctranslate2  # type: ignore[import-not-found]

        if not (Path(converted) / "model.bin").is_file():
            converter = ctranslate2.converters.TransformersConverter(folder)
            converter.convert(converted, quantization=None if quantization == "float32" else quantization, force=True)
        self._translator = ctranslate2.Translator(
            converted,
            device="cpu",
            compute_type=quantization,
            inter_threads=translators,
            intra_threads=threads,
        )
        self._names = {i: name for name, i in SPECIAL.items()}

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

    def _translate(self, tokens, new_tokens, **more):
        return self._translator.translate_batch(
            tokens, beam_size=1, max_decoding_length=new_tokens, min_decoding_length=new_tokens, **more
        )


def _ends_at(lengths):
    return lambda step: step.step + 1 >= lengths[step.batch_id]


class HuggingFace:
    """``generate`` of transformers, on PyTorch as it comes, or on ONNX Runtime through optimum-onnx."""

    def __init__(self, folder, threads, converted=None):
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self._packages = ["torch", "transformers"]
        if converted is None:
            from transformers import T5ForConditionalGeneration

            self._model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        else:
            self._packages += ["optimum-onnx", "onnxruntime"]
            self._model = self._optimum(folder, threads, converted)

    @property
    def versions(self):
        return {name: importlib.metadata.version(name) for name in self._packages}

    @staticmethod
    def _optimum(folder, threads, converted):
        import onnxruntime
        from optimum.onnxruntime import ORTModelForSeq2SeqLM  # type: ignore[import-not-found]

        # Two decoder graphs, with past and without: faster here than the merged one.
        options = {"use_merged": False, "use_cache": True}
        if not (Path(converted) / "decoder_with_past_model.onnx").is_file():
            ORTModelForSeq2SeqLM.from_pretrained(folder, export=True, **options).save_pretrained(converted)
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        return ORTModelForSeq2SeqLM.from_pretrained(converted, session_options=session, **options)

    def generate(self, ids, new_tokens):
        torch = self._torch
        batch = torch.tensor([ids])
        mask = torch.ones_like(batch)
        start = time.perf_counter()
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=batch, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, num_beams=1
            )
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "tokens": out[0, 1:].tolist()}


def make(question):
    """The system that a ``load`` asks for."""
    system = question.pop("system")
    return {"ctranslate2": CTranslate2, "huggingface": HuggingFace}[system](**question)


if __name__ == "__main__":
    serve(make)
