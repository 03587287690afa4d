"""A streaming standby of one of our servers: same data, read-only, a moment behind.

with PostgresServer() as primary, StandbyServer(primary, "reports") as standby:
    standby.pause_replay()
"""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import psycopg2

from embedded.postgresql import PostgresServer


class StandbyServer(PostgresServer):
    """A hot standby, made with pg_basebackup when it starts. End it before its primary."""

    def __init__(
        self,
        primary: PostgresServer,
        name: str,
        *,
        slot: str | None = None,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        """Prepare a standby of `primary`, which has to run when it is started.

        `name`: its application_name in the primary's pg_stat_replication. `slot`: a replication slot
        to be made for it. `settings` go to postgresql.conf, over those of the primary.
        """
        super().__init__(primary.installation, {"hot_standby": "on", **(settings or {})})
        self.name = name
        self._primary = primary
        self._slot = slot

    def pause_replay(self) -> None:
        """Keep receiving WAL, and stand still."""
        self._ask("SELECT pg_wal_replay_pause()")

    def resume_replay(self) -> None:
        """Catch up with what was received meanwhile."""
        self._ask("SELECT pg_wal_replay_resume()")

    def _filling(self, data: Path) -> list[str | Path]:
        # libpq's own quoting: a name may hold blanks.
        name = self.name.replace("\\", "\\\\").replace("'", "\\'")
        source = f"host=127.0.0.1 port={self._primary.port} user=postgres application_name='{name}'"
        command: list[str | Path] = [self._binaries / "pg_basebackup", "--pgdata", data]
        command += ["--dbname", source, "--write-recovery-conf", "--no-sync", "--checkpoint=fast"]
        if self._slot is not None:
            command += ["--create-slot", f"--slot={self._slot}"]
        return command

    def _ask(self, query: str) -> None:
        with closing(psycopg2.connect(self.url())) as session:
            session.autocommit = True
            with session.cursor() as cursor:
                cursor.execute(query)
