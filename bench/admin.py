"""Times each page of the admin site: `make bench-admin`, on the database of DATABASE_URL.

`make seed-users` fills that. The pages are asked for in this process, so that what is timed is the page and its queries
and no HTTP server; they change nothing. Beside the time stands what this process and its one connection to PostgreSQL
spent of a core, which is the same however busy the machine is.
"""

import argparse
import os
import re
import secrets
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from flask.testing import FlaskClient
from pydantic import SecretStr
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import Engine, text
from werkzeug.security import generate_password_hash

from app.db.browsing import Browser, UserKey
from app.db.schema import SchemaCheck
from app.factory import create_app
from config import Account, Settings, SettingsError, load

NAME, PASSWORD = "bench", secrets.token_urlsafe()
AIM_MS = 200
NOBODY = "00000000-0000-4000-8000-000000000001"


def sign_in(client: FlaskClient) -> None:
    """Give the client the cookie of somebody who has signed in."""
    found = re.search(r'name="form_token" value="(\w+)"', client.get("/admin/sign-in").text)
    form = {"form_token": found[1] if found else "", "name": NAME, "password": PASSWORD}
    client.post("/admin/sign-in", data=form)


def paths(browser: Browser) -> Iterator[tuple[str, str]]:
    """Return what each page is called, and its path, with ids from the middle of what is stored."""
    middle = UserKey(browser.tenants()[0], "80000000-0000-4000-8000-000000000000")
    user = browser.users(middle, None, None, 1)[0]
    name = browser.names([user])[user].user_principal_name
    app_id = browser.live_sessions(datetime.now(UTC), 1)[0].session.session_id
    after = "/".join(user)
    yield "overview", "/admin"
    yield "users", "/admin/users"
    yield "users, from the middle on", f"/admin/users?after={after}"
    for availability in ("Available", "Busy", "DoNotDisturb", "BeRightBack", "Offline"):
        yield f"users who are {availability}", f"/admin/users?availability={availability}"
    yield "users of an app", f"/admin/users?app={app_id}"
    yield "users of an app with none", f"/admin/users?app={NOBODY}"
    yield "users, by id", f"/admin/users?q={user.user_id}"
    yield "users, by name", f"/admin/users?q={name}"
    yield "users, by how 11,111 names begin", "/admin/users?q=user1"
    yield "users, by a name that nobody has", "/admin/users?q=zoe@contoso.example"
    yield "a user", f"/admin/users/{after}"
    yield "live sessions", "/admin/sessions"
    yield "live sessions of an app", f"/admin/sessions?app={app_id}"
    yield "live sessions of an app with none", f"/admin/sessions?app={NOBODY}"
    yield "changes", "/admin/changes"
    yield "changes by an app", f"/admin/changes?app={app_id}"
    yield "changes by an app with none", f"/admin/changes?app={NOBODY}"
    yield "changes of a user", f"/admin/changes?tenant={user.tenant_id}&user={user.user_id}"
    yield "CSV of 100,000 users", "/admin/users.csv"


def connected_to(engine: Engine) -> psutil.Process | None:
    """Return the server's process behind the pool's one connection, when it is one of this machine."""
    if engine.dialect.name != "postgresql":
        return None
    with engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    return psutil.Process(pid) if psutil.pid_exists(pid) else None


def cpu_seconds(backend: psutil.Process | None) -> float:
    """Return what this process and the server's have used of a core."""
    return time.process_time() + (sum(backend.cpu_times()[:2]) if backend else 0)


def main() -> None:
    """Time every page, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=7, help="how often each page is asked for, after once unmeasured")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        try:
            settings = load(
                Settings,
                presence_env="development",
                instance_path=Path(folder),
                database_pool=1,
                admin_users=(Account(NAME, generate_password_hash(PASSWORD)),),
                admin_secret_key=SecretStr(secrets.token_hex()),
            )
        except SettingsError as error:
            sys.exit(f"bench-admin: {error}")
        app = create_app(settings)
        engine = app.extensions["engine"]
        if fault := SchemaCheck(engine).fault():
            sys.exit(f"bench-admin: {fault}")
        client = app.test_client()
        sign_in(client)
        table = Table("page", "status", "KiB", "median ms", "longest ms", "CPU ms", title=engine.dialect.name)
        slow, costly, backend = 0, 0, connected_to(engine)
        for name, path in track(list(paths(Browser(engine))), "Pages", console=Console(stderr=True), transient=True):
            is_page = "CSV" not in name
            spent, used = [], []
            for _ in range(1 + options.times if is_page else 1):
                start, before = time.perf_counter(), cpu_seconds(backend)
                answer = client.get(path)
                size = len(answer.data)
                spent.append(1000 * (time.perf_counter() - start))
                used.append(1000 * (cpu_seconds(backend) - before))
            measured = spent[-options.times :]
            median = statistics.median(measured)
            slow += is_page and median > AIM_MS
            cpu = statistics.median(used[-options.times :])
            costly += is_page and cpu > AIM_MS
            figures = (f"{size / 1024:,.0f}", f"{median:,.1f}", f"{max(measured):,.1f}", f"{cpu:,.0f}")
            table.add_row(name, str(answer.status_code), *figures)
        engine.dispose()
    Console(width=100).print(table)
    print(
        f"Median of {options.times}, after one that was not measured, on {os.cpu_count()} cores at a load of", end=" "
    )
    print(
        f"{os.getloadavg()[0]:.1f}. {slow} pages take longer than {AIM_MS} ms; {costly} spend more than that of a core."
    )


if __name__ == "__main__":
    main()
