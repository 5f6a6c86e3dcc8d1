"""Where a model's time goes: the profiler's times beside the counter's MACs and bytes."""
