"""The drill of `make test-ha`: workers are replaced, the primary dies, returns, takes over again; its replica freezes.

All of it under load, in under four minutes, on 127.0.0.1. Ends with a table, and with 1 when something was lost, a
client saw what it should not, or writes stood still for too long.
"""

import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.builders import AUDIENCE, new_id, signing_key
from tests.ha.cluster import OWNER, PASSWORD, Node, children, cluster, install_missing, until
from tests.ha.load import ACKNOWLEDGED, DISCONNECTED, UNAVAILABLE, Load, Phase, lost
from tests.servers import Server, gunicorn, run

TENANT = new_id()
RESUME_SECONDS = 30
WAIT_SECONDS = 15
"""A wait for a connection, one for a server to be found and one for a statement, DATABASE_TIMEOUT each."""
LONGEST_SECONDS = 225

BEGUN_AT = time.monotonic()


def say(words: str) -> None:
    print(f"{time.monotonic() - BEGUN_AT:5.1f} s  {words}", flush=True)


def watch(name: str, load: Load, act: Callable[[], None], then_seconds: float = 3) -> Phase:
    """Act, wait for writes to be acknowledged again, go on for a while, and return what clients saw."""
    say(name)
    begun = time.monotonic()
    act()
    acted = time.monotonic()
    try:
        until("writes are acknowledged", lambda: load.has_written_since(acted), 60)
    except TimeoutError:
        say(f"clients saw {Counter(attempt.outcome for attempt in load.attempts)}")
        raise
    time.sleep(then_seconds)
    seen = list(load.attempts)
    ended = time.monotonic()
    phase = Phase(name, [attempt for attempt in seen if begun <= attempt.ended_at <= ended], begun, ended)
    say(f"       {phase.seconds_without_writes:.1f} s without acknowledged writes")
    return phase


def restart(server: Server) -> None:
    """Replace the workers as an operator does, and wait until the old ones are gone."""
    old = children(server.process.pid)
    server.process.send_signal(signal.SIGHUP)
    until("the old workers are gone", lambda: not old & children(server.process.pid), 40)


def fail_over(primary: Node, replica: Node) -> None:
    primary.kill()
    until(f"{replica.name} is primary", lambda: replica.is_("primary"), 60)


def hand_over(primary: Node, replica: Node) -> None:
    primary.hand_over_to(replica)
    until(f"{replica.name} is primary", lambda: replica.is_("primary"), 60)


def confirm(node: Node) -> None:
    until(f"{node.name} confirms commits", lambda: node.is_("sync"), 60)


def come_back(node: Node) -> None:
    node.start()
    confirm(node)


def thaw(node: Node) -> None:
    node.signal(signal.SIGCONT)
    confirm(node)


def drill(folder: Path) -> tuple[list[Phase], dict[str, int], int]:
    """Run all phases; return them, the acknowledged requests that each node lost, and how many there were."""
    (keys := folder / "jwks.json").write_text(json.dumps(signing_key().jwks()))
    say("bringing up etcd and two nodes of PostgreSQL under Patroni")
    with ExitStack() as stack:
        first, second = stack.enter_context(cluster(folder))
        first.query(f"CREATE ROLE presence LOGIN PASSWORD '{PASSWORD}'", "postgres")
        first.query("CREATE DATABASE presence OWNER presence", "postgres")
        hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        url = f"postgresql://presence:{PASSWORD}@/presence?host={hosts}&target_session_attrs=read-write"
        if (migrated := run("alembic", "upgrade", "head", DATABASE_URL=url)).returncode:
            raise SystemExit(migrated.stderr)
        service = {"AUTH_TENANTS": TENANT, "AUTH_AUDIENCES": AUDIENCE, "AUTH_JWKS_URI": str(keys)}
        server = stack.enter_context(gunicorn(DATABASE_URL=url, **service))
        load = stack.enter_context(Load(server.base, TENANT))
        until("the first write is acknowledged", lambda: load.has_written_since(0), 60)
        phases = [
            watch("all is well", load, lambda: None),
            watch("workers are replaced (HUP)", load, lambda: restart(server)),
            watch("primary killed", load, lambda: fail_over(first, second)),
            watch("it comes back as replica", load, lambda: come_back(first)),
            watch("work is handed back to it", load, lambda: hand_over(second, first)),
            watch("the other one follows", load, lambda: confirm(second)),
            watch("replica freezes", load, lambda: second.signal(signal.SIGSTOP)),
            watch("replica thaws", load, lambda: thaw(second)),
        ]
        load.__exit__()
        [(position,)] = first.query("SELECT pg_current_wal_lsn()")
        reached = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        until("the replica has all", lambda: second.query(reached) == [(True,)], 30)
        say("comparing the ledger with both nodes")
        return (
            phases,
            {node.name: len(lost(load.attempts, node.query)) for node in (first, second)},
            sum(attempt.written for attempt in load.attempts),
        )


def give_up(number: int, _frame: object) -> None:
    """Leave in good order, so that nothing keeps running."""
    raise SystemExit(f"make test-ha: ended by {signal.Signals(number).name} after {time.monotonic() - BEGUN_AT:.0f} s")


def main() -> int:
    install_missing()
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, give_up)
    signal.alarm(LONGEST_SECONDS)
    with tempfile.TemporaryDirectory(prefix="presence-ha-") as name:
        folder = Path(name)
        if OWNER:
            shutil.chown(folder, OWNER, OWNER)
        phases, lost_by_node, written = drill(folder)
    print(f"\n{'':28}{'acknowl.':>9}{'503':>6}{'connect.':>9}{'other':>6}{'no writes':>11}{'slowest':>9}")
    faults = [f"{count} acknowledged writes are not on {node}" for node, count in lost_by_node.items() if count]
    for phase in phases:
        seen = phase.outcomes
        print(
            f"{phase.name:28}{seen[ACKNOWLEDGED]:9}{seen[UNAVAILABLE]:6}{seen[DISCONNECTED]:9}"
            f"{phase.unexpected.total():6}{phase.seconds_without_writes:9.1f} s{phase.slowest_seconds:7.1f} s"
        )
        faults += [f"{phase.name}: {n} times {outcome!r}" for outcome, n in phase.unexpected.items()]
        if phase.seconds_without_writes > RESUME_SECONDS:
            faults.append(f"{phase.name}: no writes for more than {RESUME_SECONDS} s")
        if phase.slowest_seconds > WAIT_SECONDS:
            faults.append(f"{phase.name}: a client waited for more than {WAIT_SECONDS} s")
    for phase in phases[:2]:
        if phase.outcomes[UNAVAILABLE] or phase.outcomes[DISCONNECTED]:
            faults.append(f"{phase.name}: a client saw an error")
    print(f"\n{written} writes acknowledged, lost: {', '.join(f'{n} on {node}' for node, n in lost_by_node.items())}")
    print(*(f"FAILED: {fault}" for fault in faults or ()), sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
