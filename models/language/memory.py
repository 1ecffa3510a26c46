"""Refuse allocations that cannot fit, before they are made."""

import os


def check_fits(needed: int, what: str, remedy: str) -> None:
    """Raise MemoryError if `needed` bytes for `what` exceed the memory of the machine.

    Example:
        >>> check_fits(10, "caches", "use fewer particles")
    """
    total = _total_bytes()
    if total is not None and needed > total:
        raise MemoryError(
            f"{what} would take {needed / 2**30:.1f} GiB; the machine has {total / 2**30:.1f} GiB. "
            f"{remedy[0].upper()}{remedy[1:]}"
        )


def _total_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
