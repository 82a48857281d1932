"""The pure core: layers, boundaries, the journal, and the planner.

Nothing in this package does I/O or reads a clock; time is always an argument. It may import
only the standard library and lxml (held by import-linter).
"""
