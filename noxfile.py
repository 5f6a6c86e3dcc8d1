import shlex
import shutil
import subprocess
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "imports", "tests"]
nox.options.default_venv_backend = "venv"

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint, and English."""
    session.install("ruff>=0.6")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("python", "tools/english.py")


@nox.session
def types(session: nox.Session) -> None:
    """mypy in strict mode."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """Imports run downward only, and reports never import torch."""
    session.install("-e", ".", "import-linter>=2")
    session.run("lint-imports")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The default suite: a few minutes on a CPU."""
    session.install("-e", ".[test]")
    session.run(
        "pytest", "-n", "auto", "--maxprocesses", "8", "--dist", "worksteal", *session.posargs
    )


def newest() -> str:
    """The newest Python that runs here; a shim of pyenv's may not."""
    for version in reversed(PYTHONS):
        found = shutil.which(f"python{version}")
        if found and not subprocess.run([found, "-c", ""], capture_output=True).returncode:
            return version
    return PYTHONS[0]


@nox.session
@nox.parametrize(
    ("python", "torch"),
    [(PYTHONS[0], "torch==2.6.0 torchvision==0.21.0"), (newest(), "torch torchvision")],
    ids=["oldest", "newest"],
)
def matrix(session: nox.Session, torch: str) -> None:
    """The suite on the oldest and the newest torch, with the oldest and the newest Python."""
    session.install("-e", ".[test]", *torch.split())
    session.run("pytest", "-n", "auto", "--maxprocesses", "8", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build, check, and use the wheel in a fresh environment without the source tree."""
    session.install("build", "twine")
    dist = Path("dist")
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    (built,) = dist.resolve().glob("*.whl")
    session.install(f"{built}[full]")
    session.chdir(session.create_tmp())
    for line in SMOKE.splitlines():
        session.run(*shlex.split(line))


SMOKE = """\
python -c "from importlib.resources import files; files('datbench').joinpath('py.typed').open()"
python -c "import pynvml"
datbench --version
datbench flops dat_s --res 1280x800 --out dat_s.json
datbench results validate dat_s.json
datbench table 2 --check
datbench explain dat_t --third-party
datbench memory dat_t --batch 64
datbench report dat_t --tables 8 --out report
datbench selftest --device cpu
"""
"""Commands of a smoke session: every kind of file that the wheel has is read by one."""


@nox.session
def slow(session: nox.Session) -> None:
    """Every variant at full size: minutes."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def export(session: nox.Session) -> None:
    """Every variant exported, compiled and as ONNX, at other sizes: an hour."""
    session.install("-e", ".[test,export]")
    session.run("pytest", "-m", "slow", "tests/models/test_export.py", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """What needs a CUDA device."""
    session.install("-e", ".[test]")
    session.run("datbench", "selftest", "--device", "cuda")
    session.run("pytest", "-m", "gpu", *session.posargs)


@nox.session
def slurm(session: nox.Session) -> None:
    """Sweeps on a real Slurm, which this installs and starts (Debian or Ubuntu, as root)."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "slurm and not slow", "tests/sweep", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """The bars on speed and memory, as ratios in one run."""
    session.install("-e", ".[test]")
    session.run("pytest", "benchmarks", "--benchmark-only", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Write the generated pages again and build the site."""
    session.install("-e", ".[docs,timm]")
    session.run("python", "docs/generate.py")
    session.run("mkdocs", "build", "--strict", "--site-dir", "site")


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw the pictures of README and docs again."""
    session.install("-e", ".[plots,timm]")
    session.run("python", "docs/draw.py")
