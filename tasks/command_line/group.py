"""How the command refuses: one message, the contract's exit code, never a traceback."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import click
from celery import Celery
from redis.exceptions import RedisError

from housekeeping.policies.errors import (
    EXIT_FAILED,
    EXIT_USAGE,
    HousekeepingError,
    StoreUnreachable,
)


class RefusingGroup(click.Group):
    """A group that answers wrong usage with 64 and our own errors with theirs."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except HousekeepingError as error:  # before a command was found
            raise SystemExit(shown(error)) from error

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise _as_usage(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _as_usage(error) from None
        except HousekeepingError as error:
            ctx.exit(shown(error))
        except RedisError as error:
            unreachable = StoreUnreachable(store="Redis", reason=str(error), setting="redis_url")
            ctx.exit(shown(unreachable))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no command {args[0]!r}.{meant(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def _as_usage(error: click.UsageError) -> click.UsageError:
    error.exit_code = EXIT_USAGE  # type: ignore[misc] # click reads it off the instance
    return error


def shown(error: HousekeepingError) -> int:
    """Print an error for people and return its exit code."""
    click.secho(error.message, fg="red", err=True)
    return getattr(error, "exit_code", EXIT_FAILED)


def meant(word: str, known: Sequence[str]) -> str:
    """Return ` Did you mean ...?`, or the list of what is known."""
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" There are: {', '.join(known)}." if known else " There are none."


def loaded_app() -> Celery:
    """Return the Celery app with every task and the schedule registered."""
    from tasks.application import app  # noqa: PLC0415 - not for `--help`

    app.loader.import_default_modules()
    app.finalize()
    return app


def task_name(text: str) -> str:
    """Return the full name of one of our tasks; `occurrences.retention` will do.

    Raises click.UsageError for a name nobody registered.
    """
    known = sorted(name for name in loaded_app().tasks if name.startswith("tasks."))
    for name in (text, f"tasks.{text}"):
        if name in known:
            return name
    raise click.UsageError(f"no task {text!r}.{meant(text, known)}")
