"""The watchdog: the parent process of tritonserver, so that nothing of the server outlives its supervisor.

    python watchdog.py SHM_PREFIX RUN_DIR PROGRAM ARGUMENT...

The supervisor holds the other end of standard input: "t" asks the server to drain and exit, "k" kills it, and the end
of the stream means that the supervisor is gone, be it by SIGKILL, which a signal handler could not tell. The death
signal of Linux (PR_SET_PDEATHSIG) alone is not enough: it fires when the *thread* that started the server ends, and it
does not reach the server's python stubs. The first line of standard output is the server's process id; the exit code
is the server's, or 128 + its signal. Only the standard library is used, and no package is imported.

Triton 24.10 does not replace a python model's process (its stub) that has died, and its health stays green. So the
watchdog looks at the server's children: one that has ended without being waited for has crashed, and the server is
killed. Clients get an error at once, and whoever started the server starts it again.
"""

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import struct
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36
SHARED_MEMORY = Path("/dev/shm")
LOOK_S = 0.25
"""Seconds between two checks of the known stubs. Triton waits for one that ends normally sooner than that."""

LOOKS_FOR_NEW = 8
"""New stubs (after a change of adapters) are searched for at one check in so many: that reads all of /proc."""

STALL_S = 1.0
REMEMBERED_S = 10.0
"""Triton 24.10 gives a stub up that stands still for more than a second while a request waits for it. It or the stub
then crashes, which is not the stub's fault: the machine was suspended, or had no time for it."""

STALLED = "a process of the server or its watchdog has stood still for more than a second"
INSTANCE = re.compile(r"(\w+)_\d+_\d+")
LOST = "the process of a model has died:"


def main(shm_prefix: str, run_dir: str, command: list[str]) -> int:
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # stubs whose server has died become our children, so we see them end
    wake = wake_on_signals()
    server = start(command)
    sys.stdout.write(f"{server}\n")
    sys.stdout.close()
    orphaned = watch(server, wake)
    code = end_all(server)
    remove_shared_memory(shm_prefix)
    if orphaned:
        shutil.rmtree(run_dir, ignore_errors=True)
    return code


def start(command: list[str]) -> int:
    """Start the server in a session of its own; its process id."""
    watchdog = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        close_shared_memory()
        if os.getppid() == watchdog:  # else the watchdog died before the line above
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            os.execv(command[0], command)
    except OSError as error:
        say(f"error: {command[0]}: {error.strerror}")
    os._exit(127)


def watch(server: int, wake: int) -> bool:
    """Pass the supervisor's commands on until the server ends, is killed or loses a stub; whether the supervisor has
    gone."""
    stubs: dict[int, str] = {}
    ended: set[int] = set()
    stopped: dict[int, float] = {}
    looks, looked, stalled = 0, time.monotonic(), -REMEMBERED_S
    while not has_ended(server):
        readable, _, _ = select.select([0, wake], [], [], LOOK_S)
        looked, before = time.monotonic(), looked
        if looked - before > STALL_S:
            stalled = looked
        if wake in readable:
            os.read(wake, 4096)
        if 0 in readable:
            order = os.read(0, 1)
            if order != b"t":
                return not order
            os.kill(server, signal.SIGTERM)
            looks = -1  # from now on stubs end normally
        if readable or looks < 0:
            continue
        if looks % LOOKS_FOR_NEW == 0:
            stubs = {stub: stubs.get(stub) or model_of(stub) for stub in children(server)}
        looks += 1
        states = {stub: state(stub) for stub in stubs}
        stopped = {stub: stopped.get(stub, looked) for stub in stubs if states[stub][1] in ("t", "T")}
        if any(looked - since >= STALL_S for since in stopped.values()):
            stalled = looked
        already, ended = ended, {stub for stub in stubs if states[stub][:2] == (server, "Z")}
        if lost := sorted(already & ended):
            models = ", ".join(f"{stubs[stub]} ({states[stub][2]})" for stub in lost)
            say(f"error: {LOST} {models}; the server ends, so that nobody waits for it")
            break
    if looks >= 0 and time.monotonic() - stalled < REMEMBERED_S:
        say(f"error: {STALLED}")
    return False


def end_all(server: int) -> int:
    """Kill what is left of the server and of its children, wait for them, and return the server's exit code."""
    # The server is not reaped before its group is killed: until then its number cannot belong to anybody else.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server, signal.SIGKILL)
    _, status = os.waitpid(server, 0)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for child in children(os.getpid()):  # those that had left the group
            if state(child)[1] != "Z":
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def has_ended(server: int) -> bool:
    """Whether the server has ended (it is not reaped here); adopted children that have ended are reaped."""
    while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if ended.si_pid == server:
            return True
        os.waitpid(ended.si_pid, 0)
    return False


def children(parent: int) -> list[int]:
    """Process ids of a process's children, ended ones that it has not waited for included."""
    numbers = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return [number for number in numbers if state(number)[0] == parent]


def state(process: int) -> tuple[int, str, str]:
    """A process's parent, its state ("Z" where it has ended but was not waited for), and in words what has ended it."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it is gone
        return 0, "", ""
    code = os.waitstatus_to_exitcode(int(fields[49]))
    return int(fields[1]), fields[0], f"signal {-code}" if code < 0 else f"exit code {code}"


def model_of(stub: int) -> str:
    """The model that a stub runs, by the name of its instance on its command line; "?" where that cannot be read."""
    try:
        command = Path(f"/proc/{stub}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return "?"
    instances = (INSTANCE.fullmatch(word) for word in command.split("\0"))
    return next((instance[1] for instance in instances if instance), "?")


def close_shared_memory() -> None:
    """Let what this process and its children create be the user's alone.

    The python backend gives its shared memory, in which prompts are, the mode 0644 whatever the umask is, by a call of
    its own. A filter makes the kernel do nothing for that very call, fchmod(…, 0644), and say that it went well.
    """
    os.umask(0o077)
    known = {"x86_64": (0xC000003E, 91), "aarch64": (0xC00000B7, 52)}
    if os.uname().machine not in known:
        return
    architecture, fchmod = known[os.uname().machine]
    load, jump_if_equal, end = 0x20, 0x15, 0x06
    program = [  # code, jump if equal, jump if not, value
        (load, 0, 0, 4),  # seccomp_data.arch
        (jump_if_equal, 0, 5, architecture),
        (load, 0, 0, 0),  # .nr
        (jump_if_equal, 0, 3, fchmod),
        (load, 0, 0, 24),  # .args[1]
        (jump_if_equal, 0, 1, 0o644),
        (end, 0, 0, 0x00050000),  # SECCOMP_RET_ERRNO, no error
        (end, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    filter_ = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(filter_)):
        say("warning: no filter of system calls here, so other users can read the models' shared memory")


def say(line: str) -> None:
    """Write a line to the server's log; on a full disk it is lost, and nothing else."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def remove_shared_memory(prefix: str) -> None:
    """Remove the python backend's shared memory, which a killed server leaves behind."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def wake_on_signals() -> int:
    """A descriptor that becomes readable when a child ends. SIGTERM and SIGINT do nothing: the supervisor decides.

    Handlers that do nothing, and not SIG_IGN, which the server would inherit.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return reading


def prctl(option: int, value: int, argument: int = 0) -> int:
    """The result of the system call: 0, or -1 where it was refused."""
    result: int = ctypes.CDLL(None, use_errno=True).prctl(*map(ctypes.c_ulong, (option, value, argument, 0, 0)))
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
