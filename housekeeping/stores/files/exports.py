"""An export: written under a passing name, checked by reading it back, known by its manifest.

An export never takes another's place. A name that is taken leads to the next one, `NAME.2`.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from housekeeping.policies.archives import ExportTo
from housekeeping.policies.errors import ExportDamaged, ExportUnreachable
from housekeeping.stores.files.formats import (
    require_installed,
    row_batches,
    row_writer,
    suffix_of,
)
from housekeeping.stores.files.manifest import ENDING, FileFacts, Manifest, stem_of
from housekeeping.stores.files.place import NameTaken, Place, split
from housekeeping.stores.files.row_text import Row, RowSum

Watch = Callable[[], None]
"""called now and then; raises to end what is under way"""

_MOST_NUMBERS = 1_000  # exports of one table's name at one place
_CHUNK = 4 << 20
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Found:
    """What is there already under a table's name."""

    manifest: Manifest | None
    """of an export made of this very table; whether its rows are the same is not known yet"""
    number: int
    """of that export, else the first without a manifest"""
    name: str
    """of that manifest's file, or of the one to be written"""


class Exports:
    """The exports at one place."""

    def __init__(self, to: ExportTo) -> None:
        """Open a place. Raises ExportPlaceRefused where nothing is kept, or a library is missing."""
        require_installed(to.format)
        self._to = to
        self.place = Place(to.url)

    @property
    def format(self) -> str:
        return self._to.format

    def found(self, relation: str, ledger: dict[str, Any], start: int = 1) -> Found:
        """Look for an export of a table, told from others of its name by what the ledger knows."""
        for number in range(start, _MOST_NUMBERS):
            stem = stem_of(relation, number)
            if not self.place.exists(stem + ENDING):
                return Found(None, number, stem + ENDING)
            manifest = self.manifest(stem + ENDING)
            ours = (manifest.file.format, manifest.file.compression)
            if manifest.ledger == ledger and ours == (self._to.format, self._to.compression):
                # Its process may have ended between giving it this name and taking the passing one.
                self.place.remove(_passing(stem + ENDING, manifest))
                return Found(manifest, number, stem + ENDING)
        raise ExportUnreachable(
            url=self.place.at(stem_of(relation)), reason=f"{_MOST_NUMBERS} exports have that name"
        )

    def manifest(self, name: str) -> Manifest:
        """Read a manifest. Raises ExportDamaged when it is none."""
        try:
            return Manifest.parse(self.place.read(name))
        except ValueError as error:
            raise ExportDamaged(url=self.place.at(name), difference=str(error)) from None

    def write(
        self, draft: Manifest, batches: Iterable[Sequence[Row]], number: int, watch: Watch
    ) -> Manifest:
        """Write rows to a file beside its future name; return the draft with what was written.

        `number` is where the search for a free name begins. The manifest is not written yet.
        """
        partial = _passing(stem_of(draft.relation, number) + self._suffix, draft)
        # What a process that still runs has open under this name must not become a part of ours.
        self.place.remove(partial)
        total = RowSum()
        try:
            with self.place.writing(partial) as sink:
                kinds = [column.kind for column in draft.columns]
                with row_writer(
                    self._to.format, self._to.compression, cast("Any", sink), draft.names, kinds
                ) as writer:
                    for batch in batches:
                        watch()
                        total.add(batch)
                        writer.write(batch)
                file = FileFacts(
                    name=partial,
                    format=self._to.format,
                    compression=self._to.compression,
                    bytes=sink.bytes,
                    sha256=sink.sha256,
                )
        except BaseException:
            self.place.remove(partial)
            raise
        return replace(draft, rows=total.rows, rows_sha256=total.sha256, file=file)

    def publish(self, written: Manifest, number: int, watch: Watch) -> tuple[Manifest, str]:
        """Give a written file its name, read it back, and write its manifest beside it.

        Returns the manifest and its own file's name. Raises ExportDamaged when what is read is not
        what was written.
        """
        partial = written.file.name
        for taken in range(number, _MOST_NUMBERS):
            stem = stem_of(written.relation, taken)
            name = stem + self._suffix
            if self.place.exists(stem + ENDING):
                continue
            manifest = replace(written, file=replace(written.file, name=name))
            if not self.place.exists(name):
                try:
                    self.place.move(partial, name)
                except NameTaken:
                    continue
            elif self._sha256(name, watch) == written.file.sha256:
                self.place.remove(partial)  # ours: its process ended before its manifest was there
            else:
                continue
            self.check(manifest, watch)
            self._write_manifest(stem + ENDING, manifest)
            return manifest, stem + ENDING
        self.place.remove(partial)
        raise ExportUnreachable(
            url=self.place.at(stem_of(written.relation)), reason="no name is left for it"
        )

    def check(self, manifest: Manifest, watch: Watch) -> None:
        """Read a file from end to end. Raises ExportDamaged unless it is what its manifest says."""
        url = self.place.at(manifest.file.name)
        if not self.place.exists(manifest.file.name):
            raise ExportDamaged(url=url, difference="the file is not there")
        if self._sha256(manifest.file.name, watch) != manifest.file.sha256:
            raise ExportDamaged(url=url, difference="its sha256 is another one")
        total = RowSum(manifest.ends, manifest.key_places)
        for batch in self.rows(manifest):
            watch()
            total.add(batch)
        if total.rows != manifest.rows:
            told = f"it holds {total.rows:,} rows instead of {manifest.rows:,}"
            raise ExportDamaged(url=url, difference=told)
        if total.sha256 != manifest.rows_sha256:
            raise ExportDamaged(url=url, difference="the checksum of its rows is another one")
        if total.missing:
            raise ExportDamaged(url=url, difference="its first or last row is missing")

    def rows(self, manifest: Manifest) -> Iterator[list[Row]]:
        """Yield the rows of an export, some at a time. Raises ExportDamaged when it can't be read."""
        file = manifest.file
        require_installed(file.format)
        try:
            with self.place.reading(file.name) as source:
                yield from row_batches(file.format, file.compression, source, manifest.names)
        except (ValueError, EOFError, OSError, zlib.error) as error:
            told = f"it can't be read: {error}"
            raise ExportDamaged(url=self.place.at(file.name), difference=told) from None

    @property
    def _suffix(self) -> str:
        return suffix_of(self._to.format, self._to.compression)

    def _sha256(self, name: str, watch: Watch) -> str:
        digest = hashlib.sha256()
        with self.place.reading(name) as source:
            while chunk := source.read(_CHUNK):
                watch()
                digest.update(chunk)
        return digest.hexdigest()

    def _write_manifest(self, name: str, manifest: Manifest) -> None:
        partial = _passing(name, manifest)
        # It may be another name of a manifest somebody has moved away since: not to be written over.
        self.place.remove(partial)
        with self.place.writing(partial) as file:
            file.write(manifest.as_text().encode(errors="backslashreplace"))
        self.place.move(partial, name)


def _passing(name: str, draft: Manifest) -> str:
    """Return the name a file is written under, before it gets its own."""
    return f"{name}.{_mark(draft)}{_PARTIAL}"


def _mark(draft: Manifest) -> str:
    """Return what tells a table from one of the same name in another database: both may be exported
    to one place at one time.
    """
    who = f"{draft.database} {draft.relation} {draft.ledger['made_by']}"
    return hashlib.sha256(who.encode()).hexdigest()[:8]


def exports_beside(manifest_url: str) -> tuple[Exports, str]:
    """Return the place a manifest's URL leads to, and the manifest's name there."""
    folder, name = split(manifest_url)
    return Exports(ExportTo(url=folder, format="csv")), name
