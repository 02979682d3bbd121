"""Versions of every table's schema: their ids, and what changed between two of them."""
