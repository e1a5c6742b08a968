"""A LangChain ``Runnable``: prompts get better on their way to a model.

Needs ``pip install neuro-latent-client[langchain]``.

>>> chain = PromptOptimizer(client) | (lambda prompt: prompt.upper())
>>> chain.invoke("Create a function")
'CREATE A FUNCTION\\n\\nIN PYTHON.'
"""

from typing import Any, TypeAlias, cast

from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from neuro_latent_client import AsyncClient, Client, GenerationOptions, Optimization

PromptInput: TypeAlias = str | PromptValue


class PromptOptimizer(Runnable[PromptInput, str]):
    """Raw prompt in, enhanced prompt out; a prompt template's value counts as its text.

    Args:
        client: for ``invoke``, ``batch`` and ``stream``.
        async_client: for ``ainvoke`` and ``astream``; without one, threads use ``client``.
        options: of every request; arguments of a call (``bind(seed=7)``) go before them.

    Its errors are those of :meth:`Client.optimize`.
    """

    def __init__(
        self, client: Client, async_client: AsyncClient | None = None, options: GenerationOptions | None = None
    ) -> None:
        self.client = client
        self.async_client = async_client
        self.options: GenerationOptions = options or {}

    @property
    def answers(self) -> Runnable[PromptInput, Optimization]:
        """The same with the whole answer: what was added, the confidence, why nothing was.

        >>> PromptOptimizer(client).answers.invoke("Create a function").added
        'In Python.'
        """
        return RunnableLambda(self._optimize, self._aoptimize if self.async_client else None)

    def invoke(self, input: PromptInput, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        def optimize(prompt: PromptInput) -> str:
            return self._optimize(prompt, **kwargs).text

        return self._call_with_config(optimize, input, config)

    async def ainvoke(self, input: PromptInput, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        if self.async_client is None:
            return await super().ainvoke(input, config, **kwargs)

        async def optimize(prompt: PromptInput) -> str:
            return (await self._aoptimize(prompt, **kwargs)).text

        return await self._acall_with_config(optimize, input, config)

    def _optimize(self, prompt: PromptInput, **options: Any) -> Optimization:
        return self.client.optimize(_text(prompt), **self._options(options))

    async def _aoptimize(self, prompt: PromptInput, **options: Any) -> Optimization:
        assert self.async_client
        return await self.async_client.optimize(_text(prompt), **self._options(options))

    def _options(self, given: dict[str, Any]) -> GenerationOptions:
        return cast(GenerationOptions, {**self.options, **given})


def _text(prompt: PromptInput) -> str:
    return prompt.to_string() if isinstance(prompt, PromptValue) else prompt
