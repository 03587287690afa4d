"""How the command answers a word it does not know."""

from tasks.command_line.group import meant


def test_a_word_is_answered_with_what_is_near_with_all_there_is_or_that_there_is_none() -> None:
    assert meant("evnts", ["events", "orders"]) == " Did you mean 'events'?"
    assert meant("x", ["events", "orders"]) == " There are: events, orders."
    assert meant("x", []) == " There are none."
