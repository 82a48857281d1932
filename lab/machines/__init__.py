"""Machines whose guests write all the time, and the check of what they wrote."""
