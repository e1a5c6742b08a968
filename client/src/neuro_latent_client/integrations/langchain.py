"""A LangChain ``Runnable``: prompts get better on their way to a model.

Needs ``pip install neuro-latent-client[langchain]``.

>>> chain = PromptOptimizer(client) | (lambda prompt: prompt.upper())
>>> chain.invoke("Create a function")
'CREATE A FUNCTION\\n\\nIN PYTHON.'
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables import Runnable, RunnableLambda

from neuro_latent_client import AsyncClient, Client, GenerationOptions, InvalidRequestError, Optimization

PromptInput: TypeAlias = str | PromptValue | Sequence[BaseMessage]
PromptOutput: TypeAlias = str | PromptValue | list[BaseMessage]


class PromptOptimizer(RunnableLambda[PromptInput, PromptOutput]):
    """Raw prompt in, enhanced prompt out. Of messages only the last human one is changed, and all others stay as they
    are; a chat prompt of that one alone becomes its text.

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
        super().__init__(self._enhance, self._aenhance if async_client else None, name="PromptOptimizer")

    @property
    def answers(self) -> Runnable[PromptInput, Optimization]:
        """The same with the whole answer: what was added, the confidence, why nothing was.

        >>> PromptOptimizer(client).answers.invoke("Create a function").added
        'In Python.'
        """
        return RunnableLambda(self._optimize, self._aoptimize if self.async_client else None)

    def _enhance(self, prompt: PromptInput, **options: Any) -> PromptOutput:
        text, put = _split(prompt)
        return put(self._optimize(text, **options).text)

    async def _aenhance(self, prompt: PromptInput, **options: Any) -> PromptOutput:
        text, put = _split(prompt)
        return put((await self._aoptimize(text, **options)).text)

    def _optimize(self, prompt: PromptInput, **options: Any) -> Optimization:
        return self.client.optimize(_split(prompt)[0], **self._options(options))

    async def _aoptimize(self, prompt: PromptInput, **options: Any) -> Optimization:
        assert self.async_client
        return await self.async_client.optimize(_split(prompt)[0], **self._options(options))

    def _options(self, given: dict[str, Any]) -> GenerationOptions:
        return cast(GenerationOptions, {**self.options, **given})


def _split(prompt: PromptInput) -> tuple[str, Callable[[str], PromptOutput]]:
    """The text to make better, and what puts another in its place.

    Raises:
        InvalidRequestError: there is no human message, or the last one has more than text.
    """
    if isinstance(prompt, str):
        return prompt, str
    if isinstance(prompt, PromptValue) and not isinstance(prompt, ChatPromptValue):
        return prompt.to_string(), str
    messages = convert_to_messages(prompt.to_messages() if isinstance(prompt, PromptValue) else prompt)
    place = max((i for i, message in enumerate(messages) if isinstance(message, HumanMessage)), default=None)
    if place is None:
        raise InvalidRequestError("raw_prompt: none of the messages is a human's")
    content = messages[place].content
    parts = [content] if isinstance(content, str) else content
    texts = [part if isinstance(part, str) else part.get("text") for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequestError(
            "raw_prompt: the last human message has parts that are no text (a picture?), which cannot be made better; "
            "put them into a message of their own before it"
        )

    def put(text: str) -> PromptOutput:
        if isinstance(prompt, ChatPromptValue) and len(messages) == 1:
            return text
        changed = [*messages]
        changed[place] = messages[place].model_copy(update={"content": text})
        return ChatPromptValue(messages=changed) if isinstance(prompt, PromptValue) else changed

    return "".join(cast(list[str], texts)), put
