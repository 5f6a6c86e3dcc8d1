"""Tables to terminal, CSV, markdown, JSON and LaTeX. Never imports torch."""
