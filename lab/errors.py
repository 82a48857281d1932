"""The one error that the lab raises for everything that a person can mend."""


class LabError(Exception):
    """Something the lab needs is missing, or a process it started did not do what it should.

    The text says which.
    """
