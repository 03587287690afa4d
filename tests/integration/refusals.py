"""How a test asks for the refusal of a policy: of a dry run and of a real one."""

from typing import TypeVar

import pytest

from housekeeping.engine.run import Surroundings
from housekeeping.policies.errors import PolicyRefused
from housekeeping.policies.purge import PurgePolicy
from tests.integration.runs import run

R = TypeVar("R", bound=PolicyRefused)


def refused(
    policy: PurgePolicy, around: Surroundings, error: type[R], match: str | None = None
) -> R:
    """Return what a dry run and a real one are refused with."""
    with pytest.raises(error, match=match):
        run(policy, around, dry_run=True)
    with pytest.raises(error, match=match) as caught:
        run(policy, around)
    return caught.value
