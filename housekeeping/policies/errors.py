"""What can go wrong, told so that the reader knows what to do next.

The docstring of an error is its message: `raise UnindexedForeignKey(table=..., ...)` fills the
fields in. Facts are kept for logs; they never hold row data or a password.
"""

from inspect import cleandoc

EXIT_FAILED = 1
EXIT_USAGE = 64  # sysexits.h EX_USAGE
EXIT_CONFIGURATION = 65  # sysexits.h EX_DATAERR: the contract's code for a policy that can't run


class HousekeepingError(Exception):
    """Housekeeping failed."""

    exit_code = EXIT_FAILED

    # `message` is first so that pickle and Celery's JSON backend, which rebuild an exception from
    # its args, give back the same text.
    def __init__(self, message: str = "", **facts: object) -> None:
        self.facts = facts
        text = message or cleandoc(self.__doc__ or type(self).__name__).format(**facts)
        self.message = text
        super().__init__(text)


class ConfigurationRefused(HousekeepingError):
    """The configuration can't be used."""

    exit_code = EXIT_CONFIGURATION


class PolicyRefused(ConfigurationRefused):
    """A policy would do harm, or could not work, on the store it points at."""


class TableMissing(PolicyRefused):
    """{policy}: there is no table {table} in database {database}.{suggestion}

    Give its name as the catalog has it, and its schema where that is not on the search_path.
    """


class NotATable(PolicyRefused):
    """{policy}: {table} is {kind}, not an ordinary table.

    {remedy}
    """


class ColumnMissing(PolicyRefused):
    """{policy}: table {table} has no column {column}.{suggestion}"""


class ExpressionRefused(PolicyRefused):
    """{policy}: {setting} = {expression!r} is not one SQL expression over {table}: {reason}

    Give {instead}.
    """


class AgeTypeRefused(PolicyRefused):
    """{policy}: the age {expression!r} of {table} is of type {type}.

    Give a timestamp, a date, or an integer epoch (with age_unit = "s", "ms" or "us").
    """


class UnindexedForeignKey(PolicyRefused):
    """{policy}: deleting from {table} would scan all of {child} for every single row.

    {child} refers to {parent} by {constraint} ({columns}) and has no index that leads with those
    columns: 69 ms a row was measured against 0.07 ms. Build it first:
    {remedy}
    """


class PrivilegeMissing(PolicyRefused):
    """{policy}: {role} may not {privilege} on {table}. Have its owner run:
    {remedy}
    """


class RowSecurityActive(PolicyRefused):
    """{policy}: row-level security on {table} hides rows from {role}, so a run would pass over
    expired rows without a word. Have an administrator run: ALTER ROLE {role} BYPASSRLS
    """


class ReplicaIdentityMissing(PolicyRefused):
    """{policy}: publication {publication} publishes deletes of {table}, which has no replica
    identity: every DELETE would fail. Give it one: {remedy}
    """


class CutoffInFuture(PolicyRefused):
    """{policy}: the cutoff {cutoff} of {reason} is not in the past of the database ({now}).

    Everything would count as expired. Give a keep_for above zero.
    """


class LedgerRefused(PolicyRefused):
    """The ledger in database {database} can't be {wanted}: {role} lacks the privileges.

    Every deletion is recorded in schema "housekeeping" in the same transaction, so without it
    nothing runs. Have the database's owner run:
    {remedy}
    """


class LedgerOutdated(PolicyRefused):
    """The ledger in database {database} is of version {version} where {wanted} is needed, and {role} may
    not alter its tables. As their owner {owner}, with that role in database_url, run
    `housekeeping check --init`. If that made new tables, also:
    {grants}
    """


class ServerTooOld(PolicyRefused):
    """{database} runs PostgreSQL {version}; housekeeping needs 14 or newer.

    A dead worker's statement is ended by client_connection_check_interval, which came with 14.
    """


class StandbyRefused(PolicyRefused):
    """{policy}: {database} is a standby; maintenance runs on the server it follows.

    Give that one's address as database_url.
    """


class NewestUnserved(PolicyRefused):
    """{policy}: keep_newest would read a whole group of {table} for every expired row: no index
    leads with {columns} in that order. Build it first:
    {remedy}
    """


class HoldUnusable(PolicyRefused):
    """{policy}: {hold} ({reason}) can't be honoured: {fault}

    As long as it stands and can't be, nothing is removed from database {database}. {remedy}
    """


class HoldNotPlaced(PolicyRefused):
    """The hold on {table} is not placed: {fault}

    Nobody could honour it. Correct it and place it again; until then its rows may go.
    """


class HoldDelayed(HousekeepingError):
    """The hold is not placed: a window of a run on {database} is still under way after {seconds} s.

    Place it again in a moment; until it is placed, held rows may go.
    """


class RunHalted(HousekeepingError):
    """The run ended early, on purpose: {reason}"""


class AllowanceExceeded(RunHalted):
    """{table}: {found} rows would go; without a yes a run may take {limit} ({allowance}). {done}.
    If so many have expired indeed, run it once with --yes (confirmed=True for the task) or allow
    more; if not, look at age, age_unit and where.
    """


class StoreUnreachable(HousekeepingError):
    """{store} can't be reached: {reason}

    Check that it runs, and the setting {setting}.
    """


class NobodyWatches(StoreUnreachable):
    """Nothing goes on unwatched that others may have to wait for, and nobody can watch: {reason}"""


class LeaseLost(HousekeepingError):
    """The lease on {target} is no longer ours: {reason}.

    Nothing after the last committed window was changed. The next run goes on from there.
    """


class LeaseTaken(LeaseLost):
    """A newer run has taken {target} over.

    Nothing after our last committed window was changed; the newer run goes on from there.
    """


class ShardTaken(HousekeepingError):
    """Range {number} of {target} was taken over by another worker.

    Nothing after our last committed window in it was changed; the other worker goes on from there.
    """


class TableRewritten(HousekeepingError):
    """{table} was rewritten while a run walked it (VACUUM FULL, CLUSTER, a change of type).

    Its rows lie elsewhere now; run it again, from the beginning of the table.
    """


class TableBlocked(HousekeepingError):
    """{table} has been locked by another session for {seconds} s (CREATE INDEX, ALTER TABLE).

    Run it again when that has ended; committed windows stand.
    """


class RunInterrupted(HousekeepingError):
    """The run {run_id} was interrupted: {reason}

    Its committed windows are recorded; running it again under the same id goes on from there.
    """


class ArchiveKeptTooShort(PolicyRefused):
    """{policy}: dated tables would go {keep_for} days after their month has ended, while rows of that
    month are archived at {archived_after} days: they would be dropped as they come.

    Give a keep_for of more than {archived_after} days.
    """


class ExportPlaceRefused(PolicyRefused):
    """Exports can't be kept at {url}: {reason}

    Give a folder on a disk, or on an object store whose fsspec driver is installed.
    """


class ExportUnreachable(HousekeepingError):
    """{url} can't be used: {reason}"""


class ExportDamaged(HousekeepingError):
    """{url} is not what its manifest says: {difference}.

    If its table is still there, move both files away: it is exported again. If it was dropped,
    keep both, and look for whole ones in a backup, or among the object's older versions.
    """


class RestoreRefused(PolicyRefused):
    """{what} can't be put back: {reason}"""


class RunInHand(RunInterrupted):
    """Run {run_id} is in the hands of another worker, which is alive: {reason}"""


class NoSuchArchive(RestoreRefused):
    """{what} can't be put back: {reason}"""

    exit_code = EXIT_USAGE
