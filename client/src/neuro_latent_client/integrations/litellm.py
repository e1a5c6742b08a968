"""A hook of LiteLLM's proxy: prompts get better on their way to a model. Needs ``pip install litellm[proxy]``.

Its settings name an instance, which stands in a file beside them::

    litellm_settings: {callbacks: hook.optimizer}
"""

from collections.abc import Callable
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from neuro_latent_client import AsyncClient, InvalidRequestError
from neuro_latent_client.chat import SWITCH, ChatOptimizer, log

CALLS = frozenset({"completion", "acompletion", "responses", "aresponses", "anthropic_messages"})
"""The calls that have a prompt in them."""


class PromptOptimizer(CustomLogger):
    """Changes the user's last message, and tells in the answer's header ``x-neuro-latent`` what became of it.

    Args:
        connect: makes the optimizer's client, in the proxy's event loop.
        limits: when nothing is added; those of :class:`~neuro_latent_client.chat.ChatOptimizer`.
    """

    def __init__(self, connect: Callable[[], AsyncClient] = AsyncClient, **limits: Any) -> None:
        super().__init__()
        self._connect, self._limits = connect, limits
        self._chat: ChatOptimizer | None = None

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> Any:
        """Called by the proxy with the body of a request, before it is sent on."""
        if call_type not in CALLS:
            return data
        try:
            self._chat = self._chat or ChatOptimizer(self._connect(), **self._limits)
        except InvalidRequestError as error:  # of the settings
            log.warning("nothing is added: %s", error)
            return data
        asked = data.get("proxy_server_request") or {}
        outcome = await self._chat.improve(data, asked.get("headers", {}).get(SWITCH, ""))
        if outcome.word == "added":
            data["extra_headers"] = {**(data.get("extra_headers") or {}), SWITCH: "done"}
        asked["neuro_latent"] = outcome.word  # no text: the proxy may store what it was asked
        return data

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,
        response: Any,
        request_headers: Any = None,
        litellm_call_info: Any = None,
    ) -> dict[str, str] | None:
        """Called by the proxy for headers of the answer."""
        outcome = (data.get("proxy_server_request") or {}).get("neuro_latent")
        return {SWITCH: outcome} if outcome else None
