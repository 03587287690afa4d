"""What is wrong with the settings, in our words: which key, its value, what to give instead."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from housekeeping.policies.errors import ConfigurationRefused
from settings import shape
from settings.addresses import StoreUrl, without_secrets
from settings.layers import Layers
from settings.section import Section, sentence_of

_LONGEST_VALUE = 80
_LARGEST_NUMBER = 10**_LONGEST_VALUE
_SENTENCES = {
    "missing": "missing, and there is no default",
    "model_type": "give a section of keys and values",
    "model_attributes_type": "give a section of keys and values",
    "dict_type": "give a section of keys and values",
    "invalid_key": "give keys as text",
}


@dataclass(frozen=True)
class Problem:
    """One line of a refusal."""

    path: str
    sentence: str
    origin: str | None = None
    value: str | None = None
    """as JSON, free of secrets; None where there is none to show"""

    def __str__(self) -> str:
        shown = f" = {self.value}" if self.value is not None else ""
        place = f" ({self.origin})" if self.origin else ""
        return f"{self.path}{shown}: {self.sentence}{place}" if self.path else self.sentence + place


def refuse(problems: Iterable[Problem]) -> ConfigurationRefused:
    """Return the error that tells all of `problems`, one a line."""
    lines = dict.fromkeys(str(problem) for problem in problems)
    return ConfigurationRefused("\n".join(lines))


def told(
    error: ValidationError, section: type[Section], layers: Layers, elsewhere: str
) -> Iterator[Problem]:
    """Tell `error` in our words; `elsewhere` is where a key that is missing was looked for."""
    errors = error.errors(include_url=False)
    # Sections tell themselves what is missing, and know better what to give instead.
    for each in [each for each in errors if each["type"] != "missing"] or errors:
        path = tuple(str(key) for key in each["loc"] if key != "[key]")
        yield Problem(
            path=".".join(key or '""' for key in path),
            sentence=_sentence(each, section, path),
            origin=layers.origin_of(path) or elsewhere,
            value=_shown(each, shape.kind_at(section, path)),
        )


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `did you mean "..."?`, or what is accepted where nothing is near."""
    spelled = {each.lower(): each for each in known}
    near = get_close_matches(word.lower(), spelled, n=1)
    if near:
        return f'did you mean "{spelled[near[0]]}"?'
    return f"accepted are {', '.join(known)}" if known else "none is accepted here"


def _sentence(error: ErrorDetails, section: type[Section], path: tuple[str, ...]) -> str:
    if error["type"] == "extra_forbidden":
        around = shape.kind_at(section, path[:-1])
        known = shape.accepted_keys(around) if shape.is_section(around) else ()
        return f"unknown key; {did_you_mean(path[-1], known)}"
    # The last resort says little, and nothing that pydantic would have repeated from the input.
    return sentence_of(error) or _SENTENCES.get(error["type"], "can't be used here")


def _shown(error: ErrorDetails, kind: object) -> str | None:
    value = error["input"]
    hidden = error["type"] in ("missing", "extra_forbidden", "contradiction")
    if (
        hidden
        or "[key]" in error["loc"]
        or kind is StoreUrl
        or not isinstance(value, str | int | float)
    ):
        return None
    if isinstance(value, str):
        value = "...://..." if "://" in value else without_secrets(value)
        value = value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "..."
    elif abs(value) > _LARGEST_NUMBER:
        return "a very large number"  # Python refuses to write thousands of digits
    return json.dumps(value, ensure_ascii=False)
