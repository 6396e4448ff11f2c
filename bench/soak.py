"""Shows that a worker does not grow: its resident memory over a million requests. `make soak` runs it.

One worker answers the mix of reads, keep-alives and clears, in slices. The exit status is 1 when its memory is more
than MOST_ABOVE_START_MIB above that at its start, or grew by MOST_LATE_GROWTH_MIB or more in the second half.
"""

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import run

MOST_ABOVE_START_MIB, MOST_LATE_GROWTH_MIB = 30, 1
CONNECTIONS = 16
SLICE_SECONDS = 15


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Send the requests, printing the memory after each slice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=run.ENGINES, default="postgresql")
    parser.add_argument("--requests", type=int, default=1_000_000)
    options = parser.parse_args()
    run.require_wrk()
    os.environ["WEB_CONCURRENCY"] = "1"
    with ExitStack() as stack:
        _, servers = run.start(stack, argparse.Namespace(engines=[options.engine], durability=["durable"]))
        server, database = servers["durable", options.engine]
        arbiter = server.pids[0]
        (worker,) = map(int, Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split())
        seen = [(0.0, resident_mib(worker))]
        while seen[-1][0] < options.requests:
            database.fill("mix", SLICE_SECONDS)
            sample = server.load("mix", SLICE_SECONDS, CONNECTIONS)
            seen.append((seen[-1][0] + sample.per_second * SLICE_SECONDS, resident_mib(worker)))
            print(f"{seen[-1][0]:>12,.0f} requests {seen[-1][1]:8.1f} MiB", flush=True)
    start, end = seen[0][1], seen[-1][1]
    halfway = next(mib for requests, mib in seen if requests >= options.requests / 2)
    print(f"at the start {start:.1f} MiB, halfway {halfway:.1f}, at the end {end:.1f}")
    if end - start > MOST_ABOVE_START_MIB or end - halfway >= MOST_LATE_GROWTH_MIB:
        sys.exit("soak: the worker grows")


if __name__ == "__main__":
    main()
