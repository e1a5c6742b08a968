"""The gateway's OpenAPI document, where it wants API keys: without them it has no ``security``."""

import json
from pathlib import Path

from neuro_latent_client import AsyncClient
from neuro_latent_serving.gateway.app import create_app
from neuro_latent_serving.gateway.config import GatewayConfig
from neuro_latent_serving.gateway.middleware import GatewayMetrics
from tests.unit.snapshots.conftest import Compare


def test_the_openapi_document(compare: Compare, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ann {'0' * 64}\n")
    document = create_app(GatewayConfig(api_keys=keys), AsyncClient, None, GatewayMetrics()).openapi()
    document["info"]["version"] = "VERSION"
    compare({"openapi.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"})
