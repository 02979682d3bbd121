"""The tests' judge: it shares no code with the engine. Its own controls are in integration/test_oracle.py."""

from cdc.demo.compare import Comparison, Pair, compare, differences, tables_of

__all__ = ["Comparison", "Pair", "compare", "differences", "tables_of"]
