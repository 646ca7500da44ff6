"""Makes kernel_toys importable, and Triton's interpreter quick enough for tests."""

import importlib
import inspect
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def _patch_once():
    """The interpreter patches its language for every call of a device function, most of its time;
    here once for every launch."""
    if find_spec("triton") is None or os.environ["TRITON_INTERPRET"] == "0":
        yield
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")
    patch, launch, done = interpreter._patch_lang, interpreter.GridExecutor.__call__, set()

    def patch_once(function):
        names = frozenset(k for k, x in function.__globals__.items() if inspect.ismodule(x))
        if names not in done:
            done.add(names)
            return patch(function)

    def launch_anew(self, *args, **kwargs):
        done.clear()
        launch(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(interpreter, "_patch_lang", patch_once)
        patched.setattr(interpreter.GridExecutor, "__call__", launch_anew)
        yield
