"""Sends hostile requests to the whole application until the time is up or something does not hold.

What must hold: no answer of 500 or above, no fault in the log, every error in its envelope, the headers on everything,
no row changed by what was refused or only read, and events that replay to the sessions. The exit status is 1 when it
does not; the shortest conversation that shows it is printed, and written to a file that --replay sends again.
"""

import argparse
import ast
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.chaos.rig import Postgres, Sqlite
from tests.fuzz.conversations import conversations
from tests.fuzz.target import SERVERS, Target
from tests.servers import ROOT

ENGINES = ("sqlite", "postgresql")
PROGRESS_SECONDS = 10
CONVERSATIONS_IN_A_ROUND = 200
FAILURES = ROOT / "instance" / "fuzz"


class TimeIsUp(BaseException):
    """There is no time for another conversation."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the engines one after the other."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and leave nothing behind
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--seconds", type=float, default=60, help="for each engine")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the first round")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="send what a failure was written to, and nothing else"
    )
    options = parser.parse_args(arguments)
    failed = False
    for engine in options.engine or ENGINES:
        with ExitStack() as stack:
            top = Path(stack.enter_context(TemporaryDirectory()))
            top.chmod(0o755)  # as root, PostgreSQL runs as another user
            (folder := top / "instance").mkdir()
            database = Sqlite(folder) if engine == "sqlite" else Postgres(folder, stack)
            stack.callback(database.engine.dispose)
            target = Target(database.url, folder)
            stack.callback(target.close)
            if options.replay:
                server, *sent = ast.literal_eval(options.replay.read_text())
                for answer in target.converse(server, sent):
                    print(
                        f"{engine}: {answer.method} {answer.path} was answered {answer.status}: {answer.body!r:.2000}"
                    )
            else:
                failed |= not fuzz(engine, target, options.seconds, options.seed)
    return 1 if failed else 0


def fuzz(engine: str, target: Target, seconds: float, first_seed: int) -> bool:
    """Send conversations, a line of progress now and then; tell whether everything held."""
    began = time.monotonic()
    told_at = began
    statuses: Counter[str] = Counter()
    last: tuple[str, list[bytes]] = ("", [])

    def converse(server: str, sent: list[bytes]) -> None:
        nonlocal last, told_at
        now = time.monotonic()
        if now > began + seconds:
            raise TimeIsUp
        if now > told_at + PROGRESS_SECONDS:
            told_at = now
            print(progress(engine, now - began, statuses), flush=True)
        last = (server, sent)
        answered = target.converse(server, sent)
        statuses.update(f"{answer.status // 100}xx" for answer in answered)
        statuses["conversations"] += 1
        statuses["refused by gunicorn"] += max(0, len(sent) - len(answered))

    print(f"{engine}: {seconds:.0f} s, the first seed is {first_seed}", flush=True)
    try:
        while True:
            run = settings(
                max_examples=CONVERSATIONS_IN_A_ROUND,
                database=None,
                deadline=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
                print_blob=False,
            )(given(st.sampled_from(SERVERS), conversations)(converse))
            seed(first_seed)(run)()
            first_seed += 1
    except TimeIsUp:
        print(progress(engine, time.monotonic() - began, statuses), flush=True)
        return True
    except Exception as failure:  # whatever it is, it is what was looked for
        server, sent = last
        FAILURES.mkdir(parents=True, exist_ok=True)
        file = FAILURES / f"{engine}-{first_seed}.txt"
        file.write_text("(\n" + "".join(f"    {each!r},\n" for each in (server, *sent)) + ")\n")
        print(progress(engine, time.monotonic() - began, statuses))
        print(f"\n{type(failure).__name__}: {failure}\n\nin {server}, after\n")
        for request in sent:
            print(f"    {request!r}")
        print(f'\nAgain: make fuzz FUZZ="--engine {engine} --replay {file.relative_to(ROOT)}"', flush=True)
        return False


def progress(engine: str, seconds: float, statuses: Counter[str]) -> str:
    """Return a line that tells how far it is."""
    told = ", ".join(f"{statuses[kind]:,} {kind}" for kind in sorted(statuses))
    return f"{engine:<11}{seconds:>5.0f} s  {told}"


if __name__ == "__main__":
    sys.exit(main())
