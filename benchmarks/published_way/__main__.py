"""Check the published-way models: python -m benchmarks.published_way [GOLDEN.json ...].

Without files it takes the golden files (dat*_20??_*.json) that lie under tests/.
"""

import sys
from pathlib import Path

from .goldens import check_golden, check_parameters


def main(arguments: list[str]) -> int:
    """Print every check; 0 if all pass, 1 if one fails, 3 if there is no golden file."""
    tests = Path(__file__).resolve().parents[2] / "tests"
    files = [Path(name) for name in arguments] or sorted(tests.rglob("dat*_20??_*.json"))
    failed = 0
    for parameters in check_parameters():
        failed += not parameters.passed
        verdict = "ok" if parameters.passed else "WRONG"
        print(f"{parameters.name:26} {parameters.parameters:>11,} parameters  {verdict}")
    for path in files:
        golden = check_golden(path)
        failed += not golden.passed
        print(
            f"{golden.name:26} logits {golden.logits_error:.1e}  norm {golden.norm_error:.1e}  "
            f"keys {'same' if golden.same_keys else 'DIFFER'}  {'ok' if golden.passed else 'WRONG'}"
        )
    if not files:
        print("no golden file found: name one", file=sys.stderr)
        return 3
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
