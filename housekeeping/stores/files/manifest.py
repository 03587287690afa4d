"""What an export says of itself: `NAME.manifest.json`, written once its file is known to be good."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import quote

FORMAT_VERSION = 1
ENDING = ".manifest.json"
_UNSAFE = re.compile(r"[^\w .-]")  # some store or shell reads it as something else than a name


@dataclass(frozen=True)
class ColumnFacts:
    """A column of an exported table."""

    name: str
    type: str
    """as format_type writes it"""
    kind: str
    """pg_type.typname: which values are written as the format's own"""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """The file beside a manifest."""

    name: str
    format: str
    compression: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PartitionFacts:
    """What an exported partition was, and of which table."""

    schema: str
    name: str
    parent_schema: str
    parent_name: str
    bounds: str
    """as CREATE TABLE ... PARTITION OF takes them: FOR VALUES ..."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """An exported table: whose rows, which, and how to tell that all of them are there."""

    relation: str
    """label of the dated table or the partition, `schema.name`"""
    source: str
    """label of the table its rows came from; a partition's is the table it was detached from"""
    part_of: str | None
    """label of the dated table its rows belong to, for rows of a child table"""
    period: str
    """month of a dated table; empty for a partition"""
    database: str
    columns: tuple[ColumnFacts, ...]
    key_columns: tuple[str, ...]
    rows: int
    rows_sha256: str
    """see row_text.py"""
    min_key: tuple[str | None, ...] | None
    """of the first row by key, as text; null without rows or without a key"""
    max_key: tuple[str | None, ...] | None
    ledger: Mapping[str, Any]
    """what the ledger knew: policy, made_by, made_at, last_row_at; of a partition its row's id"""
    children: tuple[str, ...]
    """manifests of its child tables' rows, beside this one"""
    file: FileFacts
    exported_at: str
    exported_by_run: str
    partition: PartitionFacts | None = None
    """left out of the file for a dated table"""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def key_places(self) -> tuple[int, ...]:
        return tuple(self.names.index(column) for column in self.key_columns)

    @property
    def ends(self) -> tuple[tuple[str | None, ...], ...]:
        """Return the first and the last key, where there are any."""
        return tuple(key for key in (self.min_key, self.max_key) if key is not None)

    @property
    def mark(self) -> str:
        """Return what tells an export from others, for the ledger's windows.

        A dated table's rows name the run that archived them. A partition's do not: put back, it may be
        detached and exported again with the very same rows, which is another export.
        """
        if self.partition is None:
            return self.rows_sha256[:16]
        known = f"{self.rows_sha256} {json.dumps(dict(self.ledger), sort_keys=True)}"
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    def same_rows_as(self, other: "Manifest") -> bool:
        """Say whether two exports hold the same rows of the same table."""
        passing = {"file", "exported_at", "exported_by_run", "children"}
        lasting = [field.name for field in fields(self) if field.name not in passing]
        return all(getattr(self, name) == getattr(other, name) for name in lasting)

    def as_text(self) -> str:
        shape = {"format_version": FORMAT_VERSION, **asdict(self)}
        if self.partition is None:  # so that a reader that knows no partitions reads this one
            del shape["partition"]
        return json.dumps(shape, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str | bytes) -> "Manifest":
        """Read a manifest. Raises ValueError for what is none, or one of another version."""
        try:
            shape = json.loads(text)
            version = shape.pop("format_version")
            if version != FORMAT_VERSION:
                raise ValueError(f"its format_version is {version!r}; this reads {FORMAT_VERSION}")
            shape["columns"] = tuple(ColumnFacts(**column) for column in shape["columns"])
            shape["file"] = FileFacts(**shape["file"])
            if shape.get("partition") is not None:
                shape["partition"] = PartitionFacts(**shape["partition"])
            for name in ("key_columns", "children"):
                shape[name] = tuple(shape[name])
            for name in ("min_key", "max_key"):
                shape[name] = None if shape[name] is None else tuple(shape[name])
            return cls(**shape)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no manifest of an export: {error}") from error


def stem_of(relation: str, number: int = 1) -> str:
    """Return the name an export's files begin with; any table's name makes one that any store takes.

    `number`: from 2 on for another export of a table of that name.
    """
    name = _UNSAFE.sub(lambda found: quote(found[0], safe=""), relation)
    return name if number == 1 else f"{name}.{number}"
