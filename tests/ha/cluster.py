"""The cluster that deploy/ha describes, on this machine: one etcd, two nodes of PostgreSQL under Patroni."""

import base64
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from tests.servers import ROOT, free_port

SHIPPED = ROOT / "deploy" / "ha"
PACKAGES = {"etcd": "etcd-server", "patroni": "patroni", "postgres": "postgresql"}
OWNER = "postgres" if os.geteuid() == 0 else None
"""PostgreSQL refuses to run as root."""
PASSWORD = "only-on-this-machine"


def until(what: str, holds: Callable[[], bool], seconds: float) -> None:
    """Return as soon as it holds; asks five times a second.

    Raises:
        TimeoutError: it did not for so many seconds.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(0.2)


def find(program: str) -> Path | None:
    """Return where a program is; of several PostgreSQL the newest, which Debian keeps off the PATH."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(program)
    return kept[-1] if kept else Path(found).resolve() if found else None


def install_missing() -> None:
    """Install what is missing, as root on Debian; else end and name it."""
    missing = [package for program, package in PACKAGES.items() if not find(program)]
    if not missing:
        return
    if OWNER is None or not shutil.which("apt-get"):
        raise SystemExit(f"make test-ha: install {' '.join(missing)} first (Debian's names), or run it as root.")
    print("Installing", *missing, flush=True)
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        subprocess.run(
            ["apt-get", "-qq", *command], check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        )


def children(pid: int) -> set[int]:
    """Return the ids of a process's children."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def start(log: Path, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a program as OWNER, its output appended to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=log.parent,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(log.parent), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            user=OWNER,
            group=OWNER,
            extra_groups=[] if OWNER else None,
        )


class Node:
    """One PostgreSQL and the Patroni that runs it."""

    def __init__(self, name: str, folder: Path, etcd: str) -> None:
        postgres = find("postgres")
        assert postgres
        self.name = name
        self.port = free_port()
        self._folder = folder
        self._data = folder / name
        self._api = f"127.0.0.1:{free_port()}"
        address = f"127.0.0.1:{self.port}"
        shipped = dict(line.split("=", 1) for line in (SHIPPED / "node.env").read_text().splitlines() if "=" in line)
        ours = {
            "PATRONI_NAME": name,
            "PATRONI_ETCD3_HOSTS": etcd,
            "PATRONI_POSTGRESQL_LISTEN": address,
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": address,
            "PATRONI_POSTGRESQL_DATA_DIR": str(self._data),
            "PATRONI_POSTGRESQL_BIN_DIR": str(postgres.parent),
            "PATRONI_POSTGRESQL_PGPASS": str(folder / f"{name}.pgpass"),
            "PATRONI_RESTAPI_LISTEN": self._api,
            "PATRONI_RESTAPI_CONNECT_ADDRESS": self._api,
        }
        self._environment = {name: value or PASSWORD for name, value in {**shipped, **ours}.items()}

    def start(self) -> None:
        """Start Patroni, which makes, starts or repairs its PostgreSQL."""
        patroni = str(find("patroni"))
        self._patroni = start(self._folder / f"{self.name}.log", patroni, "config", **self._environment)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to Patroni, PostgreSQL and all of its processes: what befalls a whole machine."""
        postmaster = (self._data / "postmaster.pid").read_text().split()[0]
        others = children(int(postmaster))
        for pid in (self._patroni.pid, int(postmaster), *others):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End the node at once."""
        self.signal(signal.SIGKILL)
        self._patroni.wait()

    def stop(self) -> None:
        """End Patroni as systemd does; it stops its PostgreSQL."""
        self._patroni.terminate()

    def wait(self) -> None:
        """Wait for the end of a node that was told to stop."""
        try:
            self._patroni.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def is_(self, role: str) -> bool:
        """Ask Patroni: primary, replica, sync (the replica that confirms commits)."""
        with suppress(OSError):
            return self._ask(f"/{role}") is not None
        return False

    def hand_over_to(self, other: "Node") -> None:
        """Let another node be the primary, in order."""
        self._ask("/switchover", {"leader": self.name, "candidate": other.name})

    def query(self, statement: str, database: str = "presence") -> list[tuple[Any, ...]]:
        """Run a statement here, as superuser."""
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=database,
            user="postgres",
            password=PASSWORD,
            autocommit=True,
            connect_timeout=5,
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _ask(self, path: str, body: object = None) -> bytes | None:
        """Return Patroni's answer; None when it is no."""
        secret = base64.b64encode(f"patroni:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(
            f"http://{self._api}{path}",
            json.dumps(body).encode() if body else None,
            {"Authorization": f"Basic {secret}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            if body:
                raise RuntimeError(f"{path}: {error.read().decode()}") from None
            return None


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Node, Node]]:
    """Run a new cluster in a folder; primary first, and the other confirms its commits."""
    (folder / "config").mkdir()
    shutil.copy(SHIPPED / "patroni.yml", folder / "config")
    # Debian's folder for sockets takes those of its own user only.
    (folder / "config" / "sockets.yml").write_text(
        f'postgresql: {{parameters: {{unix_socket_directories: "{folder}"}}}}\n'
    )
    if OWNER:
        shutil.chown(folder, OWNER, OWNER)
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    etcd = start(
        folder / "etcd.log",
        *(str(find("etcd")), "--name=etcd", f"--data-dir={folder / 'etcd'}"),
        *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=etcd={peer}"),
    )
    first, second = (Node(name, folder, client.removeprefix("http://")) for name in ("db1", "db2"))
    running: list[Node] = []
    try:
        for node, role in ((first, "primary"), (second, "sync")):
            node.start()
            running.append(node)
            until(f"{node.name} is {role}", partial(node.is_, role), 60)
        yield first, second
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")
        raise
    finally:
        for node in running:
            node.stop()
        for node in running:
            node.wait()
        etcd.terminate()
        etcd.wait(10)
