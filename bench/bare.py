"""The floor of the framework: an authenticated route that only looks its token up, under the service's gunicorn."""

import os
from pathlib import Path

from flask import Flask, abort, request
from flask.typing import ResponseReturnValue

CALLERS = {f"Bearer {token}": token for token in Path(os.environ["BENCH_TOKENS"]).read_text().split()}

app = Flask(__name__, static_folder=None)


@app.get("/v1.0/users/<user_id>/presence")
def presence(user_id: str) -> ResponseReturnValue:
    """Answer a small JSON object to a caller who is known."""
    if request.headers.get("Authorization") not in CALLERS:
        abort(401)
    return {"id": user_id, "availability": "Offline", "activity": "Offline"}
