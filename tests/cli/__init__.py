"""The command line, from arguments to text, files and exit codes."""
