"""A DSPy module: a step of a program that makes a prompt better. Needs ``pip install neuro-latent-client[dspy]``.

>>> PromptOptimizer(client)(raw_prompt="Create a function").enhanced_prompt
'Create a function\\n\\nIn Python.'
"""

import dspy

from neuro_latent_client import AsyncClient, Client, GenerationOptions, Optimization


class PromptOptimizer(dspy.Module):
    """``raw_prompt -> enhanced_prompt``, and the other fields of an :class:`Optimization` beside it.

    It asks no language model of DSPy's, and has nothing that DSPy's optimizers could tune.

    Args:
        client: for calls.
        async_client: for ``acall``.
        options: of every request.
    """

    def __init__(
        self, client: Client, async_client: AsyncClient | None = None, options: GenerationOptions | None = None
    ) -> None:
        super().__init__()
        self.client = client
        self.async_client = async_client
        self.options: GenerationOptions = options or {}

    def forward(self, raw_prompt: str) -> dspy.Prediction:
        return _prediction(self.client.optimize(raw_prompt, **self.options))

    async def aforward(self, raw_prompt: str) -> dspy.Prediction:
        if self.async_client is None:
            raise TypeError("acall needs the async_client that PromptOptimizer was made without")
        return _prediction(await self.async_client.optimize(raw_prompt, **self.options))


def _prediction(answer: Optimization) -> dspy.Prediction:
    return dspy.Prediction(
        enhanced_prompt=answer.text,
        added=answer.added,
        unchanged=answer.unchanged,
        score=answer.score,
        finish_reason=answer.finish_reason,
        reason=answer.reason,
        request_id=answer.request_id,
    )
