"""What ends a command with exit code 1 and one line on standard error."""


class CommandError(Exception):
    """The command cannot do what it was asked; the message says why and what to do, in one line."""


class NotFound(CommandError):
    """There is no such object."""
