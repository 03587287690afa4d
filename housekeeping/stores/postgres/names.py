"""Names as users write them: any name PostgreSQL takes is a name here, never a piece of SQL."""

import re
from difflib import get_close_matches

from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import TokenType

IDENTIFIER_BYTES = 63  # NAMEDATALEN - 1


def clipped(name: str) -> str:
    """Return a name as the server would store it: at most 63 bytes, cut between characters."""
    return name.encode()[:IDENTIFIER_BYTES].decode(errors="ignore")


def quoted(*parts: str) -> str:
    """Return a name as SQL to hand to people: `"schema"."table"`."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def apart_from(name: str, alias: str) -> str:
    """Return an alias of ours that is not the name of the table it stands beside."""
    return alias + "_" if alias == name else alias


def qualified(text: str) -> tuple[str | None, str] | None:
    """Read `schema.table` or `"Quoted"` as SQL would; None where the text is no such name.

    Unquoted parts fold to lower case, as the server folds them.
    """
    try:
        tokens = Postgres().tokenize(text)
    except TokenError:
        return None
    if len(tokens) not in (1, 3):
        return None
    if len(tokens) == 3 and tokens[1].token_type is not TokenType.DOT:  # noqa: PLR2004
        return None
    parts = [
        token.text if token.token_type is TokenType.IDENTIFIER else token.text.lower()
        for token in tokens[::2]
    ]
    return (parts[0], parts[1]) if len(parts) > 1 else (None, parts[0])


def did_you_mean(name: str, known: list[str]) -> str:
    """Return ` Did you mean ...?`, or nothing when nothing known is near."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return f" Did you mean {lowered[near[0]]!r}?" if near else ""


# What the server reads as one piece, and what could lead out of the parentheses around it. Not
# sqlglot's tokens: it reads `-|--` as two operators where the server begins a comment, and ends
# `E'a' (newline) '\' '` elsewhere.
_PIECES = re.compile(r"""'[^']*'|"[^"]*"|--|/\*|[;$()'"\0]""")
_FAULTS = {
    "--": "it holds a comment",
    "/*": "it holds a comment",
    ";": "it holds a semicolon",
    "$": "it holds a dollar sign outside quotes: write strings in single quotes",
    "'": "a quote in it is never closed",
    '"': "a quote in it is never closed",
    "\0": "it holds a zero byte",
}


def fault_of_expression(text: str) -> str | None:
    """Say why a text can't be one SQL expression; None when it can.

    It will stand inside parentheses, so text without a semicolon, a comment or an unbalanced
    parenthesis (outside quotes) can't reach past them. Whether it is a good expression is for the
    server to say.
    """
    if not text.strip():
        return "it is empty"
    depth = 0
    for found in _PIECES.finditer(text):
        piece = found[0]
        if piece in _FAULTS:
            return _FAULTS[piece]
        if piece.endswith("\\'"):
            # The end of a string or not: E'' and standard_conforming_strings decide.
            return "it holds a backslash before a quote: write '' for a quote in a string"
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if depth < 0:
            return "it closes a parenthesis that it did not open"
    return "it opens a parenthesis that it does not close" if depth else None
