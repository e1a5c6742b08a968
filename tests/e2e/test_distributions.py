"""What a newcomer gets: the packages that `make dist` builds, and the demonstration in an environment of them alone."""

import json
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pip
import pytest
from packaging.requirements import Requirement

from neuro_latent_core import __version__
from neuro_latent_trainer.model import PromptOptimizer
from tests.e2e.commands import ENVIRONMENT, ROOT

PAIR = ROOT / "models" / "neuro-latent-mini"
PARTS = ("core", "client", "serving", "trainer", "export", "benchmarks")
BARE = {key: value for key, value in ENVIRONMENT.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS")}


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=BARE, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes, with the tools of this environment."""
    folder = tmp_path_factory.mktemp("distributions")
    programs = Path(sys.executable).parent
    run("make", "--old-file=.venv/.installed", "dist", f"DIST={folder}", f"BIN={programs}", cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment's Python. It borrows the packages of others from this environment, and none of ours."""
    folder = tmp_path_factory.mktemp("environment")
    (folder / "borrowed").mkdir()
    for package in Path(pip.__file__).parents[1].iterdir():
        if "neuro_latent" not in package.name:  # nor the links of `pip install --editable`
            (folder / "borrowed" / package.name).symlink_to(package)
    venv.create(folder / "venv", symlinks=True)
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(str(folder / "borrowed"))
    return folder / "venv" / "bin" / "python"


def test_every_package_has_its_licence_and_asks_for_its_siblings_by_the_one_version(dist: Path) -> None:
    assert len(list(dist.iterdir())) == 2 * len(PARTS)
    licence = (ROOT / "LICENSE").read_bytes()
    for part in PARTS:
        name = f"neuro_latent_{part}-{__version__}"
        with tarfile.open(dist / f"{name}.tar.gz") as archive:
            packed = archive.extractfile(f"{name}/LICENSE")
            assert packed is not None
            assert packed.read() == licence
        with zipfile.ZipFile(dist / f"{name}-py3-none-any.whl") as wheel:
            assert wheel.read(f"{name}.dist-info/licenses/LICENSE") == licence
            metadata = Parser().parsestr(wheel.read(f"{name}.dist-info/METADATA").decode())
        assert metadata["License-File"] == "LICENSE"
        for need in map(Requirement, metadata.get_all("Requires-Dist", [])):
            assert need.url is None
            assert not need.name.startswith("neuro-latent") or str(need.specifier) == f"=={__version__}"


@pytest.mark.parametrize(
    ("part", "forbidden"),
    [
        ("client", {"torch", "transformers", "onnxruntime", "onnx", "nvidia-pytriton", "numpy", "tritonclient"}),
        ("benchmarks", {"torch", "transformers", "onnx"}),  # brings serving and client
    ],
)
def test_a_distribution_does_not_bring_what_it_must_not(
    dist: Path, tmp_path: Path, part: str, forbidden: set[str]
) -> None:
    """Asks the package index what an empty environment would get; installs nothing."""
    options = ["--quiet", "--dry-run", "--ignore-installed", "--report=-", f"--constraint={ROOT / 'constraints.txt'}"]
    command = [sys.executable, "-m", "pip", "install", *options, "--find-links", dist, f"neuro-latent-{part}"]
    names = {item["metadata"]["name"].lower() for item in json.loads(run(*command, cwd=tmp_path))["install"]}
    assert {"neuro-latent-core", f"neuro-latent-{part}"} <= names
    assert not names & forbidden


@pytest.mark.server
def test_the_packages_alone_run_the_demonstration(dist: Path, python: Path, tmp_path: Path) -> None:
    """It improves prompts over both transports, and ends with one line of JSON."""
    wanted = ["neuro-latent-benchmarks", "neuro-latent-export"]
    run(python, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", dist, *wanted, cwd=tmp_path)
    places = ", ".join(f"neuro_latent_{part}.__file__" for part in PARTS)
    imports = "; ".join(f"import neuro_latent_{part}" for part in PARTS)
    found = run(python, "-c", f"{imports}; print({places}, sep='\\n')", cwd=tmp_path).splitlines()
    assert all(Path(place).is_relative_to(python.parents[1]) for place in found), found

    summary = json.loads(run(python, "-m", "neuro_latent_benchmarks.demo", cwd=tmp_path).splitlines()[-1])
    assert summary["server"]["name"] == "triton"
    by_transport: dict[str, dict[str, str]] = {}
    for result in summary["results"]:
        assert result["ms"] > 0
        by_transport.setdefault(result["transport"], {})[result["raw_prompt"]] = result["enhanced_prompt"]
    assert set(by_transport) == {"grpc-stream", "http"}
    assert by_transport["grpc-stream"] == by_transport["http"]
    assert len(by_transport["http"]) >= 5
    unserved = {r["raw_prompt"] for r in summary["results"] if r["finish_reason"] in ("unchanged", "withheld")}
    # The embedded generator is small, and adding nothing is an answer; but a demonstration shows additions.
    assert len(unserved) <= 6
    for raw, text in by_transport["http"].items():
        assert text.strip()
        assert (text == raw) == (raw in unserved)


def test_the_embedded_pair_is_small_and_writes_about_the_prompt() -> None:
    assert sum(path.stat().st_size for path in PAIR.rglob("*") if path.is_file()) <= 45_000_000
    model = PromptOptimizer.from_pretrained(PAIR / "adapter")
    prompts = ["Create a function", "Tell me about cryptocurrency.", "write a poem about the sea"]
    for word, text in zip(("function", "cryptocurrency", "poem"), model.generate(prompts, 48), strict=True):
        assert word in text.lower()
