"""A soft time limit or Ctrl-C interrupts a running statement at once, here and on the server.

libpq waits for the server in C, where Python can't run a signal's handler: a soft time limit of
2 s fired after the 9 s the statement took, and so did a revoke. psycopg2's own `wait_select`
interrupts in time, but leaves the statement running on the server, with its locks.
"""

import os
import select
import socket
import time
from contextlib import suppress

import psycopg2
from psycopg2 import extensions
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

__all__ = ["install", "reachable"]

# A signal that arrives in the instant before `poll` begins to wait does not wake it; this bounds
# how late its handler then runs.
_LONGEST_WAIT_MS = 500
# How long the server may take to accept a connection before we give it up as unreachable.
_REACHABLE_WITHIN_S = 2.0

_CONNECTED_WITHIN_S = 10.0  # as connect_timeout in connection.py
_ESTABLISHED = (extensions.STATUS_READY, extensions.STATUS_BEGIN, extensions.STATUS_PREPARED)

_EVENTS = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}


def install() -> None:
    """Make every psycopg2 statement of this process interruptible.

    An exception raised by a signal's handler during a statement then cancels the statement on the
    server, closes its connection and goes up at once, also through SQLAlchemy. COPY and large
    objects no longer work in this process: psycopg2 refuses them beside a wait callback.

    Costs nothing worth mentioning: 24 us a `SELECT 1` without, 26 us with.
    """
    extensions.set_wait_callback(_wait)
    if not event.contains(Engine, "handle_error", _give_up_closed_connection):
        event.listen(Engine, "handle_error", _give_up_closed_connection)


def _wait(connection: extensions.connection) -> None:
    """Do what libpq would: wait until the server has answered."""
    # Under a wait callback libpq does not keep its own connect_timeout: a server that accepts and
    # says nothing would be waited for without end.
    connecting = connection.status not in _ESTABLISHED
    deadline = time.monotonic() + _CONNECTED_WITHIN_S
    try:
        while (state := connection.poll()) != extensions.POLL_OK:
            if connecting and time.monotonic() > deadline:
                told = f"timeout expired: no answer within {_CONNECTED_WITHIN_S:.0f} s"
                raise psycopg2.OperationalError(told)
            answer = select.poll()
            answer.register(connection.fileno(), _EVENTS[state])
            answer.poll(_LONGEST_WAIT_MS)
    except psycopg2.Error:
        raise  # the server's word, or the connection's end: nothing is left to cancel
    except BaseException:
        with suppress(psycopg2.Error, OSError):  # not connected yet, or no longer
            if reachable(connection):
                connection.cancel()
        raise


def reachable(connection: extensions.connection) -> bool:
    """Whether the server still accepts connections.

    A cancel is sent over a connection of its own, to which libpq sets no time limit: with the
    network gone it would keep us from leaving for minutes. The server then ends the statement by
    itself (`client_connection_check_interval`).
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        if ours.family == socket.AF_UNIX:
            return True
        server = ours.getpeername()[:2]
    with suppress(OSError), socket.create_connection(server, _REACHABLE_WITHIN_S):
        return True
    return False


def _give_up_closed_connection(context: ExceptionContext) -> None:
    """Tell SQLAlchemy that the connection went with the statement.

    Else it would try to roll back on it, and the error of that would take the place of the
    exception that interrupted: a soft time limit would look like a lost database.
    """
    if context.connection is None or isinstance(context.original_exception, psycopg2.Error):
        return
    driver = context.connection.connection.driver_connection
    if isinstance(driver, extensions.connection) and driver.closed:
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
