"""Triton's health, asked over the socket of its HTTP with a connection a question.

Triton waits for open connections when it stops, so none is kept.
"""

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

TIMEOUT_S = 2.0


@dataclass(frozen=True)
class ReadyModel:
    """A model that is ready, at one of its versions."""

    name: str
    version: str


class HealthProbe:
    """Questions to the server at the Unix socket ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def waiting_for(self, models: tuple[str, ...]) -> str | None:
        """What is not ready yet ("the server", "model NAME"), or None when all is."""
        if not self._is_ok("/v2/health/ready"):
            return "the server"
        for model in models:
            if not self._is_ok(f"/v2/models/{quote(model, safe='')}/ready"):
                return f"model {model}"
        return None

    def version(self) -> str:
        """Triton's version, such as "2.51.0"."""
        return str(self._ask("GET", "/v2").get("version", "unknown"))

    def models(self) -> tuple[ReadyModel, ...]:
        """The models that are ready, by name."""
        index = self._ask("POST", "/v2/repository/index")
        ready = [ReadyModel(row["name"], row["version"]) for row in index if row.get("state") == "READY"]
        return tuple(sorted(ready, key=lambda model: (model.name, model.version)))

    def _is_ok(self, path: str) -> bool:
        try:
            return self._request("GET", path)[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def _ask(self, method: str, path: str) -> Any:
        return json.loads(self._request(method, path)[1])

    def _request(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost")
        try:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(TIMEOUT_S)
            connection.sock.connect(self._path)
            connection.request(method, path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
