"""Finding a tritonserver, and preparing its backends."""

import importlib.machinery
import importlib.util
import sys
import tempfile
from pathlib import Path

import pytest

from neuro_latent_serving.errors import ServeError, UsageError
from neuro_latent_serving.launch import process
from neuro_latent_serving.launch.backends import prepare_backends
from neuro_latent_serving.launch.binary import TritonBinary, check_libraries, find_tritonserver
from neuro_latent_serving.launch.process import temporary_folder

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The layout of nvidia-pytriton in a site-packages, and nothing on the PATH."""
    root = tmp_path / "site" / "pytriton" / "tritonserver"
    for folder in ("bin", "backends/python", f"python_backend_stubs/{PYTHON}"):
        (root / folder).mkdir(parents=True)
    for file in ("bin/tritonserver", f"python_backend_stubs/{PYTHON}/triton_python_backend_stub"):
        (root / file).touch(mode=0o755)
    (root / "backends" / "python" / "libtriton_python.so").touch()
    spec = importlib.machinery.ModuleSpec("pytriton", None, is_package=True)
    spec.submodule_search_locations = [str(root.parent)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    return root


def test_the_option_wins_and_has_to_be_a_program(fake_server, wheel, tmp_path: Path) -> None:
    assert find_tritonserver(fake_server.program).source == "option"
    (tmp_path / "text").touch()
    with pytest.raises(UsageError, match=r"--tritonserver .*text: not an executable"):
        find_tritonserver(tmp_path / "text")


def test_path_comes_before_the_wheel(fake_server, wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_server.program.parent))
    found = find_tritonserver()
    assert (found.source, found.path, found.stubs) == ("PATH", fake_server.program, None)


def test_the_wheel_is_found_without_importing_it(wheel: Path) -> None:
    found = find_tritonserver()
    assert (found.source, found.path) == ("wheel", wheel / "bin" / "tritonserver")
    assert found.environment == {"LD_LIBRARY_PATH": str(wheel.parent.parent / "nvidia_pytriton.libs")}
    assert "pytriton" not in sys.modules


def test_nothing_found_says_what_was_tried_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServeError) as caught:
        find_tritonserver()
    for part in ("--tritonserver", "PATH", "pip install nvidia-pytriton==0.7.0", "container"):
        assert part in str(caught.value)


def test_a_server_without_backends_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "tritonserver"
    program.parent.mkdir()
    program.touch(mode=0o755)
    with pytest.raises(ServeError, match="has no backends"):
        find_tritonserver(program)


def test_the_stub_of_this_python_is_put_into_the_backends(wheel: Path, tmp_path: Path) -> None:
    backends = prepare_backends(find_tritonserver(), tmp_path)
    files = {file.name for file in (backends.backends / "python").iterdir()}
    assert files == {"libtriton_python.so", "triton_python_backend_stub"}
    assert backends.environment["LD_LIBRARY_PATH"].endswith("nvidia_pytriton.libs")


def test_the_wheel_gets_a_backend_for_onnx_graphs_and_one_that_is_there_is_kept(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    backends = prepare_backends(find_tritonserver(), tmp_path / "without")
    assert "TritonPythonModel" in (backends.backends / "onnxruntime" / "model.py").read_text()
    # Triton refuses this library where it is a link to another folder.
    assert not (backends.backends / "python" / "libtriton_python.so").is_symlink()
    (wheel / "backends" / "onnxruntime").mkdir()
    (wheel / "backends" / "onnxruntime" / "libtriton_onnxruntime.so").touch()
    (tmp_path / "with").mkdir()
    backends = prepare_backends(find_tritonserver(), tmp_path / "with")
    assert [file.name for file in (backends.backends / "onnxruntime").iterdir()] == ["libtriton_onnxruntime.so"]


def test_a_python_without_a_stub_is_told_which_have_one(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=rf"no python backend for Python 3\.99; it has {PYTHON}"):
        prepare_backends(find_tritonserver(), tmp_path, python="3.99")


def test_a_full_installation_is_used_as_it_is(fake_server, tmp_path: Path) -> None:
    binary = find_tritonserver(fake_server.program)
    assert prepare_backends(binary, tmp_path).backends == binary.backends


def test_a_full_installation_at_a_path_that_a_shell_reads_is_used_by_a_link(fake_server, tmp_path: Path) -> None:
    odd = tmp_path / "a$(id) b"
    fake_server.program.parents[1].rename(odd)
    backends = prepare_backends(find_tritonserver(odd / "bin" / "tritonserver"), tmp_path)
    assert backends.backends == tmp_path / "backends"
    assert backends.backends.resolve() == odd / "backends"


def test_run_folders_are_made_where_a_shell_takes_the_path_as_it_is(
    run_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert temporary_folder() == run_root
    for number, name in enumerate(("a$(id)b", "a b", "a:b", "é", "测试", "a'b", "a`b", "a;b", "a\\b", "a*b")):
        odd = run_root / name
        odd.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(odd))
        monkeypatch.setattr(process, "TEMPORARY_FOLDERS", ("/none", str(odd), str(run_root)))
        assert temporary_folder() == run_root, number
    monkeypatch.setattr(process, "TEMPORARY_FOLDERS", ("/none",))
    with pytest.raises(ServeError, match=r"^no folder for temporary files: .*none of /none can be written") as caught:
        temporary_folder()
    assert "Set TMPDIR" in caught.value.hint


def test_missing_libraries_are_named_with_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho '\tlibpython3.11.so.1.0 => not found'\necho '\tlibz.so.1 => not found'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    binary = TritonBinary(tmp_path / "tritonserver", tmp_path, "option")
    with pytest.raises(ServeError, match=r"apt-get install libpython3\.11 zlib1g"):
        check_libraries([binary.path], {})
