"""A hypertable: TimescaleDB drops its chunks once all their rows have expired, one at a time.

Those that differ in another dimension only go together: drop_chunks is asked by time.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any

from sqlalchemy import Connection

from housekeeping.operations.partitions.steps import DROPPED, NotDone, Steps
from housekeeping.policies.errors import PolicyRefused
from housekeeping.policies.result import StopReason
from housekeeping.stores.postgres.detaching import dropping
from housekeeping.stores.postgres.estimates import estimated_rows
from housekeeping.stores.postgres.preflight import Target
from housekeeping.stores.postgres.timescale import (
    Chunk,
    Hypertable,
    drop_chunks_between,
    expired_chunks,
)

_BOUNDARY = "a hypertable gives up whole chunks only: rows stay until all of their chunk expired"


@dataclass(frozen=True)
class ChunkPlan:
    """What a run on a hypertable will do."""

    chunks: tuple[Chunk, ...]
    """oldest first"""
    table_rows: int
    well_known = False
    in_parts = True

    @property
    def estimate(self) -> int:
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def told(self) -> str:
        return f"chunks: {len(self.chunks)} go whole, by TimescaleDB's drop_chunks"

    def as_dict(self) -> dict[str, Any]:
        return {
            "walks": ["chunks"],
            "whole_partitions": [
                {"table": each.label, "bounds": each.bounds, "rows": each.rows, "bytes": each.bytes}
                for each in self.chunks
            ],
            "by_rows": [],
            "indexes": [],
            "estimated_rows": self.estimate,
            "table_rows": self.table_rows,
            "because": self.told,
        }


@dataclass(frozen=True)
class LookedAtChunks:
    """A hypertable as it is now."""

    plan: ChunkPlan
    leaves: tuple[Target, ...] = ()
    warnings: tuple[str, ...] = (_BOUNDARY,)

    @property
    def whole(self) -> tuple[Chunk, ...]:
        return self.plan.chunks


def look_at_chunks(
    connection: Connection, target: Target, cutoffs: Mapping[str, datetime], *, limited: bool
) -> LookedAtChunks:
    """Plan; in a reading transaction.

    Raises PolicyRefused where not every row of an old chunk may go: rows of one are not ours to take.
    """
    assert target.chunks is not None
    if (obstacle := _obstacle(target, target.chunks, limited=limited)) is not None:
        raise PolicyRefused(
            f"{target.policy.name}: {target.facts.label} is a hypertable, whose chunks go whole or not "
            f"at all, and {obstacle}. Delete such rows by statements of your own"
        )
    cutoff = target.age_type.at(cutoffs[target.rules[0].reason])
    chunks = expired_chunks(connection, target.chunks, cutoff)
    return LookedAtChunks(
        ChunkPlan(tuple(chunks), estimated_rows(connection, target.facts.identifier))
    )


def _obstacle(target: Target, table: Hypertable, *, limited: bool) -> str | None:
    checks = (
        (target.policy.archive is not None, "an archive takes rows one by one"),
        (not target.policy.takes_every_old_row, "not every old row goes by this policy"),
        (bool(target.holding), "a hold keeps rows of it"),
        (
            target.age.columns != (table.column,),
            f"they range over {table.column}, not over the age",
        ),
        (not table.understood, f"cutoffs of type {table.type} are not compared with their ends"),
        (bool(target.facts.foreign_keys), "a foreign key refers to it"),
        (bool(target.facts.delete_triggers), "a trigger has to see every row go"),
        (not table.owned, f"{target.facts.role} does not own it"),
        (limited, "a limit counts rows"),
        (target.policy.partitions.then == "keep", "dropped chunks can't be kept"),
    )
    return next((obstacle for holds, obstacle in checks if holds), None)


@dataclass(frozen=True)
class ChunkPurge:
    """One run on a hypertable."""

    steps: Steps
    table: Hypertable

    def run(self, chunks: tuple[Chunk, ...]) -> StopReason:
        """Drop chunks, oldest first; where somebody uses one, it goes another time."""
        for _, same in groupby(chunks, key=lambda chunk: (chunk.start, chunk.end)):
            together = tuple(same)
            if (reason := self.steps.ready()) is not None:
                return reason
            drop = partial(self._drop, together)
            self.steps.attempt(
                _label(together), _rows(together), partial(self.steps.patiently, drop)
            )
            if self.steps.leaving is not None:
                return self.steps.leaving
        return StopReason.EXHAUSTED

    def _drop(self, together: tuple[Chunk, ...]) -> None:
        """Drop the chunks of one stretch of time. Raises NotDone where others would go, or not all."""
        steps, begun, rows, first = self.steps, time.perf_counter(), _rows(together), together[0]
        counts = Counter({DROPPED: len(together), steps.policy.rules[0].reason: rows})
        with dropping(steps.connection, steps.policy.pace):
            steps.fence()
            dropped = drop_chunks_between(steps.connection, self.table, first.start, first.end)
            if dropped != (wanted := {chunk.quoted for chunk in together}):
                # Rolls back. A chunk the run has passed over, or never looked at, is not ours to take.
                raise NotDone(_amiss(wanted, dropped))
            steps.record(_label(together), first.bounds, counts, rows)
        steps.count(counts, rows, time.perf_counter() - begun)


def _label(together: tuple[Chunk, ...]) -> str:
    more = len(together) - 1
    return together[0].label + (f" and {more} more of its time" if more else "")


def _rows(together: tuple[Chunk, ...]) -> int:
    return sum(chunk.rows for chunk in together)


def _amiss(wanted: set[str], dropped: set[str]) -> str:
    if others := dropped - wanted:
        return f"drop_chunks would take {', '.join(sorted(others))} along"
    stay = ", ".join(sorted(wanted - dropped))
    return f"drop_chunks leaves {stay}: frozen, or dropped by somebody else meanwhile"
