"""Names and expressions as users write them: no text becomes another piece of SQL."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from housekeeping.stores.postgres.names import clipped, did_you_mean, fault_of_expression, qualified

# Pieces two lexers are likely to read differently.
PIECES = [
    "'", "''", '"', "(", ")", "--", "/*", "*/", ";", "$", "$$", "$a$", "E'", "e'", "U&'", "B'", "\\",
    "\n", " ", "a", "1", "-|-", "-", "%", "{#", "#}", "{{", "}}", "`", "[", "]", "#", "é", "\t", "N'",
    "@-", "::text", "||", "q'[", "\r",
]  # fmt: skip


class Lexer:
    """Reads text by the server's own rules (scan.l); knows how deep in parentheses it ends."""

    def __init__(self, text: str, *, standard_strings: bool) -> None:
        self.text, self.at, self.depth, self.lowest = text, 0, 0, 0
        self.open, self.statements = False, 1
        self._standard = standard_strings
        while self.at < len(text):
            self._step()

    def _step(self) -> None:
        text, at = self.text, self.at
        if text.startswith("--", at):
            ends = [place for place in (text.find("\n", at), text.find("\r", at)) if place >= 0]
            self.at = min(ends, default=len(text))
        elif text.startswith("/*", at):
            self._comment()
        elif text[at] in "'\"":
            self._quoted(text[at], escapes=text[at] == "'" and not self._standard)
        elif text[at] in "eE" and text[at + 1 : at + 2] == "'":
            self.at += 1
            self._quoted("'", escapes=True)
        elif text[at].isalpha() or text[at] == "_":
            while self.at < len(text) and (text[self.at].isalnum() or text[self.at] in "_$"):
                self.at += 1
        elif text[at] == "$":
            self._dollar()
        else:
            self.depth += {"(": 1, ")": -1}.get(text[at], 0)
            self.lowest = min(self.lowest, self.depth)
            self.statements += text[at] == ";"
            self.at += 1

    def _comment(self) -> None:
        nested = 0
        while self.at < len(self.text):
            pair = self.text[self.at : self.at + 2]
            nested += {"/*": 1, "*/": -1}.get(pair, 0)
            self.at += 2 if pair in ("/*", "*/") else 1
            if nested == 0:
                return
        self.open = True

    def _quoted(self, quote: str, *, escapes: bool) -> None:
        self.at += 1
        while self.at < len(self.text):
            if escapes and self.text[self.at] == "\\":
                self.at += 2
            elif self.text[self.at] != quote:
                self.at += 1
            elif self._continues(quote, doubled=self.text[self.at + 1 : self.at + 2] == quote):
                continue
            else:
                return
        self.open = True

    def _continues(self, quote: str, *, doubled: bool) -> bool:
        """Step past a quote; say whether the string goes on behind it."""
        if doubled:
            self.at += 2
            return True
        self.at += 1
        rest = self.text[self.at :]
        gap = rest[: len(rest) - len(rest.lstrip(" \t\n\r\f\v"))]
        if quote == "'" and ("\n" in gap or "\r" in gap) and rest[len(gap) :].startswith("'"):
            self.at += len(gap) + 1
            return True
        return False

    def _dollar(self) -> None:
        end = self.text.find("$", self.at + 1)
        tag = self.text[self.at : end + 1]
        if end < 0 or not (tag == "$$" or tag[1:-1].isidentifier()):
            self.at += 1
            return
        close = self.text.find(tag, end + 1)
        self.open |= close < 0
        self.at = len(self.text) if close < 0 else close + len(tag)


@settings(max_examples=3_000)
@given(
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=40),
    st.booleans(),
)
def test_no_text_that_passes_reaches_past_its_parentheses(text: str, standard: bool) -> None:  # noqa: FBT001
    if fault_of_expression(text) is not None:
        return
    read = Lexer(f"(\n{text}\n)", standard_strings=standard)
    assert (read.depth, read.open, read.statements) == (0, False, 1)
    assert Lexer(text, standard_strings=standard).lowest == 0


@pytest.mark.parametrize(
    "text",
    [
        "1) OR (1=1",
        "true); DROP TABLE events; --",
        "true -- and nothing else",
        "true /* and */",
        "id = E'a'\n'\\' ' ) OR (true -- '",
        "area -|--'\n) OR (true --'",
        "note = '\\' ' ) OR (true --'",
        "a$$) OR (b$$",
        "$é$ ( $é$ )",
        "name = 'never closed",
        '"never closed',
        "((id = 1)",
        "",
        " \n",
        "id = 1\0",
    ],
)
def test_a_text_that_is_more_or_less_than_one_expression_is_refused(text: str) -> None:
    assert fault_of_expression(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "state = 'done'",
        "note LIKE '50%; (or -- so' AND \"odd;(name\" > 3",
        "coalesce(finished_at, created_at)",
        "path <> 'C:\\temp' AND id % 2 = 0",
        "name = 'it''s'",
        "data->>'kind' = 'x' AND tags @> ARRAY['a']",
        "id IN (SELECT id FROM others)",
        "created_at::timestamptz AT TIME ZONE 'UTC'",
    ],
)
def test_an_ordinary_expression_passes(text: str) -> None:
    assert fault_of_expression(text) is None


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("events", (None, "events")),
        ("Events", (None, "events")),
        ('"Events"', (None, "Events")),
        ("public.events", ("public", "events")),
        ('"My Schema"."My.Table"', ("My Schema", "My.Table")),
        ('"a""b"', (None, 'a"b')),
        ("a.b.c", None),
        ("a b", None),
        ('"never closed', None),
        ("", None),
    ],
)
def test_a_name_is_read_as_the_server_reads_it(
    text: str, read: tuple[str | None, str] | None
) -> None:
    assert qualified(text) == read


@given(st.text())
def test_a_name_is_cut_to_63_bytes_between_characters(name: str) -> None:
    cut = clipped(name)

    assert name.startswith(cut)
    assert len(cut.encode()) <= 63
    assert cut == name or len((cut + name[len(cut)]).encode()) > 63


def test_a_near_name_is_suggested_whatever_its_case() -> None:
    assert did_you_mean("joboccurrence", ["JobOccurrences", "x"]) == (
        " Did you mean 'JobOccurrences'?"
    )
    assert did_you_mean("zzz", ["JobOccurrences"]) == ""
