"""The README's snippets, run as they stand but for the server's address and certificate."""

import re
import subprocess
import sys
from pathlib import Path

from tests.clients.conftest import Served
from tests.servers import INHERITED, ROOT

SECTION = "Point your client at it"
SNIPPETS: dict[str, str] = dict(
    re.findall(
        r"^### (.+)\n(?:(?!^#|^```).*\n)*```python\n((?:.*\n)*?)```$",
        re.split(rf"^## {SECTION}$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)[1].partition("\n## ")[0],
        flags=re.MULTILINE,
    )
)
"""By the heading that each stands under."""


def check(client: str, served: Served, folder: Path) -> None:
    """Run a client's snippet in `folder`: it prints what it says behind each print."""
    code = SNIPPETS[client]
    for shown, real in (
        ("https://127.0.0.1:8443", served.https),
        ("http://127.0.0.1:8000", served.http),
        ("instance/localhost.pem", str(served.certificate)),
    ):
        code = code.replace(shown, real)
    ran = subprocess.run(
        [sys.executable, "-"],
        input=code,
        cwd=folder,
        env=INHERITED,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    promised = re.findall(r"^ *print\(.*\)  # (.*)$", code, flags=re.MULTILINE)
    assert promised
    assert ran.stdout.splitlines() == promised
