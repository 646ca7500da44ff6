"""The shape of the tree: how long files are, what they are called, what no file may say.

The rules are the tables at the top. Each checker is a pure function from source text to a list of
complaints, and each has a test with broken twins that it must catch.
"""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FILE_LINES, FUNCTION_LINES = 400, 60
OVERSIZE: dict[str, int] = {}  # "file" or "file:function" -> lines today; may only shrink
FORBIDDEN_NAMES = {"util", "helper", "manager", "wrapper"}  # and their plurals
MODALITIES = re.compile(r"video|audio|speech|music", re.IGNORECASE)
NO_MODALITY = ("genkit/methods", "genkit/training")
PLACES = {
    "a path of one machine": rb"(?<![\w.}/])/(?:work|home|root|opt|mnt|Users|usr/local)/\w",
    "a package registry": rb"pypi\.org|pythonhosted\.|download\.pytorch\.|index[-_]url",
}

FOLDERS = ("genkit", "kernels", "pipelines", "apps", "scripts", "tests")
EVERYTHING = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


def label(path: Path) -> str:
    """The path as people write it."""
    return path.relative_to(ROOT).as_posix()


# ---- Size, docstrings, names ------------------------------------------------------------------


def sizes(source: str, name: str) -> dict[str, int]:
    """Lines of a file and of its functions, the longest where several bear one name."""
    found = {name: len(source.splitlines())}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            part = f"{name}:{node.name}"
            found[part] = max(lines, found.get(part, 0))
    return found


def oversize(source: str, name: str) -> list[str]:
    """What is longer than its limit, or than its own entry in OVERSIZE."""
    return [
        f"{part} has {lines} lines"
        for part, lines in sizes(source, name).items()
        if lines > OVERSIZE.get(part, FUNCTION_LINES if ":" in part else FILE_LINES)
    ]


def test_files_and_functions_are_short():
    bad = [c for path in EVERYTHING for c in oversize(path.read_text(), label(path))]
    assert not bad, "\n".join(bad)


def test_size_exceptions_only_shrink():
    measured = {k: v for p in EVERYTHING for k, v in sizes(p.read_text(), label(p)).items()}
    stale = [part for part, lines in OVERSIZE.items() if measured.get(part, 0) < lines]
    assert not stale, f"shorter now, or gone: lower or drop their entries in OVERSIZE: {stale}"


def test_long_code_is_caught():
    function = "def f():\n" + "    x = 1\n" * (FUNCTION_LINES - 1)
    assert not oversize(function, "a.py")
    assert oversize(function + "    x = 1\n" + "def f(): pass\n", "a.py")
    assert oversize("x = 1\n" * (FILE_LINES + 1), "a.py")


def bad_names(source: str, path: str) -> list[str]:
    """Forbidden words in the file's path and in the classes and functions it defines."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    names = [n.name for n in ast.walk(ast.parse(source)) if isinstance(n, kinds)]
    words = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
    return [
        f"{path}: {name}"
        for name in [path, *names]
        if FORBIDDEN_NAMES & {word.lower().removesuffix("s") for word in words.findall(name)}
    ]


def test_names_say_what_things_are():
    bad = [c for path in EVERYTHING for c in bad_names(path.read_text(), label(path))]
    assert not bad, "\n".join(bad)


def test_empty_names_are_caught():
    assert bad_names("", "genkit/io_utils.py") and bad_names("class RunManager: pass", "a.py")
    assert not bad_names("def wrapped(): pass", "genkit/utility.py")


def test_every_module_says_what_it_is():
    bad = [label(p) for p in EVERYTHING if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not bad, f"no module docstring: {bad}"


# ---- Words and calls that must not appear -----------------------------------------------------


def test_methods_and_training_know_no_modality():
    bad = [
        f"{label(path)}:{number} {line.strip()}"
        for folder in NO_MODALITY
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".json"}
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if MODALITIES.search(line)
    ]
    assert not bad, "\n".join(bad)


def strangers(text: bytes, name: str) -> list[str]:
    """Places of one machine or one network that a file names."""
    return [
        f"{name} names {what}: {found[0].decode(errors='replace')}"
        for what, pattern in PLACES.items()
        if (found := re.search(pattern, text))
    ]


def test_tracked_files_name_no_machine_and_no_registry():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [n for n in listed.stdout.decode().split("\0") if n and (ROOT / n).is_file()]
    assert "pyproject.toml" in names
    bad = [c for name in names for c in strangers((ROOT / name).read_bytes(), name)]
    assert not bad, "\n".join(bad)


def test_a_machine_path_is_caught():
    somewhere = "/".join(["", "home", "someone", "digits"])
    assert strangers(f'path = "{somewhere}"'.encode(), "a.py")
    assert not strangers(b"https://example.invalid/home/page and $root/opt/x", "a.md")
