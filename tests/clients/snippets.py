"""The README's snippets, run as they stand but for the server's address and certificate."""

import re
import subprocess
import sys
from pathlib import Path

from tests.clients.conftest import JS, Served
from tests.servers import INHERITED, ROOT

SECTION = (ROOT / "README.md").read_text().partition("\n## Point your client at it\n")[2].partition("\n## ")[0]
SNIPPETS: dict[str, tuple[str, str]] = {
    heading: (language, code)
    for heading, language, code in re.findall(
        r"^### (.+)\n(?:(?!###|```).*\n)*```(python|js)\n((?:.*\n)*?)```$", SECTION, flags=re.MULTILINE
    )
}
"""Language and code, by the heading that they stand under."""


def adapted(code: str, served: Served) -> str:
    """Return a snippet that calls the server that there is."""
    for shown, real in (
        ("https://127.0.0.1:8443", served.https),
        ("http://127.0.0.1:8000", served.http),
        ("instance/localhost.pem", str(served.certificate)),
    ):
        code = code.replace(shown, real)
    return code


def check(client: str, served: Served, folder: Path) -> None:
    """Run a client's snippet: it prints what it says behind each print. What it writes goes into `folder`."""
    language, code = SNIPPETS[client]
    code = adapted(code, served)
    if language == "python":
        command, where, trust = [sys.executable, "-"], folder, {}
    else:
        command, where = ["node", "--input-type=module", "-"], JS
        trust = {"NODE_EXTRA_CA_CERTS": str(served.certificate)}
    ran = subprocess.run(
        command,
        input=code,
        cwd=where,
        env={**INHERITED, **trust},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    promised = re.findall(r"^ *(?:print|console\.log)\(.*\);? +(?:#|//) (.*)$", code, flags=re.MULTILINE)
    assert promised
    assert ran.stdout.splitlines() == promised
