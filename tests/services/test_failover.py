"""A primary that becomes a replica under a worker's open connections."""

from datetime import timedelta

import pytest
from sqlalchemy import URL, text

from app.db.engine import make_engine
from app.db.store import StoreUnavailable, make_store
from app.domain.values import SessionKey
from tests.builders import START, new_id


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_server_that_turned_read_only_is_left_after_one_refusal(database: URL) -> None:
    engine = make_engine(database, pool=2, timeout=timedelta(seconds=5))
    store = make_store(engine)
    nobody = SessionKey(new_id(), new_id(), new_id())
    with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):
            connection.execute(text("SET default_transaction_read_only = on"))
    with pytest.raises(StoreUnavailable):
        store.end_session(nobody, START, new_id())
    assert store.end_session(nobody, START, new_id()) is None
    with engine.connect():  # which takes one of the two
        assert store.end_session(nobody, START, new_id()) is None
    engine.dispose()
