"""A job in a fresh process: started, waited for, never left behind.

The fresh process calls one function with one argument. The argument is a line of JSON on its
standard input, which stays open: the process ends when that closes. What the function returns is
written to a file, since a model may print what it likes; the function may write an answer early
with what is known so far. Both are dataclasses, or plain values.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_type_hints

from .signals import HANGUPS
from .units import printable

T = TypeVar("T")

PACKAGES = Path(__file__).resolve().parents[1]
"""The folder of the package that runs here, whichever way it was found."""

SHORT_OF_MEMORY = "for lack of the machine's own memory"

LONGEST = 300
"""Characters of a reason that are kept."""


@dataclass(frozen=True)
class Ending:
    """How a process ended that did not end well."""

    code: int | None  # negative for a signal; None where it was out of time
    last: str  # the last line that it wrote to standard error; empty without

    @property
    def signalled(self) -> bool:
        """Whether somebody else's signal ended it."""
        return self.code is not None and self.code < 0

    def __str__(self) -> str:
        if self.code is None:
            return "out of time"
        how = f"exit code {self.code}"
        if self.signalled:
            names = {each.value: f" ({each.name})" for each in signal.Signals}
            how = f"killed by signal {-self.code}{names.get(-self.code, '')}"
        return f"{how}: {self.last}" if self.last else how

    def outcome(self, timeout: float, device: str) -> tuple[Literal["timed out", "crashed"], str]:
        """What a run on this device that ended so is called, and why."""
        if self.code is None:
            return "timed out", f"did not finish in {timeout:g} s"
        reason = str(self)
        if self.code == -9:  # the kernel's way when the machine's own memory is used up
            reason += f", probably {SHORT_OF_MEMORY}"
            if device.startswith("cpu"):
                reason += "; try a smaller batch"
        return "crashed", short(reason)


def short(reason: str) -> str:
    """A reason as one line that cannot steer a terminal: it may be another library's."""
    return printable(" ".join(reason.split()).rstrip("."))[:LONGEST]


@dataclass(frozen=True)
class Question:
    """A function for a fresh process, and its argument."""

    function: str  # module:name
    job: Any
    python: str | None = None  # another interpreter than this one, with a datbench of its own
    source: Path | None = None  # a folder whose packages are imported before all others
    keeps: tuple[int, ...] = ()  # descriptors of ours that it gets too; closed here after that


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What a process gave."""

    answer: T | None  # the last one that it wrote
    ending: Ending | None = None  # how it ended, unless well after its answer
    interrupted: bool = False  # whether Ctrl-C was pressed meanwhile


def ask(
    function: str,
    job: Any,
    answer: type[T],
    timeout: float = float("inf"),
    *,
    python: str | None = None,
    source: Path | None = None,
    patience: float = 0.0,
) -> Reply[T]:
    """Do one job in a fresh process; see `Question` and `Asked.replies`.

    Raises:
        KeyboardInterrupt: Ctrl-C, and there was no patience.
        OSError: the interpreter cannot be started.
    """
    with asking([Question(function, job, python, source)], answer) as asked:
        (reply,) = asked.replies(timeout, patience)
    return reply


@dataclass(frozen=True)
class Asked(Generic[T]):
    """Processes at their jobs."""

    workers: Sequence[_Worker]
    answer: type[T]

    def replies(self, timeout: float = float("inf"), patience: float = 0.0) -> list[Reply[T]]:
        """Wait for all of them. None is left when this returns.

        Args:
            timeout: seconds for all of them.
            patience: seconds that they get after Ctrl-C, which is passed on to them, to answer with
                what they have. A second Ctrl-C ends them.

        Raises:
            KeyboardInterrupt: Ctrl-C, and there was no patience.
        """
        interrupted = False
        try:
            self._wait(timeout)
        except KeyboardInterrupt:
            if not patience or os.name != "posix":
                raise
            interrupted = True
            with contextlib.suppress(KeyboardInterrupt):
                for worker in self.workers:
                    worker.process.send_signal(signal.SIGINT)
                self._wait(patience)
        codes = [worker.process.poll() for worker in self.workers]
        for worker in self.workers:
            worker.end()
        return [
            worker.reply(code, self.answer, interrupted)
            for worker, code in zip(self.workers, codes, strict=True)
        ]

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))


@contextmanager
def asking(
    questions: Sequence[Question], answer: type[T], env: Mapping[str, str] | None = None
) -> Iterator[Asked[T]]:
    """Processes that do these jobs all at once. However the block is left, they have ended.

    Args:
        env: variables that they get besides this process's.

    Raises:
        OSError: an interpreter cannot be started.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="datbench-")))
        workers: list[_Worker] = []
        try:
            for number, question in enumerate(questions):
                workers.append(_Worker(question, folder / f"result{number}.json", env))
                stack.callback(workers[-1].end)
        finally:
            for descriptor in (kept for question in questions for kept in question.keeps):
                os.close(descriptor)
        for worker, question in zip(workers, questions, strict=True):
            _tell(worker.process, worker.result, question.job)
        yield Asked(workers, answer)


class _Worker:
    """A process at its job."""

    def __init__(self, question: Question, result: Path, env: Mapping[str, str] | None) -> None:
        program = f"from datbench.process import serve; serve({question.function!r})"
        self.result = result
        self.process = start(
            command(program, question.python, question.source), env=env, keeps=question.keeps
        )
        self.said = Tail(self.process)

    def end(self) -> None:
        """Kill what is left of it and of what it started."""
        if os.name == "posix":  # also where it has ended by itself: a child of it may not have
            _kill_group(self.process.pid)
        elif self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def reply(self, code: int | None, answer: type[T], interrupted: bool) -> Reply[T]:
        """What it gave; it has ended."""
        ending = Ending(code, _last_line(self.said.text()))
        if not self.result.exists():
            return Reply(None, ending, interrupted)
        try:
            found = read(self.result, answer)
        except ValueError:
            said = "its answer is of another version of datbench"
            return Reply(None, Ending(code, said), interrupted)
        return Reply(found, None if code == 0 else ending, interrupted)


def command(program: str, python: str | None = None, source: Path | None = None) -> list[str]:
    """How a program of one line is run in a process of its own; arguments may follow.

    Python puts the working directory before all others; here it comes last, as the empty entry:
    `sys.path` does not name it then, and `FactorySpec` puts it first once datbench and torch are
    there. Unless a source or another interpreter is given, datbench is this process's own.
    """
    if source is not None:
        first = f"sys.path.insert(0, {str(source.resolve())!r}); "
    elif python is None:  # not the whole folder: it may be site-packages, which come after others
        first = f"sys.path.insert(0, {str(PACKAGES)!r}); import datbench; del sys.path[0]; "
    else:
        first = ""
    paths = f"sys.path[:] = filter(None, sys.path); {first}sys.path.append(''); "
    return [python or sys.executable, "-c", f"import sys; {paths}{program}"]


def start(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    keeps: Sequence[int] = (),
    hangups: Sequence[int] = HANGUPS,
) -> subprocess.Popen[bytes]:
    """A process of a session of its own, with pipes for its standard input and error.

    Args:
        hangups: signals that it does not see. Whoever wants everything to end tells this process,
            which asks the other one for what it has.
    """
    mask = getattr(signal, "pthread_sigmask", None)  # POSIX; a new process inherits what is blocked
    before = mask(signal.SIG_BLOCK, hangups) if mask else None
    try:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=None if env is None else {**os.environ, **env},
            start_new_session=os.name == "posix",  # Ctrl-C is ours alone
            pass_fds=keeps,
        )
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)


def _tell(process: subprocess.Popen[bytes], result: Path, job: Any) -> None:
    """Tell a process its job, and where its answer belongs."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it is gone already; its code says how
        process.stdin.write(f"{message(result, job)}\n".encode())
        process.stdin.flush()


def _kill_group(pid: int) -> None:
    """Kill a process and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _last_line(text: str) -> str:
    """The last line that says something; empty without."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


class Branch:
    """A job in a process that was forked from this one, with all that is imported here.

    It takes milliseconds where a fresh process takes seconds for its imports. That is sound where
    this process has run no operator and has no context on a GPU, and on Linux. Elsewhere a fresh
    process does the job. It is the leader of a group, and ends with this process.

    Args:
        target: the function ``module:name``; it gets the job, and a function that says a line.
    """

    def __init__(self, target: str, job: Any, forked: bool = sys.platform == "linux") -> None:
        self._target = target
        self.said, says = os.pipe()
        self._popen: subprocess.Popen[bytes] | None = None
        try:
            if not forked:
                program = f"from datbench.process import serve; serve({target!r}, {says})"
                self._popen = start(command(program), keeps=[says])
                _tell(self._popen, Path(os.devnull), job)
                assert self._popen.stderr is not None
                self.pid, self.errors = self._popen.pid, os.dup(self._popen.stderr.fileno())
            else:
                self.errors, writes = os.pipe()
                with warnings.catch_warnings():
                    # Of threads: those of libraries for linear algebra, which know about forks.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    parent, self.pid = os.getpid(), os.fork()
                if self.pid == 0:
                    self._child(job, parent, says, writes)
                os.close(writes)
        finally:
            os.close(says)
        self.open = {self.said: bytearray(), self.errors: bytearray()}
        self._heard, self._wrote = self.open.values()
        for descriptor in self.open:
            os.set_blocking(descriptor, False)

    def hear(self) -> list[Any]:
        """What it has said since: the values of whole lines of JSON."""
        for descriptor, kept in list(self.open.items()):
            with contextlib.suppress(BlockingIOError):
                while data := os.read(descriptor, 1 << 16):
                    kept += data
                del self.open[descriptor]
        del self._wrote[: -Tail.MOST]
        *lines, rest = self._heard.split(b"\n")
        self._heard[:] = rest
        return [json.loads(line) for line in lines]

    def ending(self, code: int | None) -> Ending:
        """How it ended, with the last line that it wrote."""
        return Ending(code, _last_line(self._wrote.decode(errors="replace")))

    def _child(self, job: Any, parent: int, says: int, writes: int) -> None:
        code = 1
        try:
            os.setsid()
            _end_with_parent(parent)
            for number in (signal.SIGINT, *HANGUPS):
                signal.signal(number, signal.SIG_DFL)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for standard, descriptor in enumerate((nowhere, nowhere, writes)):
                os.dup2(descriptor, standard)
            sys.stderr = os.fdopen(2, "w", 1, errors="replace")
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            _function(self._target)(job, _sayer(says))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)  # nothing of this process's own ends twice

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.kill()  # what it started
        code = os.waitstatus_to_exitcode(status)
        if self._popen is not None:
            self._popen.returncode = code
        return code

    def kill(self) -> None:
        """End it and what it started."""
        _kill_group(self.pid)

    def close(self) -> None:
        """Close this process's ends of its pipes."""
        os.close(self.said)
        os.close(self.errors)
        if self._popen is not None:
            assert self._popen.stdin is not None
            assert self._popen.stderr is not None
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.close()
            self._popen.stderr.close()


def wait_for(branches: Iterable[Branch], seconds: float) -> None:
    """Wait until one of them says or writes something, or closes its pipes."""
    import selectors

    with selectors.DefaultSelector() as selector:
        for descriptor in (each for branch in branches for each in branch.open):
            selector.register(descriptor, selectors.EVENT_READ)
        selector.select(seconds)


def alive(pid: int) -> bool:
    """Whether a process of this machine runs; one that nobody has waited for yet has ended."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except PermissionError:
        return True
    except OSError:
        return False


def _end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends (Linux)."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, of prctl(2)
    if os.getppid() != parent:  # it has ended in between
        os._exit(1)


def _sayer(descriptor: int) -> Callable[[Any], None]:
    """What says a value as a line of JSON: through a pipe, whole."""

    def say(value: Any) -> None:
        data = f"{json.dumps(value)}\n".encode()
        while data:
            data = data[os.write(descriptor, data) :]

    return say


class Tail:
    """The end of what a process writes to standard error, read while it runs."""

    MOST = 1 << 18  # bytes

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._thread.start()

    def _read(self, stream: Any) -> None:
        with stream:
            while read := stream.read1(1 << 16):
                self._kept += read
                del self._kept[: -self.MOST]

    def text(self) -> str:
        """All that is kept of a process that has ended."""
        self._thread.join(1.0)  # a child that escaped may still hold the pipe
        return bytes(self._kept).decode(errors="replace")


# Values as JSON, between two processes that run the same code or nearly so.


def write(path: Path, value: Any) -> None:
    """Write a value, whole or not at all."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(packed(value)), encoding="utf-8")
    beside.replace(path)


def read(path: Path, hint: type[T]) -> T:
    """The value of this type that a file holds."""
    found: T = unpacked(hint, json.loads(path.read_text(encoding="utf-8")))
    return found


def message(result: Path, job: Any) -> str:
    """What a process is told, or a file that the variable `JOB` names: its job, and where its
    answer belongs.
    """
    return json.dumps({"result": str(result), "job": packed(job)})


def packed(value: Any) -> Any:
    """A dataclass, or a tuple of some, as plain values."""
    if isinstance(value, tuple):
        return [packed(each) for each in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def unpacked(hint: Any, plain: Any) -> Any:
    """Plain values as this type. Fields that the type does not have are left out."""
    from pydantic import TypeAdapter

    return TypeAdapter(hint).validate_json(json.dumps(plain))


# The side of the fresh process.


JOB = "DATBENCH_JOB"
"""The variable that names a file with the job, where standard input is shared with others."""

_result: Path | None = None


def serve(target: str, says: int | None = None) -> None:
    """Do the job that is asked for, and end this process.

    The function turns what may go wrong into an answer; what it raises ends the process.

    Args:
        target: the function, as ``module:name``.
        says: where the function says lines while it works, which are all of its answer.
    """
    global _result
    # A shell's background jobs ignore it, and so would their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    file = os.environ.get(JOB)
    message = json.loads(sys.stdin.readline() if file is None else Path(file).read_text("utf-8"))
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    _result = Path(message["result"])
    function = _function(target)
    hints = get_type_hints(function)
    hints.pop("return", None)
    job = unpacked(next(iter(hints.values()), Any), message["job"])
    if says is None:
        write_answer(function(job))
    else:
        function(job, _sayer(says))
    sys.stdout.flush()
    os._exit(0)  # no model's exit handlers, and no wait for the reading thread


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def write_answer(answer: Any) -> None:
    """Write an answer, whole or not at all; a later one takes its place.

    Without an answer (None), or in a process that nobody asked, nothing is written.
    """
    if _result is not None and answer is not None:
        write(_result, answer)


def _end_with_standard_input() -> None:
    while os.read(sys.stdin.fileno(), 1 << 12):  # not through Python's stream, which has a lock
        pass
    os._exit(1)
