"""``cdc demo``: embedded databases, traffic, faults, and a verdict by an independent comparison.

Nothing here is used by the engine; the tests borrow the servers and the comparison.
"""
