"""How much of a long list reports show; JSON and CSV files have all of it."""

SHOWN_IN_TEXT = 8
"""Lines of a list on the terminal."""

SHOWN_ON_PAGE = 36
"""Thumbnails, or groups of them, in a section of a page."""

EXPLAINED = 12
"""Mistakes with a heat map on a page: each of these takes 144 runs of the network."""
