"""Breaks everything that can break, one fault at a time, under load, and says what became of what was acknowledged.

The exit status is 1 when anything was lost, contradicts or hung. `--only WORD` picks faults, `--engine` a database.
"""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos import ledger
from tests.chaos.clients import RECOVERY_SECONDS, Clients
from tests.chaos.faults import FAULTS, Failed, Fault, Skipped
from tests.chaos.rig import Issuer, Postgres, Rig, Sqlite, small_disk

ENGINES = ("sqlite", "postgresql")
CLIENTS = 8
QUIET_SECONDS = 1.0
LONGEST_SECONDS = 280
"""After that no fault is injected any more."""
COLUMNS = (
    "acknowledged",
    "not found",
    "refused",
    "no connection",
    "unknown",
    "slowest s",
    "injected",
    "lost",
    "disagree",
)
HEADER = f"{'engine':<11}{'fault':<31}" + "".join(f"{column:>14}" for column in COLUMNS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults and print a line for each."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and leave nothing behind
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--only", metavar="WORD", default="", help="faults whose name holds this word")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    print(f"{CLIENTS} clients set and clear without a pause; each fault takes a few seconds.\n\n{HEADER}", flush=True)
    bad = 0
    for engine in options.engine or ENGINES:
        with ExitStack() as stack:
            rig = bring_up(engine, stack)
            for fault in FAULTS:
                if options.only in fault.name and (fault.on_sqlite if rig.is_sqlite else fault.on_postgresql):
                    print(f"{engine:<11}{fault.name:<31}", end="", flush=True)
                    in_time = time.monotonic() - began < LONGEST_SECONDS
                    bad += not (in_time and run(rig, fault))
                    if not in_time:
                        print("not tried: there is no time left")
    print(f"\n{'Nothing' if not bad else f'{bad} faults'} failed, after {time.monotonic() - began:.0f} s.")
    return 1 if bad else 0


def bring_up(engine: str, stack: ExitStack) -> Rig:
    """Start the service on a new database of this kind."""
    top = Path(stack.enter_context(TemporaryDirectory()))
    top.chmod(0o755)  # as root, PostgreSQL runs as another user
    folder = top / "disk"
    folder.mkdir()
    stack.enter_context(small_disk(folder))
    database = Sqlite(folder) if engine == "sqlite" else Postgres(folder, stack)
    stack.callback(database.engine.dispose)
    rig = Rig(database, Issuer(stack))
    stack.callback(rig.stop_service)
    return rig


def run(rig: Rig, fault: Fault) -> bool:
    """Inject a fault while clients work, let them work on, and judge; tell whether all is well."""
    wrong: list[str] = []
    injected = 0
    with Clients(rig.port, CLIENTS) as clients:
        clients.served()
        try:
            injected = fault.inject(rig, clients)
        except Skipped as reason:
            print(f"skipped: {reason}", flush=True)
            return True
        except Failed as failure:
            wrong.append(str(failure))
        if not clients.served():
            wrong.append(f"it did not recover within {RECOVERY_SECONDS} s")
        time.sleep(QUIET_SECONDS)
    final = rig.is_sqlite or not fault.loses_database
    events, sessions = ledger.read(rig.database.engine, clients.tenant_id)
    verdict = ledger.judge(clients.requests, events, sessions, refusal_is_final=final)
    statuses = [request.status for request in clients.requests]
    figures = (
        statuses.count(200),
        statuses.count(404),
        statuses.count(503),
        clients.not_connected,
        sum(ledger.is_unknown(request, refusal_is_final=final) for request in clients.requests),
        f"{max(request.ended_at - request.sent_at for request in clients.requests):.1f}",
        injected,
        len(verdict.lost),
        len(verdict.disagreements),
    )
    print("".join(f"{figure:>14}" for figure in figures), flush=True)
    wrong += [*clients.problems, *verdict.lost, *verdict.disagreements]
    for sentence in wrong[:10]:
        print(f"    {sentence}", flush=True)
    if len(wrong) > 10:
        print(f"    … and {len(wrong) - 10} more", flush=True)
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
