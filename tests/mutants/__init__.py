"""Faults that are planted into the rules that keep images, and the tests that find each of them."""
