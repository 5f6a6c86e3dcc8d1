"""Other people's counters: run each in a process of its own, and say what it counts differently."""
