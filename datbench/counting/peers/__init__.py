"""Other people's counters: run each in a process of its own, and say what it counts differently.

=============  ==========================================================================
adapters.py    how each is called, and its amounts by module in one form
worker.py      the process in which one counts one model
run.py         starts it, watches it, and never leaves it behind
columns.py     what our own count saw in each module, as columns of amounts
solve.py       the fewest columns, with plain weights, that make up a difference exactly
explain.py     the differences of a whole model as terms
=============  ==========================================================================
"""
