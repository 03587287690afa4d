"""Which names a REINDEX CONCURRENTLY gives its copies."""

import pytest

from housekeeping.stores.postgres.upkeep.leftovers import is_copy_of

LONG = "a" * 63
WIDE = "ü" * 31


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("jobs_token", "jobs_token_ccnew"),
        ("jobs_token", "jobs_token_ccnew1"),
        ("jobs_token", "jobs_token_ccnew12"),
        (LONG, "a" * 57 + "_ccnew"),
        (LONG, "a" * 56 + "_ccnew1"),
        (WIDE, "ü" * 28 + "_ccnew"),
        ("odd\nname", "odd\nname_ccnew"),
    ],
)
def test_a_copy_is_known_by_its_name(base: str, name: str) -> None:
    assert is_copy_of(base, name, "ccnew")


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("jobs_token", "jobs_token"),
        ("jobs_token", "jobs_ccnew"),
        ("jobs_token", "jobs_token_2_ccnew"),
        ("jobs_token", "jobs_token_ccnew_mine"),
        ("jobs_token", "jobs_token_ccold"),
        (LONG, "a" * 40 + "_ccnew"),
    ],
)
def test_no_other_name_is_taken_for_one(base: str, name: str) -> None:
    assert not is_copy_of(base, name, "ccnew")
