"""Measurements of this package against other ways to do the same, on the machine they are run on."""
