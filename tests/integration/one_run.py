"""One purge of `events` in a process of its own, to be killed: `DATABASE REDIS LOCK_TIMEOUT_SECONDS`."""

import sys
from dataclasses import replace
from datetime import timedelta

from housekeeping.engine.run import Surroundings
from housekeeping.stores.redis.connection import connect
from tests.integration.database import Database
from tests.integration.runs import BRISK, policy_on, run

LEASE = timedelta(seconds=1)


def main(url: str, redis_url: str, lock_timeout: str) -> None:
    """Run it to its end, if it comes to that."""
    patience = timedelta(seconds=float(lock_timeout))
    pace = replace(BRISK, lease_ttl=LEASE, lock_timeout=patience)
    run(policy_on(Database(url, 0), pace=pace), Surroundings(connect(redis_url)))


if __name__ == "__main__":
    main(*sys.argv[1:])
