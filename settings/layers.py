"""Settings from several places, one laid over the other, each value knowing where it came from."""

from collections.abc import Mapping
from typing import Any

Path = tuple[str, ...]


class Layers:
    """A tree of keys and values; what is laid later wins, key by key."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self._origins: dict[Path, str] = {}

    def lay(self, path: Path, value: object, origin: str, *, any_case: bool = True) -> None:
        """Put `value` at `path`; a mapping is merged into what is there.

        `any_case`: a key is the key that is there in another case (the environment's and .NET's
        rule); two keys of one file stay two.
        """
        if isinstance(value, Mapping):
            here = self._section_at(path, origin, any_case=any_case)
            for key, each in value.items():
                self.lay(
                    (*path, spelling(here, key) if any_case else key),
                    each,
                    origin,
                    any_case=any_case,
                )
            return
        here = self._section_at(path[:-1], origin, any_case=any_case)
        here[spelling(here, path[-1]) if any_case else path[-1]] = value
        self._origins[_folded(path)] = origin

    def at(self, path: Path) -> object:
        """Return what stands at `path`, None where nothing does."""
        here: Any = self.tree
        for key in path:
            here = here.get(spelling(here, key)) if isinstance(here, Mapping) else None
        return here

    def origin_of(self, path: Path) -> str | None:
        """Return where the value at `path` came from, or the nearest section around it."""
        folded = _folded(path)
        for end in range(len(folded), 0, -1):
            if origin := self._origins.get(folded[:end]):
                return origin
        return None

    def _section_at(self, path: Path, origin: str, *, any_case: bool) -> dict[str, Any]:
        here = self.tree
        for depth, key in enumerate(path, start=1):
            name = spelling(here, key) if any_case else key
            below = here.get(name)
            if isinstance(below, list):  # .NET numbers the items of a list in the environment
                below = {str(place): item for place, item in enumerate(below)}
            if not isinstance(below, dict):
                below = {}
                self._origins[_folded(path[:depth])] = origin
            here[name] = below
            here = here[name]
        return here


def spelling(section: Mapping[str, Any], key: str) -> str:
    """Return `key` as `section` spells it: as it is, else in another case, else unchanged."""
    if key in section:
        return key
    return next((known for known in section if known.lower() == key.lower()), key)


def _folded(path: Path) -> Path:
    return tuple(key.lower() for key in path)
