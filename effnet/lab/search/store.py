"""The store of a search: which trainings are taken, by whom, and what came of those that are done.

One table in SQLite, or in PostgreSQL where several machines take part. A training is taken by inserting its row, which
only one process can do; whoever takes it keeps its row's beat going. A row whose process is dead, or whose beat has
stood still, may be taken over.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table

HEARTBEAT_SECONDS = 5.0  # seconds between two beats of who trains
STALE_SECONDS = 60.0  # seconds without one after which a training is given to another
SQLITE_TIMEOUT_SECONDS = 60  # seconds that SQLite waits for another process's write

TrainingResult = dict[str, Any]


def hide_password(store: str | Path) -> str:
    """``store`` as it is named to people: an address without its password."""
    if "://" not in str(store):
        return str(store)
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(str(store)).render_as_string(hide_password=True)
    except ArgumentError:
        return "an address that cannot be read"  # it may hold one


class SearchStore:
    """The results of the search ``about`` in ``store``: a file, or an address that SQLAlchemy takes.

    Raises ``ValueError`` where the store holds another search, or is none.
    """

    def __init__(self, store: str | Path, identity: dict[str, Any]) -> None:
        try:
            import sqlalchemy
        except ImportError:
            raise ImportError('a search keeps its results with SQLAlchemy: pip install "effnet[search]"') from None
        self._sql = sqlalchemy
        self.store = str(store)
        meta = sqlalchemy.MetaData()
        text = sqlalchemy.Text
        self._search = sqlalchemy.Table(
            "effnet_search",
            meta,
            sqlalchemy.Column("only", sqlalchemy.Integer, primary_key=True, autoincrement=False),
            sqlalchemy.Column("about", text, nullable=False),
        )
        self._jobs = sqlalchemy.Table(
            "effnet_training",
            meta,
            sqlalchemy.Column("job", sqlalchemy.String(64), primary_key=True),
            sqlalchemy.Column("holder", sqlalchemy.String(255), nullable=False),
            sqlalchemy.Column("beat", sqlalchemy.Integer, nullable=False),
            sqlalchemy.Column("result", text),
        )
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._last_heartbeats: dict[
            str, tuple[str, int, float]
        ] = {}  # holder and beat of a training, and since when so
        self._engine = self._connect()
        try:
            meta.create_all(self._engine)
        except sqlalchemy.exc.DatabaseError:
            time.sleep(1)  # another process may have made the tables at the same moment
            try:
                meta.create_all(self._engine)
            except sqlalchemy.exc.DatabaseError as error:
                reason = str(error.orig).strip().splitlines()[-1]
                raise ValueError(f"{self.store} is no store of a search ({reason}): give another --store") from None
        self._check_identity(identity)

    def _connect(self) -> Engine:
        if "://" in self.store:
            try:
                engine = self._sql.create_engine(self.store)
                self.store = hide_password(self.store)
                return engine
            except self._sql.exc.ArgumentError as error:
                raise ValueError(f"{self.store} cannot be opened as a store: {error}") from None
            except ImportError as error:
                driver = "psycopg[binary]" if error.name == "psycopg" else error.name
                raise ValueError(f'this store needs a driver: pip install "{driver}"') from None
        path = Path(self.store)
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._sql.create_engine(f"sqlite:///{path}", connect_args={"timeout": SQLITE_TIMEOUT_SECONDS})

    def _check_identity(self, about: dict[str, Any]) -> None:
        """Writes down which search this is, or compares it with what is written there."""
        wanted = json.dumps(about, sort_keys=True)
        if self._insert(self._search, only=1, about=wanted):
            return
        with self._engine.connect() as at:
            there = json.loads(at.execute(self._sql.select(self._search.c.about)).scalar_one())
        mine = json.loads(wanted)
        others = sorted(name for name in there.keys() | mine.keys() if there.get(name) != mine.get(name))
        if others:
            raise ValueError(
                f"{self.store} holds another search: {', '.join(others)} {'differ' if len(others) > 1 else 'differs'}; "
                "give another --store, or the same options to go on with that one"
            )

    def _insert(self, table: Table, **values: object) -> bool:
        """Whether the row is now there by this process, and not by another."""
        try:
            with self._engine.begin() as at:
                at.execute(table.insert().values(**values))
        except self._sql.exc.IntegrityError:
            return False
        return True

    def results(self) -> dict[str, TrainingResult]:
        """What came of each training that is done, by its key."""
        jobs = self._jobs
        with self._engine.connect() as at:
            done = at.execute(self._sql.select(jobs.c.job, jobs.c.result).where(jobs.c.result.is_not(None)))
            return {job: json.loads(result) for job, result in done}

    def claim(self, jobs: Iterable[str]) -> str | None:
        """The first of ``jobs`` that nobody does or has done; from now on it is this process's. None: all are taken."""
        rows = self._jobs
        for job in jobs:
            if self._insert(rows, job=job, holder=self._owner, beat=0):
                return job
            with self._engine.begin() as at:
                columns = self._sql.select(rows.c.holder, rows.c.beat, rows.c.result)
                row = at.execute(columns.where(rows.c.job == job)).one_or_none()
                if row is None or row.result is not None or not self._is_abandoned(job, row.holder, row.beat):
                    continue
                as_seen = (rows.c.job == job) & (rows.c.holder == row.holder) & (rows.c.beat == row.beat)
                if at.execute(rows.update().where(as_seen).values(holder=self._owner, beat=0)).rowcount:
                    return job
        return None

    def _is_abandoned(self, job: str, holder: str, beat: int) -> bool:
        host, pid, _ = holder.rsplit(":", 2)
        if host == socket.gethostname() and not _is_alive(int(pid)):
            return True
        now = time.monotonic()  # by this process's own clock: those of two machines differ
        if self._last_heartbeats.get(job, ("", 0, 0.0))[:2] != (holder, beat):
            self._last_heartbeats[job] = (holder, beat, now)
        return now - self._last_heartbeats[job][2] > STALE_SECONDS

    @contextmanager
    def heartbeat(self, job: str) -> Iterator[None]:
        """Keeps the beat of ``job`` going in this block."""
        over, rows = Event(), self._jobs
        mine = (rows.c.job == job) & (rows.c.holder == self._owner)

        def beat() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                with self._engine.begin() as at:
                    at.execute(rows.update().where(mine).values(beat=rows.c.beat + 1))

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def finish(self, job: str, result: TrainingResult) -> None:
        """Writes what came of ``job``, unless another process has taken it over."""
        rows = self._jobs
        mine = (rows.c.job == job) & (rows.c.holder == self._owner)
        with self._engine.begin() as at:
            at.execute(rows.update().where(mine).values(result=json.dumps(result)))

    def release(self, job: str) -> None:
        """``job`` is not done after all: anyone may take it."""
        rows = self._jobs
        with self._engine.begin() as at:
            at.execute(rows.delete().where((rows.c.job == job) & (rows.c.holder == self._owner)))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
