"""Shows where the service spends its CPU: samples its workers under load with py-spy. `make profile` runs it.

Only threads that hold the interpreter's lock are sampled: what waits for the database, the client or the lock costs no
CPU. Beside each function stands its share of the samples, by itself and with all that it calls.
"""

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import run
from databases import CASES

SAMPLES_PER_SECOND = 200
CONNECTIONS = 16
PACKAGES = re.compile(r"^.*/(?:site-packages|lib/python3\.\d+)/")
LAYERS = {
    "app/": "this service",
    "flask/": "Flask and Werkzeug",
    "werkzeug/": "Flask and Werkzeug",
    "gunicorn/": "gunicorn",
    "psycopg": "psycopg",
    "sqlalchemy/": "SQLAlchemy's pool",
    "pydantic": "pydantic",
}


def main() -> None:
    """Sample each case in turn, print the table and draw the flame graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=run.ENGINES, default="postgresql")
    parser.add_argument("--cases", type=lambda text: text.split(","), default=["set", "keep-alive", "clear", "read"])
    parser.add_argument("--seconds", type=int, default=6, help="length of each sampling")
    parser.add_argument("--most", type=int, default=25, help="how many functions are told of each case")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"{', '.join(unknown)}: not among {', '.join(CASES)}")
    run.require_wrk()
    started = argparse.Namespace(engines=[options.engine], durability=["durable"])
    with ExitStack() as stack:
        run.say("starting the servers")
        folder = Path(stack.enter_context(TemporaryDirectory()))
        _, servers = run.start(stack, started)
        server, database = servers["durable", options.engine]
        server.load("read", 1, CONNECTIONS)  # nobody is sampled cold
        for case in options.cases:
            run.say(f"{options.engine} {case}: {options.seconds} s")
            database.fill(case, options.seconds)
            found = folder / "stacks"
            command = ["py-spy", "record", "--gil", "--subprocesses", "--pid", str(server.pids[0]), "--format", "raw"]
            length = ["--rate", str(SAMPLES_PER_SECOND), "--duration", str(options.seconds)]
            with subprocess.Popen(
                [Path(sys.executable).parent / command[0], *command[1:], *length, "--function", "--output", found],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ) as sampler:
                sample = server.load(case, options.seconds, CONNECTIONS)
                _, said = sampler.communicate(timeout=run.PATIENCE_SECONDS)
            if sampler.returncode:
                sys.exit(f"profile: py-spy failed; it may need root: {said}")
            print(f"\n{options.engine} {case}: {sample.cpu_us:,.0f} µs of CPU a request, the database's included")
            for line in shares(found.read_text().splitlines(), options.most):
                print(line)


def shares(stacks: Iterable[str], most: int) -> Iterator[str]:
    """Return the lines of the table. A stack is its frames, outermost first, and how often it was seen."""
    alone: Counter[str] = Counter()
    below: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for stack in stacks:
        frames, _, times = stack.rpartition(" ")
        named = [_shortened(frame) for frame in frames.split(";")]
        alone[named[-1]] += int(times)
        layers[_layer(named[-1])] += int(times)
        for frame in set(named):
            below[frame] += int(times)
    samples = alone.total() or 1
    yield "  ".join(f"{layer} {count / samples:.0%}" for layer, count in layers.most_common())
    yield f"{'alone':>8}{'below':>8}  of {samples} samples"
    for frame, count in alone.most_common(most):
        yield f"{count / samples:8.1%}{below[frame] / samples:8.1%}  {frame}"
    yield "with all that they call, the largest of this service:"
    ours = ((frame, count) for frame, count in below.most_common() if _layer(frame) == LAYERS["app/"])
    for frame, count in list(ours)[:most]:
        yield f"{alone[frame] / samples:8.1%}{count / samples:8.1%}  {frame}"


def _shortened(frame: str) -> str:
    """Return `function (file)` with the file as it is imported."""
    name, _, file = frame.partition(" (")
    return f"{name} ({PACKAGES.sub('', file).removeprefix(f'{Path.cwd()}/')}"


def _layer(frame: str) -> str:
    file = frame.partition(" (")[2]
    return next((layer for beginning, layer in LAYERS.items() if file.startswith(beginning)), "Python's own")


if __name__ == "__main__":
    main()
