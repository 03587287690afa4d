"""Which keys are accepted at a path of the settings, and what kind of value stands there."""

import types
from collections.abc import Sequence
from typing import Annotated, TypeGuard, Union, get_args, get_origin

from housekeeping.policies.purge import TableName
from settings.section import Section


def kind_at(section: type[Section], path: Sequence[str]) -> object:
    """Return the type of the value at `path` below `section`, None where no key leads."""
    kind: object = section
    for key in path:
        if get_origin(kind) is dict:
            kind = _bare(get_args(kind)[1])
        elif is_section(kind):
            kind = _fields(kind).get(key)
        else:
            return None
    return kind


def accepted_keys(section: type[Section]) -> tuple[str, ...]:
    """Return the keys of `section` as users write them."""
    return tuple(_fields(section))


def is_section(kind: object) -> TypeGuard[type[Section]]:
    return isinstance(kind, type) and issubclass(kind, Section)


def takes_structure(kind: object) -> bool:
    """Say whether a list or a table of keys may stand there, so that text is read as JSON."""
    return is_section(kind) or get_origin(kind) in (dict, tuple) or kind is TableName


def _fields(section: type[Section]) -> dict[str, object]:
    return {
        field.alias or name: _bare(field.annotation) for name, field in section.model_fields.items()
    }


def _bare(annotation: object) -> object:
    """Return a type without its validators and without None."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(kind for kind in get_args(annotation) if kind is not types.NoneType)
        else:
            return annotation
