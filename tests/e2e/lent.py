"""A place of the lab that was made beforehand, in the words of ``spec.overlay.source``."""

from lab.controller import lent

__all__ = ["lent"]
