"""`python -m datbench`."""

from datbench.cli.main import entry

if __name__ == "__main__":
    entry()
