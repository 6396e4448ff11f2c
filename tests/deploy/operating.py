"""docs/operate.md's commands, and the service as they install it: another user, a read-only file system."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import ROOT, Server

NOBODY, NOGROUP = 65534, 65534
NO_EXEC_GAIN = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
"""What MemoryDenyWriteExecute= asks for, by PR_SET_MDWE, so on Linux 6.3 or later."""

CONFINED = """
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount --bind "$DATA" "$DATA"
if [ -n "$HIDDEN" ]; then  # an interpreter in a home folder: nobody may go there, but systemd would not, either
    mount --bind "$BASE" /mnt
    mount -t tmpfs -o mode=755 tmpfs "$HIDDEN"
    mkdir -p "$BASE"
    mount --bind /mnt "$BASE"
    umount /mnt
fi
mount -o remount,bind,ro /
if [ -n "$LISTENER" ]; then
    eval "exec 3<&$LISTENER"
    export LISTEN_FDS=1 LISTEN_PID=$$
fi
unset DATA HIDDEN BASE LISTENER
exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""
"""What the unit promises, by hand. Each step replaces the process, so that it keeps its id."""


def commands(heading: str, replaced: dict[str, str]) -> list[str]:
    """Return the shell blocks of a section, with other paths, and without what asks systemd."""
    section = (ROOT / "docs/operate.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = [block.partition("```")[0] for block in section.split("```sh\n")[1:]]
    for path, other in replaced.items():
        blocks = [block.replace(path, other) for block in blocks]
    lines = [[line for line in block.splitlines() if not line.startswith("systemctl")] for block in blocks]
    return ["\n".join(("set -eu", *block)) for block in lines]


def run_as_written(script: str, **environment: str) -> None:
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def confined(data: Path, *command: str) -> list[str]:
    """Return the command line that runs a program as nobody, with `data` and /tmp alone to write to."""
    return ["unshare", "--mount", "bash", "-euc", CONFINED, "confined", sys.executable, "-c", NO_EXEC_GAIN, *command]


def environment(data: Path, settings: dict[str, str], listener: socket.socket | None = None) -> dict[str, str]:
    """Return what `confined` and the service are told."""
    base = Path(sys.base_prefix)
    hidden = next((str(path) for path in reversed(base.parents) if not path.stat().st_mode & 0o001), "")
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "DATA": str(data),
        "BASE": str(base),
        "HIDDEN": hidden,
        "LISTENER": str(listener.fileno()) if listener else "",
        "DATABASE_URL": f"sqlite:///{data}/presence.sqlite3",
        "INSTANCE_PATH": str(data),
        "PYTHONDONTWRITEBYTECODE": "1",
        **settings,
    }


@contextmanager
def service(installed: Path, data: Path, listener: socket.socket, **settings: str) -> Iterator[Server]:
    """Run the installed service, confined, on a port that somebody else holds."""
    process = subprocess.Popen(
        confined(data, f"{installed}/.venv/bin/gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"),
        cwd=installed,
        env=environment(data, settings, listener),
        pass_fds=(listener.fileno(),),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}", process)
    try:
        server.wait_for("Booting worker")
        yield server
    finally:
        server.stop()
