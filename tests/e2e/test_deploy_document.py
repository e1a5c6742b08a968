"""The commands of docs/deploy.md do what it says, as far as they can be run without Docker and without a cluster."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.e2e.commands import ENVIRONMENT, ROOT, readme_commands

DOCUMENT = "docs/deploy.md"
NOT_RUN_HERE = {
    "docker": "tests/deploy runs the steps of the Dockerfile and what compose.yaml starts",
    "kubectl": "wants a cluster",
    "helm": "tests/deploy renders the chart",
    "neuro-latent export": "test_readme",
    "pip install": "TensorRT, for a machine with a GPU",
    "neuro-latent doctor": "its own tests",
    "neuro-latent bench serve": "test_bench",
}
"""What a command contains that is not run here, and where it is tested."""


def test_its_commands_run(repository: Path, adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "repository")
    shutil.copytree(adapter, tmp_path / "runs" / "second" / "adapter")
    environment = {
        **ENVIRONMENT,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NEURO_LATENT_FEEDBACK_URL": f"sqlite:///{tmp_path}/feedback.sqlite3",
    }
    commands = [line for line in readme_commands(DOCUMENT) if not any(part in line for part in NOT_RUN_HERE)]
    assert len(commands) >= 8
    for line in commands:
        done = subprocess.run(
            ["/bin/bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
    secrets = yaml.safe_load((ROOT / "compose.yaml").read_text())["secrets"]
    assert all((tmp_path / secret["file"]).read_text().strip() for secret in secrets.values())
    assert (tmp_path / "repository" / "projector" / "2").is_dir()


def test_every_path_and_variable_that_it_names_is_there() -> None:
    text = (ROOT / DOCUMENT).read_text()
    assert [part for part in NOT_RUN_HERE if part not in text] == []
    linked = re.findall(r"\]\(([^)#]+)", text)
    assert [link for link in linked if not (ROOT / "docs" / link).exists()] == []
    named = re.findall(r"(?<!tests)[`/ ](deploy/[\w/.-]+\w|compose\.yaml|Dockerfile\.triton)", text)
    assert [path for path in named if "secrets" not in path and not (ROOT / path).exists()] == []
    read = "".join((ROOT / file).read_text() for file in ("compose.yaml", "Dockerfile.triton"))
    variables = set(re.findall(r"NEURO_LATENT_\w+", text))
    assert {name for name in variables if name not in read} == set()
