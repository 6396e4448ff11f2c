"""How far a command is: nothing at first, then a bar for who looks at a terminal, or now and then a line for a log."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

PATIENCE_SECONDS = 2.0
"""After which a command that is still at it says how far it is."""
Item = TypeVar("Item")


def counted(items: Iterable[Item], show: Callable[[int], None]) -> Iterator[Item]:
    """Return the same items, and show how many there have been."""
    for number, item in enumerate(items, 1):
        show(number)
        yield item


@contextmanager
def shown(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Lend a function that takes how many are done, and shows it on standard error once that is worth it.

    Who looks at a terminal gets a bar; a log gets a line now and then.
    """
    from rich import console, progress  # noqa: PLC0415  # gunicorn loads this module, too, and draws no bar

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    bar = progress.Progress(*columns, console=console.Console(stderr=True), transient=True)
    task = bar.add_task(label, total=total)
    last = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        if bar.live.is_started:
            bar.update(task, completed=done)
        elif time.monotonic() - last >= PATIENCE_SECONDS:
            last = time.monotonic()
            if bar.console.is_terminal:
                bar.update(task, completed=done)
                bar.start()
            else:
                click.echo(f"{label}: {done:,}{'' if total is None else f' of {total:,}'}", err=True)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
