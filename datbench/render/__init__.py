"""Tables and figures as values, and how they are drawn. Never imports torch."""
