"""Addresses of exports: what is kept there, and that nobody sees their secrets."""

import logging
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from fsspec.implementations.memory import MemoryFileSystem

from housekeeping.policies.archives import ArchiveExpiryPolicy, ExportTo, RestorePolicy, month_end
from housekeeping.policies.errors import ExportPlaceRefused, ExportUnreachable
from housekeeping.stores.files.manifest import Manifest, stem_of
from housekeeping.stores.files.place import Place, shown, split

SECRETS = ("sEcr3t", "kEy", "t0ken", "sla/sh")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://kEy:sEcr3t@bucket/archives", "s3://bucket/archives"),
        ("s3://kEy:sla/sh+sEcr3t@bucket/archives", "s3://bucket/archives"),
        ("sftp://me:sEcr3t@host:22/a?token=t0ken", "sftp://host:22/a"),
        ("https://host/a?sig=t0ken", "https://host/a"),
        ("/var/backups", "/var/backups"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, told: str) -> None:
    assert shown(url) == told
    for text in (
        repr(ExportTo(url=url)),
        repr(RestorePolicy(operation="", name="", database_url="", manifest_url=url)),
    ):
        assert not any(secret in text for secret in SECRETS)


class Leaky(MemoryFileSystem):  # type: ignore[misc] # fsspec has no types
    """A store whose errors tell everything."""

    protocol = "leaky"
    cachable = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError("https://kEy:sEcr3t@bucket denies sEcr3t, t0ken and sla/sh")


@pytest.fixture
def leaky() -> None:
    fsspec.register_implementation("leaky", Leaky, clobber=True)


@pytest.mark.usefixtures("leaky")
def test_an_error_of_a_store_is_told_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    place = Place("leaky://kEy:sEcr3t@bucket/a?token=t0ken&more=sla/sh")
    with caplog.at_level(logging.DEBUG), pytest.raises(ExportUnreachable) as refused:
        place.require()
    error = refused.value
    assert error.__cause__ is None
    assert error.__suppress_context__
    for text in (error.message, str(error), repr(error), str(pickle.loads(pickle.dumps(error))),
                 repr(place), caplog.text):  # fmt: skip
        assert not any(secret in text for secret in ("sEcr3t", "t0ken", "sla/sh")), text
    assert "PermissionError" in error.message


def test_a_driver_that_is_not_installed_is_told() -> None:
    with pytest.raises(ExportPlaceRefused, match="s3fs"):
        Place("s3://bucket/a")
    with pytest.raises(ExportPlaceRefused, match="nosuch"):
        Place("nosuch://bucket/a")


def test_celerys_time_limit_passes_through_unchanged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = Place(str(tmp_path))

    def late(*_: Any, **__: Any) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(place._fs, "exists", late)
    with pytest.raises(SoftTimeLimitExceeded):
        place.exists("x")


def test_a_move_takes_nobodys_place(tmp_path: Path) -> None:
    place = Place(f"file://{tmp_path}")
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    with pytest.raises(ExportUnreachable, match="there already"):
        place.move("new", "old")
    assert (tmp_path / "old").read_text() == "old"


@pytest.mark.parametrize(
    ("relation", "stem"),
    [
        ("public.JobOccurrences_Archive_2024_01", "public.JobOccurrences_Archive_2024_01"),
        ("public.a/b\\c*?:", "public.a%2Fb%5Cc%2A%3F%3A"),
        ("../etc", "..%2Fetc"),
        ("s.größe 1", "s.größe 1"),
    ],
)
def test_any_tables_name_makes_a_files_name(relation: str, stem: str) -> None:
    assert stem_of(relation) == stem
    assert stem_of(relation, 2) == f"{stem}.2"


def test_a_files_address_has_a_folder_and_a_name() -> None:
    assert split("s3://b/a/x.manifest.json") == ("s3://b/a", "x.manifest.json")
    assert split("x.manifest.json") == (".", "x.manifest.json")
    assert split("/x.manifest.json") == ("/", "x.manifest.json")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format_version": 2}', "\xff", '{"format_version": 1}']
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Manifest.parse(text)


def test_policies_refuse_what_would_drop_everything() -> None:
    with pytest.raises(ValueError, match="above zero"):
        ArchiveExpiryPolicy(operation="", name="", database_url="", keep_for=timedelta(0))
    with pytest.raises(ValueError, match="csv is compressed with one of gzip, none"):
        ExportTo(url="/x", format="csv", compression="zstd")
    assert ExportTo(url="/x").compression == "zstd"


@pytest.mark.parametrize(
    "period", ["undated", "2024_13", "2024_00", "0000_01", "2024_1", "x2024_01", ""]
)
def test_only_a_month_ends(period: str) -> None:
    assert month_end(period) is None


def test_a_month_ends_when_the_next_begins() -> None:
    ends = [month_end(period) for period in ("2024_01", "2024_12")]
    assert [f"{end:%Y-%m-%d %H:%M %Z}" for end in ends if end] == [
        "2024-02-01 00:00 UTC",
        "2025-01-01 00:00 UTC",
    ]
