"""What is checked before a start: ports, host, repository; and what is read from a log after a failed one."""

import json
import socket
from pathlib import Path

import pytest

from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.launch.logs import LogFollower, failure_lines
from neuro_latent_serving.repository.check import check_repository
from neuro_latent_serving.web.ports import FREE_PORTS, Ports, claim_ports, numeric_host


@pytest.mark.parametrize("port", [-1, 80, 1023, 65536])
def test_a_port_that_cannot_be_used_is_wrong_usage(port: int) -> None:
    with pytest.raises(UsageError, match=f"--grpc-port {port}"):
        Ports(grpc=port)


def test_two_servers_cannot_share_a_port() -> None:
    with pytest.raises(UsageError, match="two are the same"):
        Ports(http=9000, metrics=9000)


def test_a_setting_that_there_is_not_is_no_setting() -> None:
    with pytest.raises(UsageError, match="--htpp 1"):
        Ports(htpp=1)  # type: ignore[call-arg]


def test_zero_takes_free_ports_that_differ() -> None:
    ports = claim_ports("127.0.0.1", FREE_PORTS)
    assert len({ports.http, ports.grpc, ports.metrics, 0}) == 4


@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_a_taken_port_is_named_with_its_option(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServeError, match=rf"port {port} .*taken .*--{name}-port {port}.*\n.*--{name}-port 0"):
            claim_ports("127.0.0.1", Ports(**{"http": 0, "grpc": 0, "metrics": 0, name: port}))


def test_hosts() -> None:
    assert numeric_host("localhost").startswith("127.")
    assert numeric_host("0.0.0.0") == "0.0.0.0"
    with pytest.raises(UsageError, match="--host ::1"):
        numeric_host("::1")
    with pytest.raises(UsageError, match="no such address"):
        claim_ports("192.0.2.1", FREE_PORTS)


def test_a_complete_repository_passes(repository: Path) -> None:
    assert check_repository(repository, verify=True).model_version == "v1"


def test_a_repository_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        check_repository(tmp_path / "none")


def test_a_folder_without_models(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="no model in it"):
        check_repository(tmp_path)


def test_a_model_whose_name_a_shell_reads_is_refused(repository: Path) -> None:
    (repository / "echo").rename(repository / "a$(id)b")
    with pytest.raises(ServeError, match=r"the name of the model 'a\$\(id\)b' has characters that a shell reads"):
        check_repository(repository)


def test_a_repository_without_artefacts_names_them_and_the_command(repository: Path) -> None:
    (repository / "echo/1/model.onnx").unlink()
    with pytest.raises(ServeError) as caught:
        check_repository(repository)
    assert "echo/1/model.onnx" in caught.value.message
    assert f"neuro-latent export --adapter DIR --output {repository}" in caught.value.hint
    (repository / "manifest.json").unlink()
    with pytest.raises(ServeError, match=r"manifest\.json"):
        check_repository(repository)


def test_a_model_without_a_version_folder(repository: Path) -> None:
    (repository / "ensemble").mkdir()
    (repository / "ensemble" / "config.pbtxt").touch()
    (repository / "ensemble" / "1").touch()  # a file
    with pytest.raises(ServeError, match=r"no version folder .* in ensemble"):
        check_repository(repository)


def test_a_file_of_another_size_is_always_seen_and_other_bytes_only_with_verify(repository: Path) -> None:
    artefact = repository / "echo/1/model.onnx"
    artefact.write_bytes(b"ONNX")
    check_repository(repository)
    with pytest.raises(ServeError, match="sha256 is not"):
        check_repository(repository, verify=True)
    artefact.write_bytes(b"short")
    with pytest.raises(ServeError, match="5 bytes, and the manifest says 4"):
        check_repository(repository)


def test_a_broken_manifest_names_its_field(repository: Path) -> None:
    file = repository / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["adapter"]
    file.write_text(json.dumps(manifest))
    with pytest.raises(ServeError, match="adapter: Field required"):
        check_repository(repository)
    file.write_text("{")
    with pytest.raises(ServeError, match="Invalid JSON"):
        check_repository(repository)


@pytest.mark.parametrize("older", [{"format": 1}, {}])
def test_a_repository_of_another_format_is_refused(repository: Path, older: dict[str, int]) -> None:
    file = repository / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["format"]
    file.write_text(json.dumps(manifest | older))
    with pytest.raises(ServeError, match="format 1, and this version reads 3\nExport it again: neuro-latent export"):
        check_repository(repository)


def test_a_precision_without_kernels_for_the_cpu_is_refused_before_the_server_starts(repository: Path) -> None:
    file = repository / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "precision": "bf16"}))
    with pytest.raises(ServeError, match="bf16, which is for GPUs"):
        check_repository(repository)


def test_an_artefact_outside_the_repository_is_refused(repository: Path) -> None:
    file = repository / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["artifacts"]["../secret"] = {"sha256": "", "bytes": 0}
    file.write_text(json.dumps(manifest))
    with pytest.raises(ServeError, match="not a path inside"):
        check_repository(repository)


REASON = r"ValueError: broken\n\nAt:\n  m.py(4)\n"
LOG = f"""
E1122 17:45:38.199336 4735 server.cc:241] "CudaDriverHelper has not been initialized."
I1122 17:45:38.205069 4735 model_lifecycle.cc:472] "loading: boom:1"
E1122 17:45:38.590063 4735 backend_model.cc:692] "ERROR: Failed to create instance: {REASON}"
E1122 17:45:38.590178 4735 model_lifecycle.cc:642] "failed to load 'boom' version 1: Internal: {REASON}"
E1122 17:45:38.590280 4735 model_repository_manager.cc:703] "ensemble 'ens' depends on 'boom': {REASON};"
Error: Failed to initialize NVML
error: creating server: Internal - failed to load all models
"""


def test_a_log_is_reduced_to_the_model_that_failed_and_its_reason() -> None:
    assert failure_lines(LOG) == ["model boom: ValueError: broken", "At:", "  m.py(4)"]


def test_a_log_without_a_failed_model_gives_its_errors_else_its_end() -> None:
    grpc = "E1122 17:45:40.935803500    4830 chttp2_server.cc:1060]     UNKNOWN: no address"
    assert failure_lines(f"{grpc}\nerror: bad option") == ["UNKNOWN: no address", "error: bad option"]
    assert failure_lines("one\n\ntwo", limit=1) == ["two"]
    assert failure_lines("") == []


def test_a_log_is_followed_from_its_start_without_the_harmless_lines(tmp_path: Path) -> None:
    log, seen = tmp_path / "log", tmp_path / "seen"
    log.write_text("earlier\nloading\nFailed to initialize NVML\n")
    with seen.open("w") as stream:
        follower = LogFollower(log, start=len("earlier\n"), stream=stream, interval=0.01)
        with log.open("a") as more:
            more.write("ready\n")
        follower.close()
    assert seen.read_text() == "loading\nready\n"
