"""The command line: one small file a command, listed in `datbench.cli.main`."""
