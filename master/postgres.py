"""The lease as a row of PostgreSQL.

`until` is of the database's clock: no row is taken before it, so a waiting master whose own clock runs wild takes
nothing. It is the second condition; the stamp is the first (core/engine_lease.py). libpq is asked without blocking, as
nothing else has a time limit for all that may hang.
"""

from __future__ import annotations

import select
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..common.fields import BadMessage, checked
from .core.engine_lease import Question, Row
from .store import EngineError, late

if TYPE_CHECKING:
    from psycopg import pq

_TABLE = b"""
CREATE TABLE IF NOT EXISTS rota_lease (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder text NOT NULL, epoch bigint NOT NULL, stamp bigint NOT NULL, until timestamptz NOT NULL);
INSERT INTO rota_lease (holder, epoch, stamp, until) VALUES ('', 0, 0, clock_timestamp()) ON CONFLICT DO NOTHING
"""
_READ = b"SELECT stamp, holder, epoch FROM rota_lease"
# Otherwise what waits for a lock waits on when we have gone, and each try takes one more of the server's connections.
_LIMIT = b"SET LOCAL statement_timeout = %d; "
_LIMIT_SHARE = 0.8  # of the time for an answer: so the server can still say what it waited for
# A row that is not over for longer than a lease was written before the database's clock was set back.
_CHANGE = b"""
UPDATE rota_lease SET holder = %(holder)b, epoch = %(epoch)b, stamp = stamp + 1,
    until = clock_timestamp() + %(lease)b::interval
WHERE stamp = %(stamp)b
    AND (holder IN ('', %(me)b) OR until <= clock_timestamp() OR until > clock_timestamp() + %(lease)b::interval)
RETURNING stamp, holder, epoch
"""
_NO_TABLE = b"42P01"
_SQLSTATE = 67  # PG_DIAG_SQLSTATE


class Postgres:
    """An address as libpq takes it. With several hosts, after an error the next one is asked."""

    def __init__(self, address: str) -> None:
        """Raises EngineError when psycopg is missing, or the address is none."""
        try:
            from psycopg import Error, pq
            from psycopg.conninfo import conninfo_to_dict, make_conninfo
        except ImportError:
            text = "a lease in PostgreSQL needs psycopg: pip install 'rota[postgres]'"
            raise EngineError(text) from None
        self._pq: Any = pq
        self._failures = (EngineError, Error, OSError)
        try:
            said = conninfo_to_dict(address)
        except Exception as error:
            raise EngineError(f"the address of PostgreSQL: {str(error).strip()}") from None
        hosts = str(said.pop("host", "localhost")).split(",")
        ports = str(said.pop("port", "5432")).split(",")
        if len(ports) not in (1, len(hosts)):  # as libpq has it
            raise EngineError(f"the address of PostgreSQL: {len(ports)} ports for {len(hosts)} hosts")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        said.setdefault("application_name", "rota")
        self._hosts = [
            (host, make_conninfo("", **{**said, "host": host, "port": port}).encode())
            for host, port in zip(hosts, ports, strict=True)
        ]
        self._connection: pq.abc.PGconn | None = None
        self._patience_s = 0.0
        self._by = 0.0

    def read(self, patience_s: float) -> Row:
        self._wait_for(patience_s)
        row = self._row(_READ)
        if row is None:  # nobody was here before, or somebody has deleted it
            self._row(_TABLE)
            row = self._row(_READ)
        return row or Row(0, "", 0)

    def change(self, question: Question) -> tuple[bool, Row]:
        lease = f"{question.lease_s:.6f} s"
        values = {**question._asdict(), "holder": question.holder, "lease": lease}
        self._wait_for(question.patience_s)
        row = self._row(_CHANGE, values)
        return row is not None, row or self.read(question.patience_s)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish()

    # ---- within ----------------------------------------------------------------------------------------------------

    def _wait_for(self, patience_s: float) -> None:
        self._patience_s, self._by = patience_s, monotonic() + patience_s

    def _row(self, sql: bytes, values: Mapping[str, object] | None = None) -> Row | None:
        """The row that the statement gives; None: it gives none, or there is no table."""
        try:
            found = self._ask(sql, values or {})
            if found is None or not found.ntuples:
                return None
            stamp, holder, epoch = (found.get_value(0, column) or b"" for column in range(3))
            row: Row = checked(Row, {"stamp": int(stamp), "holder": holder.decode(), "epoch": int(epoch)})
            return row
        except BadMessage as error:
            raise EngineError(f"rota_lease{error}: the row is not ours, delete it") from None
        except self._failures as error:
            host = self._hosts[0][0]
            self.close()
            self._hosts.append(self._hosts.pop(0))
            raise EngineError(f"PostgreSQL at {host}: {' '.join(str(error).split())}") from None

    def _ask(self, sql: bytes, values: Mapping[str, object]) -> pq.abc.PGresult | None:
        """The last result; None: the table does not exist."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect()
        literal = self._pq.Escaping(connection).escape_literal
        literals = {name.encode(): literal(str(value).encode()) for name, value in values.items()}
        left_ms = max(1, int((self._by - monotonic()) * 1000 * _LIMIT_SHARE))
        connection.send_query(_LIMIT % left_ms + (sql % literals if literals else sql))
        while connection.flush():
            self._wait(connection, select.POLLIN | select.POLLOUT)
        result, missing = None, False
        while True:
            while connection.is_busy():
                self._wait(connection, select.POLLIN)
                connection.consume_input()
            each = connection.get_result()
            if each is None:
                return None if missing else result
            result = each
            if each.status not in (self._pq.ExecStatus.COMMAND_OK, self._pq.ExecStatus.TUPLES_OK):
                missing = each.error_field(_SQLSTATE) == _NO_TABLE
                if not missing:
                    raise EngineError(each.error_message.decode(errors="replace"))

    def _connect(self) -> pq.abc.PGconn:
        polling = self._pq.PollingStatus
        connection: pq.abc.PGconn = self._pq.PGconn.connect_start(self._hosts[0][1])
        failed = connection.status == self._pq.ConnStatus.BAD  # the host has no address
        status = polling.FAILED if failed else polling.WRITING
        while status in (polling.READING, polling.WRITING):
            self._wait(connection, select.POLLIN if status == polling.READING else select.POLLOUT)
            status = connection.connect_poll()
        if status != polling.OK:
            text = connection.error_message.decode(errors="replace")
            connection.finish()
            raise EngineError(text)
        connection.nonblocking = 1
        return connection

    def _wait(self, connection: pq.abc.PGconn, events: int) -> None:
        left = self._by - monotonic()
        poll = select.poll()
        poll.register(connection.socket, events)
        if left <= 0 or not poll.poll(left * 1000):
            what = "connection" if connection is not self._connection else "answer"
            raise EngineError(late(what, self._patience_s))
