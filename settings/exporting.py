"""Where rows are exported to before they go, as users say it: of dated tables, of partitions."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

from housekeeping.policies.archives import COMPRESSIONS, KEEPS_NOTHING, ExportFormat, ExportTo
from settings.addresses import StoreUrl
from settings.section import Contradiction

_FORMATS = get_args(ExportFormat)
_EXAMPLE = '"/var/backups/archives" or "s3://bucket/archives"'


def _export_url(value: object) -> StoreUrl:
    if isinstance(value, StoreUrl):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"give a folder such as {_EXAMPLE}")
    text = value.strip()
    scheme, separator, rest = text.partition("://")
    if not separator and not text.startswith("/"):
        raise ValueError(f"is no absolute path; workers start in other folders. Give {_EXAMPLE}")
    if separator and ("::" in text or scheme.lower() in KEEPS_NOTHING or not rest):
        raise ValueError(
            f"keeps no files: tables dropped after an export would be lost; give {_EXAMPLE}"
        )
    return StoreUrl(text)


def _format(value: object) -> object:
    if value not in _FORMATS:
        raise ValueError(f"give one of {', '.join(_FORMATS)}")
    return value


def _compression(value: object) -> object:
    known = list(dict.fromkeys(name for names in COMPRESSIONS.values() for name in names))
    if value not in known:
        raise ValueError(f"give one of {', '.join(known)}")
    return value


ExportUrl = Annotated[StoreUrl, BeforeValidator(_export_url)]
Format = Annotated[Literal["parquet", "csv", "jsonl"], BeforeValidator(_format)]
Compression = Annotated[str, BeforeValidator(_compression)]


def about_export(given: Mapping[str, Any], prefix: str = "") -> Iterator[Contradiction]:
    """Tell which keys of an export can't stand together; `prefix`: what the keys begin with."""
    to, format_, compression = (f"{prefix}{key}" for key in ("export_to", "format", "compression"))
    if given.get(to) is None:
        for key in (format_, compression):
            if given.get(key) is not None:
                yield (key,), f"says how to export, but {to} does not say where; give it"
    accepted = COMPRESSIONS.get(str(given.get(format_) or "parquet"))
    asked = given.get(compression)
    if accepted is not None and asked is not None and asked not in accepted:
        yield (compression,), f"does not go with the format; give one of {', '.join(accepted)}"


def export_to(url: StoreUrl | None, format_: Format, compression: str | None) -> ExportTo | None:
    """Return what the engine exports to; None where nothing is exported."""
    if url is None:
        return None
    return ExportTo(url=url.reveal(), format=format_, compression=compression or "")
