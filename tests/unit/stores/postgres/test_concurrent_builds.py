"""On which servers no index is built or rebuilt CONCURRENTLY."""

import pytest

from housekeeping.stores.postgres.concurrent_builds import line_for, refused_by


@pytest.mark.parametrize("version", [140000, 140001, 140003])
def test_a_server_that_leaves_rows_out_is_refused_with_the_version_that_mends_it(
    version: int,
) -> None:
    told = refused_by(version)

    assert told is not None
    assert f"PostgreSQL 14.{version - 140000} can leave rows out" in told
    assert "update the server to 14.4 or newer" in told


@pytest.mark.parametrize("version", [130011, 140004, 140018, 150000, 180004])
def test_all_others_build_as_ever(version: int) -> None:
    assert refused_by(version) is None
    assert line_for(version, '"t" ("a")') == 'CREATE INDEX CONCURRENTLY ON "t" ("a")'


def test_the_line_to_paste_there_is_one_that_leaves_no_row_out_and_says_what_it_costs() -> None:
    line = line_for(140002, '"t" ("a")')

    assert line.startswith("/* Keeps writers waiting while it builds: PostgreSQL 14.2 ")
    assert line.endswith(' */ CREATE INDEX ON "t" ("a")')
