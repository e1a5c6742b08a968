"""Programs in a root folder of their own: layers over this machine's root, in namespaces that end with the program."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Arguments: lower layers, upper, work, merged, "ro" or "rw", network "own" or "host", then mounts "KIND SOURCE TARGET"
# up to "--", then user, working folder, and the program.
ENTER = r"""
lower=$1 upper=$2 work=$3 root=$4 mode=$5 network=$6; shift 6
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=64m shm "$root/dev/shm"
mount -t tmpfs tmp "$root/tmp"
while [ "$1" != -- ]; do
  mkdir -p "$root$3"
  case $1 in
    merged) mount -t overlay overlay -o "lowerdir=$2" "$root$3" ;;
    ro) mount --bind "$2" "$root$3"; mount -o remount,bind,ro "$root$3" ;;
    rw) mount --bind "$2" "$root$3" ;;
  esac
  shift 3
done
shift
if [ "$network" = own ]; then ip link set lo up; fi
user=$1 folder=$2; shift 2
mkdir -p "$root$folder"
if [ "$mode" = ro ]; then mount -o remount,ro "$root"; fi
exec chroot --userspec="$user" "$root" /bin/sh -c 'cd "$1" && shift && exec "$@"' sh "$folder" "$@"
"""


@dataclass(frozen=True)
class Mount:
    """A folder of this machine at ``target`` of a root; ``below`` are folders that it is laid over, if any."""

    source: Path
    target: str
    read_only: bool = True
    below: tuple[Path, ...] = ()

    @property
    def words(self) -> tuple[str, str, str]:
        """As the script reads it."""
        kind = "merged" if self.below else "ro" if self.read_only else "rw"
        return kind, ":".join(map(str, (self.source, *self.below))), self.target


@dataclass(frozen=True)
class Root:
    """A root folder: ``layers``, the first on top, over this machine's root; what is written goes to ``upper``."""

    layers: tuple[Path, ...]
    upper: Path

    def command(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        *,
        user: str = "0:0",
        folder: str = "/",
        mounts: Sequence[Mount] = (),
        read_only: bool = False,
        own_network: bool = False,
    ) -> list[str]:
        """The command line that runs ``program`` as process 1 in there."""
        work, merged = self.upper.with_name("work"), self.upper.with_name("merged")
        for made in (self.upper, work, merged):
            made.mkdir(parents=True, exist_ok=True)
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", *(["--net"] if own_network else []), "--"),
            *("/bin/bash", "-euc", ENTER, "enter", ":".join([*map(str, self.layers), "/"]), str(self.upper)),
            *(str(work), str(merged), "ro" if read_only else "rw", "own" if own_network else "host"),
            *(word for mount in mounts for word in mount.words),
            *("--", user, folder, "/usr/bin/env", "-i", *(f"{k}={v}" for k, v in environment.items()), *program),
        ]


@dataclass
class Running:
    """A program that was started by such a command."""

    process: "subprocess.Popen[str]"
    environment: Mapping[str, str]
    user: str
    pid: int = field(init=False)

    def __post_init__(self) -> None:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while not (found := children.read_text().split()) and self.process.poll() is None:
            os.sched_yield()
        self.pid = int(found[0]) if found else 0

    def command(self, *program: str) -> list[str]:
        """The command line that runs a program beside it, as its user."""
        identity = self.user.split(":")
        return [
            *("nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--root", "--wd"),
            *(f"--setuid={identity[0]}", f"--setgid={identity[1]}"),
            *("/usr/bin/env", "-i", *(f"{key}={value}" for key, value in self.environment.items()), *program),
        ]


def missing() -> str:
    """Why roots cannot be made here; "" where they can."""
    for program in ("unshare", "nsenter", "chroot", "ip"):
        if shutil.which(program) is None:
            return f"no {program}"
    if os.getuid():
        return "mounting wants root"
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    )
    return "this machine lets nobody mount" if done.returncode else ""
