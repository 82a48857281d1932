"""Kubernetes quantities, as the API prints them."""

_SUFFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def quantity(size: int) -> str:
    """Write a size in bytes as an exact quantity: ``20Gi``, ``1536Mi``, plain bytes where no suffix fits.

    Raises ValueError for a negative size.
    """
    if size < 0:
        raise ValueError(f"a size cannot be negative: {size}")
    power = 0
    while size and size % 1024 == 0 and power < len(_SUFFIXES) - 1:
        size //= 1024
        power += 1
    return f"{size}{_SUFFIXES[power]}"


def parse_quantity(text: str) -> int:
    """Read back what :func:`quantity` writes: bytes. Raises ValueError for anything else."""
    for exponent, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1):
        if text.endswith(suffix):
            return int(text.removesuffix(suffix)) << (10 * exponent)
    return int(text)
