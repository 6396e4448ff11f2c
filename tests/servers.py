"""Servers as users start them: gunicorn in a process of its own."""

import http.client
import os
import queue
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import psutil
from gunicorn.config import Config

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

# What a test process hands on to the programs it starts; no setting of the service is among it.
INHERITED = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "COVERAGE", "LANG"))}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the virtual environment to its end."""
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        env={**INHERITED, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def peers(process: psutil.Process) -> set[int]:
    """Return the ports at the other ends of a process's connections."""
    return {connection.raddr.port for connection in process.net_connections("tcp") if connection.raddr}


def suspend(pid: int) -> psutil.Process:
    """Stop a process, and return it once it has stopped: until then it may still take a connection."""
    process = psutil.Process(pid)
    process.suspend()
    while process.status() != psutil.STATUS_STOPPED:
        pass
    return process


class Server:
    """A gunicorn, and what it has printed so far."""

    def __init__(self, base: str, process: subprocess.Popen[str]) -> None:
        self.base = base
        self.process = process
        self.printed: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for(self, words: str) -> None:
        """Return once a line with `words` was printed; fail when the server ends before."""
        while (line := self._lines.get(timeout=60)) is not None:
            self.printed.append(line)
            if words in line:
                return
        raise AssertionError("\n".join(self.printed))

    def each_worker(self, count: int) -> list[http.client.HTTPConnection]:
        """Return an open connection to each of the workers, of which there are `count`."""
        found: dict[int, http.client.HTTPConnection] = {}
        for _ in range(500):
            connection = http.client.HTTPConnection(self.base.removeprefix("http://"), timeout=30)
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            port = connection.sock.getsockname()[1]
            worker = next(child.pid for child in self.children() if port in peers(child))
            if found.setdefault(worker, connection) is not connection:
                connection.close()
            if len(found) == count:
                return list(found.values())
        raise AssertionError(f"{len(found)} of {count} workers answered")

    def children(self) -> list[psutil.Process]:
        """Return the workers."""
        return psutil.Process(self.process.pid).children()

    def stop(self) -> None:
        """End the server as an operator does, and read all that it prints until then."""
        self.process.terminate()
        self.process.wait(60)
        while (line := self._lines.get(timeout=60)) is not None:
            self.printed.append(line)

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


@contextmanager
def gunicorn(app: str = "wsgi:app", **environment: str) -> Iterator[Server]:
    """Run gunicorn with these settings, on a free port unless PORT names one; it listens when this returns."""
    port = environment.get("PORT") or str(free_port())
    process = subprocess.Popen(
        [str(BIN / "gunicorn"), "-c", "gunicorn.conf.py", app],
        cwd=ROOT,
        env={**INHERITED, **environment, "PORT": port},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    scheme = "https" if "TLS_CERTFILE" in environment else "http"
    server = Server(f"{scheme}://127.0.0.1:{port}", process)
    try:
        server.wait_for("Booting worker")
        yield server
    finally:
        server.stop()


def shipped_settings() -> Config:
    """Return gunicorn's configuration as it is shipped."""
    with patch.dict("os.environ", {"PRESENCE_ENV": "development"}):
        shipped = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    config = Config()
    for name in config.settings.keys() & shipped.keys():
        config.set(name, shipped[name])
    return config
