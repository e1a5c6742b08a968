"""The faults. Each function makes one kind, on a server of its own, and adds the rows of the table."""

import asyncio
import json
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx2

from neuro_latent_client import AsyncClient
from tests.chaos.load import TIMEOUT_S, TOKENS, Load, Sent, counted, judged, seconds_down, text_of
from tests.chaos.outcome import Outcome
from tests.chaos.rig import BACK_S, Rig, measured, say, wait_until
from tests.e2e.commands import COMMAND, ENVIRONMENT

STUBS = ("tokenizer", "encoder", "projector", "t5_encoder", "t5_decoder", "t5_decoder_unary", "feedback")
PROCESSES = (*STUBS, "tritonserver", "watchdog")
STANDS_STILL_S = 2.0
HALF_OPEN = 1100
DEEP = b"[" * 130_000
CLIENTS = 400
CHANGES = 30
KILLS_OF_TRAINING = 6

Scenario = Callable[[Path, list[Outcome]], None]
"""Takes a repository, and the report to which it adds its rows."""


@contextmanager
def loaded(repository: Path) -> Iterator[tuple[Rig, Load]]:
    """A server under load. At the end it is stopped, and what it then leaves fails the run."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Rig(repository, Path(folder)) as rig:
        load = Load(rig.urls)
        with load:
            time.sleep(1)
            yield rig, load
        left = rig.stop()
        if left or load.stuck():
            raise RuntimeError(f"left at the end: {left}, users that wait: {load.stuck()}")


def kills(repository: Path, report: list[Outcome]) -> None:
    """Kill each process in turn, and last the command itself, which its user starts again."""
    with loaded(repository) as (rig, load):
        for name in PROCESSES:
            with measured(rig, load, f"kill {name}", 2, report):
                for _ in range(2):
                    hit(rig, name, signal.SIGKILL)
                    if not wait_until(rig.is_whole, BACK_S):
                        break
        with measured(rig, load, "kill serve (the gateway, too)", 2, report):
            for _ in range(2):
                family = rig.family()
                rig.process.kill()
                rig.process.wait()
                if not wait_until(lambda: not any(one.is_running() for one in family), 10):  # noqa: B023
                    say("processes have outlived the command")
                rig.start()


def stops(repository: Path, report: list[Outcome]) -> None:
    """Let each process stand still for two seconds, as when the machine has no time for it."""
    with loaded(repository) as (rig, load):
        for name in (*PROCESSES, "serve"):
            with measured(rig, load, f"stop {name} for 2 s", 1, report):
                process = hit(rig, name, signal.SIGSTOP)
                time.sleep(STANDS_STILL_S)
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)
                time.sleep(1)  # Triton's crash, where there is one, comes when it goes on


def hit(rig: Rig, name: str, number: int) -> int:
    """Send a process a signal; its id."""
    wait_until(lambda: rig.find(name) is not None, BACK_S)
    process = rig.find(name)
    assert process is not None, f"no process {name}"
    os.kill(process.pid, number)
    return process.pid


def full_disk(repository: Path, report: list[Outcome]) -> None:
    """Fill the disk on which the feedback, the log and the run folder are, and free it again."""
    name = "disk full for 5 s"
    wrapper = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)), "sh", "-c")
    if subprocess.run([*wrapper, "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode:
        report.append(Outcome(name, skipped="no file system may be mounted here (unshare --mount)"))
        return
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        # A file system of the server's own name space: nobody else sees it, and it ends with the server.
        mount = f'mount -t tmpfs -o size=64m tmpfs {folder} && mkdir -p {folder}/tmp {folder}/data && exec "$0" "$@"'
        rig = Rig(repository, Path(folder), wrapper=(*wrapper, mount))
        with rig:
            inside = Path(f"/proc/{rig.process.pid}/root{folder}")
            user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
            rig.inside = ("nsenter", f"--target={rig.process.pid}", "--mount", *user)
            with Load(rig.urls) as load:
                time.sleep(1)
                with measured(rig, load, name, 2, report) as notes:
                    for _ in range(2):
                        filler = inside / "filler"
                        with suppress(OSError), filler.open("wb", buffering=0) as file:
                            while file.write(b"0" * 65536):
                                pass
                        full_at = time.monotonic()
                        time.sleep(5)
                        now = load.since(full_at)
                        filler.unlink()
                        ratings = [one for one in now if one.key]
                        notes["full"] = (
                            f"while it was full, {sum(not one.how for one in now if not one.key)} of "
                            f"{len(now) - len(ratings)} prompts were answered and "
                            f"{sum(not one.how for one in ratings)} of {len(ratings)} ratings stored"
                        )
                        wait_until(rig.is_whole, BACK_S)
            left = [one for one in rig.stop() if not one.startswith(str(rig.temporary))]
            if left or load.stuck():
                raise RuntimeError(f"left at the end: {left}, users that wait: {load.stuck()}")


def locked_database(repository: Path, report: list[Outcome]) -> None:
    """Another process holds the database's lock for longer than a rating waits for it."""
    with (
        loaded(repository) as (rig, load),
        measured(rig, load, "database locked for 12 s", 1, report),
        closing(sqlite3.connect(rig.database, isolation_level=None, timeout=10)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        time.sleep(12)
        other.execute("ROLLBACK")


def deleted_database(repository: Path, report: list[Outcome]) -> None:
    """Delete the database under load; what is acknowledged from then on must be in the new one."""
    with loaded(repository) as (rig, load), measured(rig, load, "database deleted", 5, report) as notes:
        for _ in range(5):
            for file in rig.database.parent.iterdir():
                file.unlink(missing_ok=True)
            deleted = time.monotonic()
            time.sleep(1.5)
        # Those that began before the last deletion went with it.
        notes["gone"] = " ".join(one.key for one in load.since(0) if one.key and one.began <= deleted)


def damaged_database(repository: Path, report: list[Outcome]) -> None:
    """Write random bytes over the database, then bring the whole file back."""
    with loaded(repository) as (rig, load), measured(rig, load, "database damaged for 5 s", 1, report) as notes:
        whole = rig.database.with_suffix(".whole")
        with closing(sqlite3.connect(rig.database, isolation_level=None, timeout=10)) as other:
            other.execute("BEGIN IMMEDIATE")  # nobody writes while it is copied
            for end in ("", "-wal"):
                with suppress(FileNotFoundError):
                    shutil.copyfile(f"{rig.database}{end}", f"{whole}{end}")
            bad = rig.database.with_suffix(".bad")
            bad.write_bytes(random.Random(0).randbytes(rig.database.stat().st_size))
            bad.replace(rig.database)
            for end in ("-wal", "-shm"):
                Path(f"{rig.database}{end}").unlink(missing_ok=True)
        damaged = time.monotonic()
        time.sleep(5)
        state = httpx2.get(f"{rig.urls['gateway']}/health", timeout=10, trust_env=False).json().get("feedback")
        stored = sum(not one.how for one in load.since(damaged) if one.key and one.began > damaged)
        for end in ("-wal", ""):
            with suppress(FileNotFoundError):
                os.replace(f"{whole}{end}", f"{rig.database}{end}")
        notes["health"] = f"meanwhile /health says feedback is {state}, and {stored} ratings were acknowledged"


def half_open(repository: Path, report: list[Outcome]) -> None:
    """1,100 connections that never end their request, at the gateway and then at Triton's HTTP, for 8 s each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with loaded(repository) as (rig, load):  # the server has the limit that a user's has
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
        for name in ("gateway", "http"):
            with measured(rig, load, f"{HALF_OPEN:,} half-open connections to {name}", 1, report), ExitStack() as held:
                host, port = rig.urls[name].removeprefix("http://").split(":")
                for _ in range(HALF_OPEN):
                    half = held.enter_context(socket.create_connection((host, int(port)), timeout=10))
                    half.sendall(b"POST /optimize HTTP/1.1\r\nHost: 127.0.0.1\r\n")
                time.sleep(8)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def deep_json(repository: Path, report: list[Outcome]) -> None:
    """130 kB of "[", of which Triton 24.10 alone dies."""
    with loaded(repository) as (rig, load), measured(rig, load, "130 kB of [", 20, report) as notes:
        told: Counter[str] = Counter()
        for _ in range(10):
            for name, path in (("http", "/v2/models/neuro_latent_optimizer/generate"), ("gateway", "/optimize")):
                answer = httpx2.post(
                    f"{rig.urls[name]}{path}",
                    content=DEEP,
                    headers={"Content-Type": "application/json"},
                    timeout=TIMEOUT_S,
                    trust_env=False,
                )
                told[f"{name} says {answer.status_code}"] += 1
        notes["answers"] = ", ".join(sorted(told))


def many_clients(repository: Path, report: list[Outcome]) -> None:
    """400 clients at once, three prompts each: half over REST, half by the client library, which tries again."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Rig(repository, Path(folder)) as rig:
        with Load(rig.urls) as load:  # for the texts, and so that all is warm
            time.sleep(1)
        before, (prompt, right), sent = rig.descriptors(), next(iter(load.right.items())), []

        async def one(ask: Callable[[], "asyncio.Future[str]"]) -> None:
            for _ in range(3):
                began = time.monotonic()
                try:
                    text, error = await ask(), None
                except Exception as caught:
                    text, error = "", caught

                def known(text: str = text, error: Exception | None = error) -> str:
                    if error is not None:
                        raise error
                    return text

                how, what = judged(known, right)
                sent.append(Sent(began, time.monotonic(), how, what=what))

        async def all_of_them() -> None:
            async with AsyncClient(rig.urls["grpc"], timeout=60) as grpc:
                limits = httpx2.Limits(max_connections=CLIENTS)
                async with httpx2.AsyncClient(
                    base_url=rig.urls["gateway"], timeout=60, trust_env=False, limits=limits
                ) as http:

                    async def by_grpc() -> str:
                        return (await grpc.optimize(prompt, max_length=TOKENS)).text

                    async def by_rest() -> str:
                        body = {"raw_prompt": prompt, "max_length": TOKENS}
                        return text_of(await http.post("/optimize", json=body))

                    await asyncio.gather(*(one(way) for way in (by_grpc, by_rest) for _ in range(CLIENTS // 2)))

        asyncio.run(all_of_them())
        errors, hangs, wrong = counted(sent)
        slowest = max(one.ended - one.began for one in sent)
        leaks = rig.leaks(before, [])
        trouble = "" if rig.is_whole() else "the server is not whole"
        left = rig.stop()
    notes = [f"the slowest answer took {slowest:.1f} s", *sorted({one.what for one in sent if one.what})[:2]]
    report.append(
        Outcome(
            f"{CLIENTS} clients at once",
            1,
            len(sent),
            errors,
            hangs,
            wrong,
            seconds_down(sent, sent[0].began, max(one.ended for one in sent)),
            leaks=(*leaks, *left),
            trouble=trouble,
            note="; ".join(notes),
        )
    )


def adapter_changes(repository: Path, report: list[Outcome]) -> None:
    """Add and remove an adapter while the server serves, 30 times."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        own = Path(folder) / "repository"
        shutil.copytree(repository, own, ignore=shutil.ignore_patterns("__pycache__"))
        exported = Path(folder) / "adapter"
        shutil.copytree(max((repository / "projector").glob("*/adapters/default")), exported)
        with loaded(own) as (rig, load), measured(rig, load, "adapter added or removed", CHANGES, report) as notes:
            failed = []
            for number in range(CHANGES):
                words = ["add", "team", "--adapter", str(exported)] if number % 2 == 0 else ["remove", "team"]
                done = subprocess.run(
                    [COMMAND, "adapters", *words, "--repository", str(own), "--url", rig.urls["grpc"], "--json"],
                    env={**ENVIRONMENT, "XDG_STATE_HOME": str(rig.folder / "state")},
                    capture_output=True,
                    text=True,
                    timeout=120,
                )
                if done.returncode:
                    failed.append(" ".join(done.stderr.split())[:200])
            if failed:
                notes["trouble"] = f"{len(failed)} of {CHANGES} changes failed: {failed[0]}"


def training(repository: Path, report: list[Outcome]) -> None:
    """Kill a training six times at random moments and resume it; a run that was left alone is what it must equal."""
    from transformers.utils.logging import disable_progress_bar

    from neuro_latent_trainer.sample import encode_rows, sample_rows
    from tests import tiny

    disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        encoder, generator = tiny.write_backbones(Path(folder))
        data = Path(folder) / "data.jsonl"
        data.write_bytes(encode_rows(sample_rows()[:64], ".jsonl"))
        options = [f"--data-path={data}", f"--encoder={encoder}", f"--generator={generator}", "--batch-size=8"]
        options += ["--phase1-epochs=12", "--phase2-epochs=12", "--soft-prompt-tokens=4", "--validation-share=0.2"]
        command = [COMMAND, "train", *options]
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        began = time.monotonic()
        subprocess.run([*command, f"--output-dir={whole}"], env=ENVIRONMENT, capture_output=True, check=True)
        say(f"a training that is left alone takes {time.monotonic() - began:.0f} s")
        metrics, draw, at = broken / "metrics.jsonl", random.Random(0), []
        lines = len((whole / "metrics.jsonl").read_text().splitlines())
        for number in range(KILLS_OF_TRAINING + 1):
            resume = ["--resume=last"] if [*broken.glob("*.pt")] else []
            process = subprocess.Popen(
                [*command, f"--output-dir={broken}", *resume],
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            if number < KILLS_OF_TRAINING:
                until = (number + draw.random()) * lines / (KILLS_OF_TRAINING + 1)
                wait_until(lambda: process.poll() is not None or count(metrics) > until, 60)  # noqa: B023
                time.sleep(draw.random() * 0.2)
                process.kill()
                at.append(count(metrics))
            _, errors = process.communicate(timeout=120)
        ended = process.returncode
        same = [rows(whole), final(whole)] == [rows(broken), final(broken)] if ended == 0 else False
        halves = [str(path.relative_to(broken)) for path in broken.rglob(".*") if path.is_file()]
    report.append(
        Outcome(
            "training killed and resumed",
            KILLS_OF_TRAINING,
            wrong=0 if same else 1,
            leaks=tuple(halves),
            trouble="" if ended == 0 else errors[-300:],
            note=f"killed after {', '.join(map(str, at))} of {lines} lines of metrics; all losses and the last adapter "
            f"are {'those' if same else 'NOT those'} of a run that was left alone",
        )
    )


def count(file: Path) -> int:
    """Lines of a file, which may not be there yet."""
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def rows(run: Path) -> list[dict[str, object]]:
    """What a training has recorded, without its times."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "loss" in name or name in ("kind", "step")} for row in found]


def final(run: Path) -> bytes:
    """The weights of its adapter."""
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


SCENARIOS: dict[str, Scenario] = {
    "kills": kills,
    "stops": stops,
    "full-disk": full_disk,
    "locked-database": locked_database,
    "deleted-database": deleted_database,
    "damaged-database": damaged_database,
    "half-open": half_open,
    "deep-json": deep_json,
    "clients": many_clients,
    "adapters": adapter_changes,
    "training": training,
}
