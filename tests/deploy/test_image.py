"""Dockerfile.triton: built and run in a root of its own, with the wheel's tritonserver in the place of the image's."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from neuro_latent_core.protocol import OWN_HEADER
from tests.deploy.conftest import ROOT
from tests.deploy.container import Container, container
from tests.deploy.image import Build, BuildError, Image
from tests.deploy.monitoring import asked_metrics
from tests.deploy.namespaces import Mount

pytestmark = [pytest.mark.server, pytest.mark.network]

FILE = ROOT / "Dockerfile.triton"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())

REFUSED = """
import sys, urllib.error, urllib.request
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

for path in ("repository/index", "repository/models/encoder/load", "systemsharedmemory/region/a/register",
             "trace/setting", "logging", "models/neuro_latent_optimizer/generate"):
    url = "http://127.0.0.1:8000/v2/" + path
    data = b"[" * 130_000 if "generate" in path else b"{}"
    try:
        urllib.request.urlopen(urllib.request.Request(url, data=data, headers={sys.argv[1]: sys.argv[2]}))
        print("open:", path)
    except urllib.error.HTTPError as error:
        print(error.code)
with InferenceServerClient("127.0.0.1:8001") as client:
    for ask in (client.get_model_repository_index, lambda: client.load_model("encoder"),
                lambda: client.register_system_shared_memory("a", "/a", 8), client.get_trace_settings,
                client.get_log_settings):
        try:
            ask()
            print("open over gRPC:", ask)
        except InferenceServerException as error:
            print(error.message())
"""
"""Asks for what is closed, and with JSON that is too deep, over HTTP with a header of ours, and over gRPC."""

COMPILERS = r"""
for program in cc gcc g++ c++ c89 c99 cpp as ld clang clang++; do command -v $program; done
find /usr /opt/tritonserver -type f -perm /111 \( -name 'cc1*' -o -name collect2 -o -name cicc -o -name 'clang-[0-9]*' \
  -o -name '*-gnu-g[c+][c+]-[0-9]*' -o -name '*-gnu-as' -o -name '*-gnu-ld*' -o -path '*/cuda*/nvcc' \
  -o -path '*/cuda*/ptxas' \) 2>/dev/null
true
"""
"""Names the compilers, assemblers and linkers that are left."""

ASK = """
import sys, urllib.request
body = sys.argv[2].encode() if len(sys.argv) > 2 else None
request = urllib.request.Request(sys.argv[1], body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request).read().decode())
"""


@pytest.fixture(scope="module")
def build(bases: dict[str, Image], memory: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """From a context with what is sent to the builder, and a repository to bring along."""
    context = tmp_path_factory.mktemp("context")
    shutil.copy(ROOT / "constraints.txt", context)
    for folder in ("core", "client", "serving"):
        shutil.copytree(ROOT / folder, context / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (context / "exported" / "encoder").mkdir(parents=True)
    (context / "exported" / "encoder" / "config.pbtxt").touch()
    layers = memory / "layers"
    layers.mkdir()
    return Build(FILE, context, layers, bases, {"REPOSITORY": "exported"})


@pytest.fixture(scope="module")
def image(build: Build) -> Image:
    return build.image()


def mounts(repository: Path, data: Path) -> list[Mount]:
    """As compose.yaml has them."""
    data.mkdir()
    shutil.chown(data, 1000, 1000)
    return [Mount(repository, "/models"), Mount(data, "/var/lib/neuro-latent", read_only=False)]


@pytest.fixture(scope="module")
def served(image: Image, memory: Path, repository: Path) -> Iterator[Container]:
    folder = memory / "served"
    folder.mkdir()
    with container(image, folder, mounts(repository, folder / "data")) as running:
        assert running.becomes_healthy(120), running.end(30)
        yield running


def test_the_image_is_closed_and_has_no_compiler(served: Container) -> None:
    asked = subprocess.run(
        ["nsenter", f"--target={served.running.pid}", "--net", sys.executable, "-c", REFUSED, OWN_HEADER, "1"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    answers = asked.stdout.splitlines()
    assert answers[:6] == ["403"] * 5 + ["400"], asked.stderr
    assert len(answers) == 11
    assert all("This protocol is restricted" in answer for answer in answers[6:]), answers
    assert served.run("/bin/sh", "-c", COMPILERS).stdout == ""
    assert served.run("id", "-u").stdout == "1000\n"
    assert served.run("touch", "/opt/neuro-latent/x").returncode != 0


def test_doctor_finds_no_fault_with_the_image(served: Container) -> None:
    server = "--tritonserver=/opt/tritonserver/bin/tritonserver"  # on the PATH of NVIDIA's image
    found = served.run("neuro-latent", "doctor", "--repository", "/models", "--strict", server)
    assert found.returncode == 0, found.stdout


def test_the_gateway_of_compose_answers_and_every_metric_that_is_asked_for_is_there(served: Container) -> None:
    gateway = COMPOSE["services"]["gateway"]
    words = [word.replace("//server:", "//127.0.0.1:") for word in gateway["command"]]
    words.append("--upstream=http://127.0.0.1:9/v1")  # where nobody is: what goes on is counted all the same
    with served.start("neuro-latent", *words, "--json") as process:
        assert process.stdout is not None
        assert process.stdout.readline(), process.communicate()[1]
        assert served.run(*gateway["healthcheck"]["test"][1:]).returncode == 0
        body = json.dumps({"raw_prompt": "Create a function", "max_length": 8})
        answer = served.run("python3", "-c", ASK, "http://127.0.0.1:8080/optimize", body)
        assert "finish_reason" in answer.stdout, answer.stderr
        messages = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Create a function"}]})
        passed_on = served.run("python3", "-c", ASK, "http://127.0.0.1:8080/v1/chat/completions", messages)
        assert "502" in passed_on.stderr
        pages = [served.run("python3", "-c", ASK, f"http://127.0.0.1:{port}/metrics").stdout for port in (8002, 8081)]
    there = {line.split("{")[0].split(" ")[0] for page in pages for line in page.splitlines() if line[:1] != "#"}
    assert asked_metrics() - there == set()
    assert len(asked_metrics() & there) >= 15


def test_sigterm_lets_a_stream_end(image: Image, memory: Path, repository: Path) -> None:
    folder = memory / "drained"
    folder.mkdir()
    with container(image, folder, mounts(repository, folder / "data")) as served:
        assert served.becomes_healthy(120), served.end(30)
        with served.start("neuro-latent", "optimize", "Create a function", "--max-length", "512", "--stream") as long:
            assert long.stdout is not None
            assert long.stdout.read(1)
            served.ask_to_stop()
            code, log = served.end(60)
            _, errors = long.communicate(timeout=30)
    assert code == 0, log
    assert "requests in flight finish first" in log
    assert long.returncode == 0, errors


def test_a_repository_can_be_brought_along(build: Build) -> None:
    assert (build.image("bundled").layers[0] / "models" / "encoder" / "config.pbtxt").is_file()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("COPY client client", "COPY clients client", "line 18: clients is not in the build context"),
        ("COPY client client", "COPY trainer client", "line 18: trainer is not in the build context"),
        ("COPY constraints.txt ./\n", "", "constraints.txt"),
        ('"./serving[postgresql,tracing]"', '"./serve[postgresql,tracing]"', "serve"),
        ("tritonserver:26.08-py3", "tritonserver:26.08", "no image nvcr.io/nvidia/tritonserver:26.08"),
        ("ARG VARIANT=cpu", "ARG VARIANT=tpu", "no image wheels-tpu"),
        ('CMD ["serve", "--triton', 'CMD serve "--triton', "is not in the exec form"),
    ],
)
def test_a_mistake_in_the_build_is_found(
    bases: dict[str, Image], tmp_path: Path, memory: Path, old: str, new: str, told: str
) -> None:
    text = FILE.read_text()
    assert old in text
    (tmp_path / FILE.name).write_text(text.replace(old, new))
    shutil.copy(f"{FILE}.dockerignore", tmp_path)
    layers = Path(tempfile.mkdtemp(dir=memory))
    with pytest.raises(BuildError) as caught:
        Build(tmp_path / FILE.name, ROOT, layers, bases, {}).image()
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("word", "instead", "told"),
    [
        (
            "--tritonserver=/opt/tritonserver/bin/tritonserver",
            "--tritonserver=/opt/triton/bin/tritonserver",
            "/opt/triton/",
        ),
        ("--repository=/models", "--repository=/model", "/model: no such folder"),
        ("--no-gateway", "--without-gateway", "--without-gateway"),
    ],
)
def test_a_mistake_in_the_command_is_found(
    image: Image, memory: Path, repository: Path, word: str, instead: str, told: str
) -> None:
    assert word in image.command
    words = [instead if word == given else given for given in image.command]
    folder = Path(tempfile.mkdtemp(dir=memory))
    with container(image, folder, mounts(repository, folder / "data"), words, NO_COLOR="1") as served:
        code, log = served.end(60)
    assert code == 2
    assert told in log
