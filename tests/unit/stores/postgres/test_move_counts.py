"""What a moving statement tells, slice by slice, is summed up by what went and where it went."""

from housekeeping.stores.postgres.deletion import CHILD_PREFIX
from housekeeping.stores.postgres.move_counts import read


def test_nothing_told_is_nothing_moved() -> None:
    counts = read([])

    assert (counts.gone.total(), counts.sent.total(), counts.missed) == (0, 0, 0)


def test_slices_of_a_window_are_summed_by_label_and_by_period() -> None:
    counts = read([("0", [5, 0], 5), ("1", [1, 2], 3), ("0", [0, 4], 4)])

    assert counts.gone == {"0": 9, "1": 3}
    assert counts.sent == {(0, 0): 6, (0, 1): 6}
    assert counts.missed == 0


def test_rows_of_no_period_are_missed_whoever_they_belong_to() -> None:
    assert read([("0", [], 3)]).missed == 3
    assert read([("0", [3, 1], 5), (f"{CHILD_PREFIX}0", [2], 2)]).missed == 1
    assert read([("0", [3], 3), (f"{CHILD_PREFIX}0", [2], 4)]).missed == 2


def test_childrens_rows_are_a_part_of_their_own() -> None:
    counts = read([("0", [3], 3), (f"{CHILD_PREFIX}1", [7], 7)])

    assert counts.gone == {"0": 3, f"{CHILD_PREFIX}1": 7}
    assert counts.sent == {(0, 0): 3, (2, 0): 7}


def test_arrivals_are_apart_from_what_was_sent() -> None:
    counts = read([("0", [3, 1], 4), ("arrived:0:0", [], 3), ("arrived:0:1", [], 0)])

    assert counts.gone == {"0": 4}
    assert counts.arrived == {(0, 0): 3, (0, 1): 0}
    assert counts.missed == 0
