"""`make demo`: embedded servers, real data, a worker, beat and Flower, every operation once.

With `--exit` it ends by itself: exit 0 only if every operation succeeded.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import psycopg2
from rich.console import Console

from demo import milvaion, stack, tables
from embedded.postgresql import PostgresServer
from embedded.valkey import ValkeyServer

console = Console()


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="end by itself, without Ctrl-C")
    parser.add_argument("--occurrences", type=int, default=200_000, help="job occurrences to make")
    arguments = parser.parse_args()
    with PostgresServer() as postgres, ValkeyServer(append_only=True) as valkey:
        console.print(f"PostgreSQL and Valkey {valkey.url()} are up; filling the stores ...")
        database = postgres.create_database("milvaion")
        _fill(database, arguments.occurrences)
        with tempfile.TemporaryDirectory(prefix="housekeeping-demo-") as folder:
            Path(folder, "exports").mkdir()
            configuration = Path(folder, "housekeeping.toml")
            configuration.write_text(_configuration(database, valkey, folder))
            os.environ["HOUSEKEEPING_CONFIG"] = str(configuration)
            return _show(Path(folder), leave=arguments.exit)


def _fill(database: str, occurrences: int) -> None:
    begun = time.monotonic()
    with psycopg2.connect(database) as connection:
        counts = milvaion.fill(connection, occurrences) | tables.fill(connection, occurrences // 2)
    connection.close()
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    console.print(f"{told} in {time.monotonic() - begun:.0f} s")


def _configuration(database: str, valkey: ValkeyServer, folder: str) -> str:
    return f"""\
broker_url = "{valkey.url(0)}"
result_backend = "{valkey.url(1)}"
redis_url = "{valkey.url(2)}"
database_url = "{database}"
splay = 0

[milvaion.retention]
timed_out_keep_for = "90d"

[milvaion.archive]  # younger than retention would delete them
keep_for = "45d"
statuses = ["failed", "timed_out"]

[milvaion.archive_expiry]  # months over for so long are exported, then dropped
keep_for = "60d"
export_to = "file://{folder}/exports"
format = "parquet"

[tables.webhooks]
table = "webhook_deliveries"
age = "coalesce(finished_at, created_at)"
status_column = "state"
statuses = {{ delivered = "14d", failed = "60d" }}

[tables.audit]
table = "audit_entries"
age = "happened_at"
keep_for = "365d"
archive = {{}}

[tables.measurements]  # partitioned by month: those wholly expired are taken out whole
table = "measurements"
age = "taken_at"
keep_for = "60d"
partition_grace = "1d"
"""


def _show(folder: Path, *, leave: bool) -> int:
    with stack.processes(folder) as running:
        console.print("worker with two processes, beat and Flower are up")
        succeeded = stack.trigger_everything()
        console.print(f"Flower: {running.flower_url}/tasks")
        if not leave:
            console.print("Ctrl-C ends the demo.")
            running.wait_for_ctrl_c()
    console.print(
        "[green]every operation succeeded[/]" if succeeded else "[red]not all succeeded[/]"
    )
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
