"""Checks of arguments that many constructors share."""


def at_least(bound: int, **numbers: int) -> None:
    """Refuse numbers below `bound` by name.

    Example:
        >>> at_least(1, num_moves=0)
        Traceback (most recent call last):
        ValueError: num_moves must be at least 1, got 0
    """
    for name, value in numbers.items():
        if value < bound:
            raise ValueError(f"{name} must be at least {bound}, got {value}")
