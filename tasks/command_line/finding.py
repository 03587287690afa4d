"""What `housekeeping check` has to say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something `check` has to say of one subject."""

    level: str
    """ok, warning or error"""
    subject: str
    message: str
