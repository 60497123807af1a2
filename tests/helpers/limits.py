"""Small limits for tests, by part: ``{"capture": {"chunk_bytes": 4120}, "health_window": 0.1}``."""

from dataclasses import replace

from replicator.engine.limits import Limits


def changed(limits, parts):
    """``limits``, but for the fields that ``parts`` names."""
    return replace(
        limits,
        **{
            name: replace(getattr(limits, name), **fields) if isinstance(fields, dict) else fields
            for name, fields in parts.items()
        },
    )


def limits_for(config, parts):
    """The limits that follow from ``config``, but for the fields that ``parts`` names."""
    return changed(Limits.of(config), parts)


def change_everywhere(parts):
    """For programs: every replicator of this process gets these fields from now on."""
    real = Limits.of
    Limits.of = staticmethod(lambda config: changed(real(config), parts))
