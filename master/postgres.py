"""The lease as a row of PostgreSQL.

`until` is of the database's clock: no row is taken before it, so a waiting master whose own clock runs wild takes
nothing. It is the second condition; the stamp is the first (core/engine_lease.py). libpq is asked without blocking, as
nothing else has a time limit for all that may hang.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, Any

from .core.engine_lease import Question, Row
from .engine import EngineError

if TYPE_CHECKING:
    from psycopg import pq

_TABLE = b"""
CREATE TABLE IF NOT EXISTS rota_lease (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder text NOT NULL, epoch bigint NOT NULL, stamp bigint NOT NULL, until timestamptz NOT NULL);
INSERT INTO rota_lease (holder, epoch, stamp, until) VALUES ('', 0, 0, clock_timestamp()) ON CONFLICT DO NOTHING
"""
_READ = b"SELECT stamp, holder, epoch FROM rota_lease"
# A row that is not over for longer than a lease was written before the database's clock was set back.
_CHANGE = b"""
UPDATE rota_lease SET holder = $1, epoch = $2, stamp = stamp + 1, until = clock_timestamp() + $5::interval
WHERE stamp = $3
    AND (holder IN ('', $4) OR until <= clock_timestamp() OR until > clock_timestamp() + $5::interval)
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
        self._by = 0.0

    def read(self, patience_s: float) -> Row:
        return self._row(_READ, [], patience_s)[1]

    def change(self, question: Question) -> tuple[bool, Row]:
        lease = f"{question.lease_s:.6f} s"
        values = [question.holder, str(question.epoch), str(question.stamp), question.me, lease]
        changed, row = self._row(_CHANGE, [value.encode() for value in values], question.patience_s)
        return changed, row if changed else self.read(question.patience_s)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish()

    # ---- within ----------------------------------------------------------------------------------------------------

    def _row(self, sql: bytes, values: list[bytes], patience_s: float) -> tuple[bool, Row]:
        """Whether the statement gave a row, and that row."""
        self._by = monotonic() + patience_s
        try:
            found = self._ask(sql, values)
            if found is None:  # there is no table yet
                self._ask(_TABLE, None)
                found = self._ask(sql, values)
        except self._failures as error:
            host = self._hosts[0][0]
            self.close()
            self._hosts.append(self._hosts.pop(0))
            raise EngineError(f"PostgreSQL at {host}: {' '.join(str(error).split())}") from None
        if found is None or not found.ntuples:
            return False, Row(0, "", 0)
        stamp, holder, epoch = (found.get_value(0, column) or b"" for column in range(3))
        return True, Row(int(stamp), holder.decode(), int(epoch))

    def _ask(self, sql: bytes, values: list[bytes] | None) -> pq.abc.PGresult | None:
        """The last result; None: the table does not exist."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect()
        if values is None:
            connection.send_query(sql)
        else:
            connection.send_query_params(sql, values)
        while connection.flush():
            self._wait(connection, select.POLLIN | select.POLLOUT)
        result = None
        while True:
            while connection.is_busy():
                self._wait(connection, select.POLLIN)
                connection.consume_input()
            each = connection.get_result()
            if each is None:
                return result
            result = each
            if each.status not in (self._pq.ExecStatus.COMMAND_OK, self._pq.ExecStatus.TUPLES_OK):
                if each.error_field(_SQLSTATE) == _NO_TABLE:
                    self._drain(connection)
                    return None
                raise EngineError(each.error_message.decode(errors="replace"))

    def _drain(self, connection: pq.abc.PGconn) -> None:
        while connection.get_result() is not None:
            pass

    def _connect(self) -> pq.abc.PGconn:
        polling = self._pq.PollingStatus
        connection: pq.abc.PGconn = self._pq.PGconn.connect_start(self._hosts[0][1])
        status = polling.WRITING
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
            raise EngineError("timed out")
