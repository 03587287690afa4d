"""What all sections of the settings share: unknown keys are refused, all problems told at once."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

Contradiction = tuple[tuple[str, ...], str]
"""A path of keys below the section, and a sentence on what is wrong there."""


class Section(BaseModel):
    """A section of the settings. Frozen; a key it doesn't know is refused."""

    # Inputs are hidden because a raw pydantic error would show a password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def prepare(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what was given as the fields want it; raises ValueError."""
        return given

    @classmethod
    def contradictions(
        cls,
        given: Mapping[str, Any],  # noqa: ARG003 (for the sections that override it)
    ) -> Iterator[Contradiction]:
        """Tell what is missing or wrong between keys; each key's own value may be wrong too."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _tell_all_at_once(cls, raw: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Check keys and their combinations together; pydantic would stop after the keys."""
        if not isinstance(raw, Mapping):
            return handler(raw)
        given = cls.prepare(raw)
        wrong = [_details("contradiction", *each) for each in cls.contradictions(given)]
        try:
            section = handler(given)
        except ValidationError as error:
            if not wrong:
                raise
            wrong += [_rebuilt(each) for each in error.errors(include_url=False)]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return section


def _details(kind: str, path: tuple[int | str, ...], sentence: str) -> InitErrorDetails:
    told = PydanticCustomError(kind, "{sentence}", {"sentence": sentence})
    return InitErrorDetails(type=told, loc=path, input=None)


def _rebuilt(error: ErrorDetails) -> InitErrorDetails:
    """Return `error` in the form pydantic takes; it can't take back what it gave."""
    told = PydanticCustomError(error["type"], "{sentence}", {"sentence": sentence_of(error)})
    return InitErrorDetails(type=told, loc=error["loc"], input=error["input"])


def sentence_of(error: ErrorDetails) -> str:
    """Return what a validator of ours said, "" where only pydantic spoke."""
    context = error.get("ctx", {})
    return str(context.get("sentence") or context.get("error") or "")
