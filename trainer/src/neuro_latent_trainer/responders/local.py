"""A causal language model that runs in this process."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from neuro_latent_trainer.command_line import tracked
from neuro_latent_trainer.responders.responder import Answered, ResponderError, Usage

PROMPT_TOKENS = 1024
ANSWER_TOKENS = 256
"""What is read of a prompt (its end; more where the model's window has room), and of an answer (its beginning)."""


class LocalResponder:
    """A :class:`~neuro_latent_trainer.responders.Responder` of Hugging Face's transformers.

    Args:
        model: a folder in Hugging Face's format, a name on the Hub, or a GGUF file (which needs the package ``gguf``).

    Raises:
        ResponderError: it cannot be loaded.
    """

    def __init__(self, model: str) -> None:
        path, options = Path(model), dict[str, Any]()
        source = model
        if path.suffix == ".gguf":
            source, options = str(path.parent), {"gguf_file": path.name}
            if not path.is_file():
                raise ResponderError(f"--responder {model}: there is no such file")
        logging.disable_progress_bar()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(source, **options)
            self._model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options).eval()
        except ImportError as error:
            raise ResponderError(f"--responder {model} needs another package: {error}") from None
        except (OSError, ValueError, KeyError) as error:
            raise ResponderError(f"--responder {model} cannot be loaded as a causal language model: {error}") from None
        if torch.cuda.is_available():
            self._model = self._model.cuda()
        window = getattr(self._model.config, "max_position_embeddings", None) or PROMPT_TOKENS
        self._prompt_tokens = max(PROMPT_TOKENS, window - ANSWER_TOKENS)
        self.identity = f"{path.name} {_fingerprint(self._model)}"
        self.usage = Usage()

    @torch.inference_mode()
    def answers(self, prompts: Sequence[str], most_tokens: int, stage: str = "") -> list[str]:
        """Greedy answers: see :class:`~neuro_latent_trainer.responders.Responder`."""
        found = []
        for prompt in tracked(prompts, stage, len(prompts)):
            asked = torch.tensor([self._asked(prompt)], device=self._model.device)
            ids = self._model.generate(
                asked,
                attention_mask=torch.ones_like(asked),
                max_new_tokens=most_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
            )[0, asked.shape[1] :]
            self._count(asked.shape[1], len(ids))
            found.append(self._tokenizer.decode(ids, skip_special_tokens=True).strip())
        return found

    @torch.inference_mode()
    def log_likelihoods(self, pairs: Sequence[Answered], stage: str = "") -> list[float]:
        """Nats a token: see :class:`~neuro_latent_trainer.responders.Responder`."""
        found = []
        for prompt, answer in tracked(pairs, stage, len(pairs)):
            said = self._tokenizer(answer, add_special_tokens=False)["input_ids"][:ANSWER_TOKENS]
            if not said:
                raise ResponderError("an answer without any token has no likelihood: leave empty answers out")
            asked = self._asked(prompt)
            ids = torch.tensor([[*asked, *said]], device=self._model.device)
            logits = self._model(ids, logits_to_keep=len(said) + 1).logits[0, :-1].float()
            chosen = logits.log_softmax(-1).gather(-1, ids[0, -len(said) :, None])
            self._count(ids.shape[1], 0)
            found.append(chosen.mean().item())
        return found

    def _asked(self, prompt: str) -> list[int]:
        """The tokens of a prompt, as the model's chat has it."""
        if self._tokenizer.chat_template is None:
            text = f"{prompt}\n\n"
        else:
            chat = [{"role": "user", "content": prompt}]
            text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids[-self._prompt_tokens :]

    def _count(self, prompt_tokens: int, answer_tokens: int) -> None:
        self.usage.asked += 1
        self.usage.prompt_tokens += prompt_tokens
        self.usage.answer_tokens += answer_tokens


def _fingerprint(model: Any) -> str:
    """A short hash of some weights of every tensor: another version of a model has another one."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
