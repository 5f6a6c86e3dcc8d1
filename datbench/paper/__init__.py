"""Published tables as data, and verdicts on them. No torch."""
