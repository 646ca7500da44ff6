"""Who may import whom, what an import loads, and that nothing unpickles.

The rules are the tables at the top. Each checker is a pure function from source text to a list of
complaints, and each has a test with broken twins that it must catch.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "genkit": ROOT,
    "genkit_kernels": ROOT / "kernels",
    "genkit_pipelines": ROOT / "pipelines",
    "genkit_apps": ROOT / "apps",
}

# ---- Who may import whom ----------------------------------------------------------------------
# A row holds for the module it names and all below it, unless a longer row fits. Every module may
# import what its own row covers, and `genkit.__version__`. A module without a row fails: add one.
CORE = {"genkit.rng", "genkit.paths", "genkit.times", "genkit.sampling", "genkit.guidance"}
MATH = (
    CORE
    | {"genkit.terms"}
    | {f"genkit.denoisers.{name}" for name in ("base", "preconditioned", "repathed")}
)
PARTS = {"genkit.schedulers", "genkit.acceleration", "genkit.search", "genkit.networks"}
GLUE = (
    MATH
    | PARTS
    | {"genkit.denoisers", "genkit.methods", "genkit.training", "genkit.data", "genkit.metrics"}
    | {"genkit.hub", "genkit.modalities", "genkit.catalogue", "genkit.settings", "genkit.lora"}
    | {"genkit.latents"}
    | {"genkit_pipelines"}
)
ARROWS: dict[str, set[str]] = {
    "genkit.__init__": {"genkit.api", "genkit.comparison", "genkit.hub"},
    "genkit.rng": set(),
    "genkit.paths": {"genkit.rng"},
    "genkit.times": CORE,
    "genkit.sampling": CORE,
    "genkit.guidance": CORE,
    "genkit.denoisers.base": CORE,
    "genkit.denoisers.preconditioned": CORE | {"genkit.denoisers.base"},
    "genkit.denoisers": MATH,
    # A teacher's folder is opened as any pipeline is; so hub imports no adapter.
    "genkit.denoisers.diffusers": MATH | {"genkit.denoisers", "genkit.hub"},
    "genkit.denoisers.repathed": CORE | {"genkit.denoisers.base"},
    "genkit.terms": CORE | {"genkit.denoisers.base", "genkit.denoisers.repathed"},
    "genkit.networks": MATH | {"genkit_kernels", "genkit.audio", "genkit.harmony"},
    "genkit.schedulers": MATH,
    "genkit.search": MATH | {"genkit.schedulers"},
    "genkit.acceleration": MATH | {"genkit.networks", "genkit_kernels"},
    "genkit.methods": MATH | {"genkit.networks"},
    # Sound, text and harmony as tensors: no network, so anything may read them.
    "genkit.audio": set(),
    "genkit.harmony": set(),
    "genkit.phonemes": set(),
    "genkit.data": CORE | {"genkit.audio", "genkit.harmony", "genkit.phonemes"},
    "genkit.metrics": CORE | {"genkit.data", "genkit.audio", "genkit.harmony"},
    "genkit.training": MATH | {"genkit.methods", "genkit.data", "genkit.metrics"},
    "genkit.cards": set(),
    "genkit.folders": set(),
    "genkit.hub": MATH | PARTS | {"genkit.cards", "genkit.folders"},
    "genkit.catalogue": {"genkit.data", "genkit.hub"},
    "genkit.latents": set(),
    "genkit.lora": {"genkit.methods", "genkit.denoisers.families"},
    "genkit.settings": {"genkit.methods", "genkit.sampling", "genkit.training", "genkit.catalogue"}
    | {"genkit.data"},
    "genkit.modalities": MATH
    | PARTS
    | {"genkit.data", "genkit.denoisers", "genkit.latents", "genkit.metrics", "genkit_pipelines"}
    | {"genkit.audio", "genkit.harmony", "genkit.phonemes"},
    "genkit.runs": GLUE | {"genkit.contenders", "genkit.evaluation"},
    "genkit.contenders": GLUE,
    "genkit.evaluation": GLUE | {"genkit.contenders"},
    "genkit.combination": GLUE
    | {"genkit.runs", "genkit.contenders", "genkit.evaluation", "genkit.api"},
    "genkit.api": GLUE
    | {"genkit.opening", "genkit.runs", "genkit.evaluation", "genkit.acceleration"},
    "genkit.opening": GLUE,
    "genkit.benchmarks": GLUE
    | {"genkit.runs", "genkit.evaluation", "genkit.api", "genkit_kernels"}
    | {"genkit.comparison.budget", "genkit.audio"},
    "genkit.comparison": GLUE
    | {"genkit.runs", "genkit.contenders", "genkit.evaluation", "genkit.api", "genkit.benchmarks"}
    | {"genkit.folders", "genkit.opening"},
    "genkit.cli": set(PACKAGES),
    "genkit.commands": set(PACKAGES),
    "genkit_kernels": set(),
    "genkit_pipelines": MATH
    | PARTS
    | {"genkit.denoisers", "genkit.hub", "genkit.latents", "genkit_kernels"}
    | {"genkit.audio", "genkit.harmony", "genkit.phonemes"},
    "genkit_apps": {"genkit", "genkit_pipelines"},
}
# Packages of others that only some rows may import, again with imports inside functions counted.
THIRD_PARTY: dict[str, set[str]] = {
    "diffusers": {
        "genkit.denoisers.diffusers",
        "genkit.denoisers.families",
        "genkit.schedulers",
        "genkit.networks",
        "genkit.acceleration",
        "genkit.folders",
        "genkit.hub",
        "genkit_pipelines",
    },
    "transformers": {
        "genkit.denoisers.diffusers",
        "genkit.networks",
        "genkit.hub",
        "genkit_pipelines",
    },
    "accelerate": {"genkit.training"},
    "gradio": {"genkit_apps"},
    "tyro": {"genkit.cli", "genkit.commands", "genkit.benchmarks"},
    "triton": {"genkit_kernels"},
}
# Modules whose loading loads none of these packages (checked in a fresh interpreter).
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "gradio"}
LIGHT = ("genkit", "genkit.cli", "genkit.commands.list", "genkit.catalogue", "genkit.hub")

# Packages whose distribution has another name.
DISTRIBUTION = {"sklearn": "scikit-learn", "PIL": "pillow"}
# Ways to run code that came with data.
UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "torch.hub.load"}
UNSAFE_KEYWORDS = {("allow_pickle", True), ("weights_only", False), ("trust_remote_code", True)}

LIBRARY = sorted(p for top, root in PACKAGES.items() for p in (root / top).rglob("*.py"))


def module_name(path: Path) -> str:
    """The dotted name of a library file; a package's own file keeps its `__init__`."""
    root = next(root for top, root in PACKAGES.items() if (root / top) in path.parents)
    return ".".join(path.relative_to(root).with_suffix("").parts)


SOURCES = {module_name(path): path.read_text() for path in LIBRARY}
IMPORTABLE = {name.removesuffix(".__init__") for name in SOURCES}


def covers(row: str, module: str) -> bool:
    """Whether a row's name is the module or an ancestor of it."""
    return module == row or module.startswith(row + ".")


# ---- Imports ----------------------------------------------------------------------------------


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of names, empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def targets(node: ast.AST, module: str) -> Iterator[str]:
    """Absolute dotted targets of one node: `from a import b` gives a.b where b is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = module.split(".")[: -node.level] if node.level else []
        base = ".".join([*above, *filter(None, [node.module])])
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            # the root's names are lazy: `from genkit import Pipeline` really imports genkit.hub
            yield inner if inner in IMPORTABLE or base == "genkit" else base
    elif isinstance(node, ast.Call) and dotted(node.func).endswith("import_module"):
        yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted target) of every import, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        yield from ((node.lineno, target) for target in targets(node, module))


def against_the_arrows(source: str, module: str) -> list[str]:
    """Imports of `source`, taken as `module`, that the tables do not allow."""
    rows = [row for row in ARROWS if covers(row, module)]
    if not rows:
        return [f"{module}: no row in ARROWS says what it may import"]
    row = max(rows, key=len)
    own = ARROWS[row] | {row, "genkit.__version__"}
    bad = []
    for line, target in imports(source, module):
        top = target.partition(".")[0]
        if top in PACKAGES:
            allowed = any(covers(name, target) for name in own)
        else:
            allowed = any(covers(name, module) for name in THIRD_PARTY.get(top, [module]))
        if not allowed:
            bad.append(f"{module}:{line} imports {target}")
    return bad


def test_imports_follow_the_arrows():
    bad = [c for module, source in SOURCES.items() for c in against_the_arrows(source, module)]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("genkit.methods.dmd2", "from genkit.training.trainer import Trainer"),
        ("genkit.methods.dmd2", "def f():\n    import diffusers"),
        ("genkit.methods.dmd2", "from genkit.denoisers.diffusers import load"),
        ("genkit.methods.dmd2", "from ..training import ema"),
        ("genkit.methods.dmd2", "def f():\n    importlib.import_module('accelerate')"),
        ("genkit.training.trainer", "from genkit_pipelines.image import decoder"),
        ("genkit.training.trainer", "from diffusers import DiffusionPipeline"),
        ("genkit.methods.__init__", "from ..training import ema"),
        ("genkit.paths", "from genkit import Pipeline"),
        ("genkit.paths", "import genkit"),
        ("genkit.data.digits", "from genkit.metrics import suite"),
        ("genkit.hub", "from genkit import api"),
        ("genkit.schedulers.euler", "import genkit_kernels"),
        ("genkit_pipelines.image", "import gradio"),
        ("genkit.novelty", "import torch"),
    ],
)
def test_an_import_against_the_arrows_is_caught(module: str, line: str):
    assert against_the_arrows(line, module)


def test_allowed_imports_pass():
    good = (
        "from genkit import __version__\nfrom genkit.methods.base import Method\nimport accelerate"
    )
    assert against_the_arrows(good, "genkit.training.trainer") == []


def test_imported_packages_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    declared = {re.split(r"[^\w-]", line)[0].lower() for line in lines}
    known = declared | set(PACKAGES) | set(sys.stdlib_module_names)
    tops = {
        (target.partition(".")[0], module)
        for module, source in SOURCES.items()
        for _, target in imports(source, module)
    }
    missing = sorted(f"{m} imports {t}" for t, m in tops if DISTRIBUTION.get(t, t) not in known)
    assert not missing, "\n".join(missing)


# ---- What an import loads ---------------------------------------------------------------------


def run(code: str, *options: str, **env: str) -> str:
    """Output of `python -c code` started in the repository root."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=kept | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_nothing_heavy(module: str):
    loaded = run(f"import sys, {module}; print(*sys.modules)").split()
    assert module in loaded
    assert not HEAVY & set(loaded)


def test_kernels_of_others_wins_over_our_folder(tmp_path: Path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text('"""Not ours."""\nWHOSE = "theirs"\n')
    found = run("import kernels; print(kernels.WHOSE)", "-S", PYTHONPATH=str(tmp_path))
    assert found == "theirs"


def test_import_kernels_runs_nothing_of_ours():
    code = "import sys, kernels; print(kernels.__file__, 'genkit_kernels' in sys.modules)"
    assert run(code, "-S") == "None False"


def test_transformers_opens_from_the_root():
    assert run("from transformers import LlamaConfig; print(LlamaConfig.model_type)") == "llama"


@pytest.mark.parametrize("folder", ["kernels", "pipelines", "apps"])
def test_source_roots_are_not_packages(folder: str):
    assert not (ROOT / folder / "__init__.py").exists()


# ---- Unpickling -------------------------------------------------------------------------------


def unsafe(source: str, name: str) -> list[str]:
    """Unpickling, and remote code trusted by a constant."""
    bad = [f"{name}:{n} imports {t}" for n, t in imports(source, name) if t in UNPICKLERS]
    for call in (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)):
        if dotted(call.func) in UNSAFE_CALLS:
            bad.append(f"{name}:{call.lineno} calls {dotted(call.func)}")
        for key in call.keywords:
            if (
                isinstance(key.value, ast.Constant)
                and (key.arg, key.value.value) in UNSAFE_KEYWORDS
            ):
                bad.append(f"{name}:{call.lineno} passes {key.arg}={key.value.value}")
    return bad


def test_nothing_unpickles():
    scripts = {path.name: path.read_text() for path in (ROOT / "scripts").glob("*.py")}
    bad = [c for name, source in (SOURCES | scripts).items() for c in unsafe(source, name)]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from pickle import load", "torch.load(f)", "np.load(f, allow_pickle=True)"],
)
def test_unpickling_is_caught(line: str):
    assert unsafe(line, "a")
