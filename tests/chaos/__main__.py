"""``make chaos``: break things on purpose, under load, and tell what became of requests and feedback."""

import argparse
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

from tests.chaos.outcome import Outcome, failed, table, write
from tests.chaos.rig import RUNNING, say
from tests.chaos.scenarios import SCENARIOS
from tests.e2e.commands import COMMAND, ENVIRONMENT, ROOT

ADAPTER = ROOT / "models" / "neuro-latent-mini" / "adapter"
LIMIT_S = 20 * 60
"""Of the whole run."""
EACH_S = 8 * 60
"""Of a scenario."""

EPILOG = """It starts servers on 127.0.0.1 with any free ports, needs about 13 minutes on two cores, and stops after 20.
Exit codes: 0 nothing got lost, 1 acknowledged feedback was lost, a request hung or was answered wrongly, something was
left behind, or a server did not come back."""


class TooSlow(Exception):
    """A scenario took longer than it may."""


def main() -> int:
    """Run the scenarios; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__, epilog=EPILOG)
    parser.add_argument("--list", action="store_true", help="show the scenarios and stop")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=list(SCENARIOS), help="run this one; may be given again"
    )
    parser.add_argument(
        "--repository", type=Path, help="exported repository of the embedded model; default: one is exported"
    )
    parser.add_argument("--output", type=Path, metavar="PAGE", help="put the table into this page, between its marks")
    options = parser.parse_args()
    if options.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:18}{(scenario.__doc__ or '').splitlines()[0]}")
        return 0
    began = time.monotonic()
    logging.getLogger("neuro_latent_client").setLevel(logging.ERROR)  # no retries between the lines of the table
    outcomes: list[Outcome] = []
    watchdog = threading.Timer(LIMIT_S, give_up, (outcomes,))
    watchdog.daemon = True
    watchdog.start()
    signal.signal(signal.SIGALRM, too_slow)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))  # a shell's background jobs ignore it
    with tempfile.TemporaryDirectory(prefix="chaos-repository-") as folder:
        repository = options.repository.absolute() if options.repository else export(Path(folder) / "repository")
        for name in options.only or SCENARIOS:
            attempt(name, repository, outcomes)
    text = f"{described(time.monotonic() - began)}\n\n{table(outcomes)}"
    print(text)
    if options.output:
        write(options.output, text)
    bad = [one.name for one in outcomes if one.is_bad]
    say(f"not as it should be: {', '.join(bad)}" if bad else "nothing got lost, nothing was left")
    return int(bool(bad))


def attempt(name: str, repository: Path, report: list[Outcome]) -> None:
    """Run a scenario; where it fails, a row says so."""
    say(f"{name} …")
    signal.alarm(EACH_S)
    try:
        SCENARIOS[name](repository, report)
    except Exception as error:
        say(f"{name} failed: {type(error).__name__}: {error}")
        report.append(failed(name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
    finally:
        signal.alarm(0)


def too_slow(*_: object) -> None:
    raise TooSlow(f"it took more than {EACH_S} s")


def give_up(outcomes: list[Outcome]) -> None:
    """Tell what is known, and end with all that was started."""
    print(table(outcomes), flush=True)
    say(f"stopped: it took more than {LIMIT_S / 60:.0f} minutes")
    for process in RUNNING:
        process.kill()
    os._exit(1)


def export(repository: Path) -> Path:
    """The embedded model as a repository."""
    say("exporting the embedded model …")
    command = [COMMAND, "export", "--adapter", str(ADAPTER), "--output", str(repository)]
    subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True)
    return repository


def described(seconds: float) -> str:
    """When, where and how."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    cores = len(os.sched_getaffinity(0))
    words = " ".join(word for word in sys.argv[1:] if not word.startswith("--output"))
    return (
        f"{date.today()}, commit {commit.stdout.strip() or 'unknown'}, {cores} cores of {cpu()}, Linux "
        f"{platform.release()}, Python {platform.python_version()}; `make chaos`{f' ({words})' if words else ''}, "
        f"{seconds / 60:.0f} minutes; load of the machine at the end (15 minutes) {os.getloadavg()[2]:.1f}."
    )


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
