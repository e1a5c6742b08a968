"""Whatever fits the OpenAPI schema, and whatever does not: no 500, and no answer that the schema does not tell of."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.serving.gateway.conftest import Start

pytestmark = pytest.mark.slow

EXAMPLES = 15


def test_schemathesis_finds_nothing(start: Start, tmp_path: Path) -> None:
    """All of its phases, and all of its checks but one: rules between options (a beam search does not sample) and of
    texts (no NUL) are not in the schema, so some of what fits it is refused."""
    options = ["--max-examples", str(EXAMPLES), "--exclude-checks", "positive_data_acceptance"]
    options += ["--seed", "1", "--generation-deterministic", "--no-color"]
    url = f"{start().server.url}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
