"""A LangChain ``Runnable``: prompts get better on their way to a model.

Needs ``pip install neuro-latent-client[langchain]``.

>>> chain = PromptOptimizer(client) | (lambda prompt: prompt.upper())
>>> chain.invoke("Create a function")
'WRITE A PYTHON FUNCTION.'
"""

from typing import Any, TypeAlias, cast

from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig

from neuro_latent_client import AsyncClient, Client, GenerationOptions

PromptInput: TypeAlias = str | PromptValue


class PromptOptimizer(Runnable[PromptInput, str]):
    """Raw prompt in, enhanced prompt out; a prompt template's value counts as its text.

    Args:
        client: for ``invoke``, ``batch`` and ``stream``.
        async_client: for ``ainvoke`` and ``astream``; without one, threads use ``client``.
        options: of every request; arguments of a call (``bind(seed=7)``) go before them.

    Its errors are those of :meth:`Client.optimize`. ``stream`` gives the text when it cannot change any more: a server
    that repairs an answer replaces what it has sent, and a chain cannot take text back.
    """

    def __init__(
        self, client: Client, async_client: AsyncClient | None = None, options: GenerationOptions | None = None
    ) -> None:
        self.client = client
        self.async_client = async_client
        self.options: GenerationOptions = options or {}

    def invoke(self, input: PromptInput, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        def optimize(prompt: PromptInput) -> str:
            return self.client.optimize(_text(prompt), **self._options(kwargs)).text

        return self._call_with_config(optimize, input, config)

    async def ainvoke(self, input: PromptInput, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        if self.async_client is None:
            return await super().ainvoke(input, config, **kwargs)
        client = self.async_client

        async def optimize(prompt: PromptInput) -> str:
            return (await client.optimize(_text(prompt), **self._options(kwargs))).text

        return await self._acall_with_config(optimize, input, config)

    def _options(self, given: dict[str, Any]) -> GenerationOptions:
        return cast(GenerationOptions, {**self.options, **given})


def _text(prompt: PromptInput) -> str:
    return prompt.to_string() if isinstance(prompt, PromptValue) else prompt
