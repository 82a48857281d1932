"""The command line: ``varve``, and ``kubectl varve`` as a plugin.

Each command is a module with a report (a model: what ``-o json`` prints), a pure function that makes it from
the objects as read, and a pure function that lays it out as a page. Only :mod:`controller.cli.cluster` does
I/O, and only :mod:`controller.cli.plain` and :mod:`controller.cli.colour` know what a page looks like.
"""
