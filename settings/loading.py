"""From file and environment to a checked `Suite`, or one refusal that tells all problems."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from settings.files import shown
from settings.problems import refuse, told
from settings.sources import PATH_VARIABLE, find_file, gather
from settings.suite import Suite


def load(environment: Mapping[str, str] | None = None, path: Path | None = None) -> Suite:
    """Return the settings of this installation.

    `environment`: left out, the process's own. `path`: the configuration file; left out, what
    HOUSEKEEPING_CONFIG names, else `housekeeping.toml` in the working directory if it is there.

    Raises ConfigurationRefused when something is wrong. All of it is told, one problem a line, each
    with its key, its value unless it is secret, what to give, and where it came from.
    """
    environment = os.environ if environment is None else environment
    file = find_file(environment, path)
    layers, problems = gather(file, environment)
    looked_in = shown(file) if file else f"no configuration file; {PATH_VARIABLE} may name one"
    suite = None
    try:
        suite = Suite.model_validate(layers.tree)
    except ValidationError as error:
        problems += told(error, Suite, layers, looked_in)
    if problems or suite is None:
        raise refuse(problems)
    return suite
