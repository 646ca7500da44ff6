"""The `genkit` command: finds a command by its file, runs it, and turns errors into sentences.

Every file of genkit/commands is a command; its name is the file's (with dashes), its help the first
line of the file's docstring. This file reads them without importing, so that `genkit --help`, a
mistyped command and `genkit list` cost no torch. Exit codes: 0 done, 1 the run failed, 2 something
was asked for that cannot be, 130 interrupted.
"""

from __future__ import annotations

import ast
import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from genkit.acceleration.memory import keep_freed_memory

COMMANDS = Path(__file__).parent / "commands"


def commands() -> dict[str, str]:
    """{command: its one line of help}, read from the files of genkit/commands that have a `run`."""
    found = {}
    for file in sorted(COMMANDS.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body):
            line = (ast.get_docstring(tree) or "").partition("\n")[0]
            found[file.stem.replace("_", "-")] = line
    return found


def overview() -> str:
    """What `genkit --help` prints."""
    known = commands()
    width = max(len(name) for name in known)
    lines = [f"  {name:<{width}}  {line}" for name, line in known.items()]
    return "\n".join(
        [
            "genkit turns a slow generative model into a one-step or few-step one.",
            "",
            "usage: genkit COMMAND [...]",
            "",
            *lines,
            "",
            "genkit COMMAND --help lists a command's options; genkit --version says which this is.",
            "With --debug an error also shows where it came from. Start with: genkit train-distill",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in given
    given = [each for each in given if each != "--debug"]
    try:
        return _dispatch(given)
    except SystemExit as stop:  # a command's --help
        return int(stop.code or 0)
    except KeyboardInterrupt as stop:
        return _say(str(stop) or "interrupted", 130)
    except Exception as error:
        sentence, code = _explain(error)
        if debug or not sentence:
            raise
        return _say(sentence, code)


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if given[0] == "--version":
        from genkit import __version__

        print(__version__)
        return 0
    known = commands()
    if given[0] not in known:
        from genkit.catalogue import unknown

        raise unknown("command", given[0], known, ". genkit --help describes them")
    warnings.simplefilter("ignore", FutureWarning)
    warnings.formatwarning = lambda message, *_, **__: f"genkit: {message}\n"
    # Threads that spin while they wait for each other cost 7 to 20 times the time where it is busy;
    # never spinning (OMP_WAIT_POLICY=PASSIVE) doubles a small network's on an idle one. This many
    # turns, some microseconds, cost neither. GNU OpenMP reads it when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    keep_freed_memory()
    module = importlib.import_module(f"genkit.commands.{given[0].replace('-', '_')}")
    return module.run(given[1:])


def _explain(error: Exception) -> tuple[str, int]:
    """(sentence, exit code) of an error that a person can do something about; "" for a bug."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        place = f" at {error.filename}" if error.filename else ""
        return f"the disk is full{place}; free some space and continue with --resume", 1
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}", 2
    if isinstance(error, OSError) and error.errno is None:
        return _one_line(error), 1
    if isinstance(error, ValueError):
        return _one_line(error), 2
    if isinstance(error, RuntimeError):
        from genkit.training.health import Collapse

        return (_one_line(error), 1) if isinstance(error, Collapse) else ("", 1)
    return "", 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _say(sentence: str, code: int) -> int:
    print(f"genkit: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
