"""Checkpoints: folders of safetensors and one state.json, written aside, synced and renamed.

A kill at any moment leaves the last whole checkpoint as it was. state.json holds every file's size
and SHA-256, so a damaged checkpoint is known before anything is read from it; the one before it is
used, and that is said.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

FORMAT = 1


class Damaged(ValueError):
    """A checkpoint folder that is not whole."""


def is_full(error: BaseException) -> bool:
    """Whether a write failed because the disk is full (or its quota used up)."""
    # safetensors reports it as its own error, whose text ends in the operating system's number.
    full = (errno.ENOSPC, errno.EDQUOT)
    return (isinstance(error, OSError) and error.errno in full) or any(
        f"(os error {number})" in str(error) for number in full
    )


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fingerprint(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}


def write_text(file: Path, text: str) -> None:
    """Write a small file whole: aside, synced, renamed."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(text)
    _sync(aside)
    os.replace(aside, file)
    _sync(file.parent)


def write_folder(
    folder: Path, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    """Write {"<group>.safetensors": tensors} and state.json as `folder`, all or nothing."""
    from safetensors.torch import save_file

    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        files = {}
        for group, tensors in groups.items():
            file = aside / f"{group}.safetensors"
            save_file(
                {key: each.detach().cpu().contiguous() for key, each in tensors.items()}, file
            )
            _sync(file)
            files[file.name] = _fingerprint(file)
        whole = {"format": FORMAT, **state, "files": files}
        (aside / "state.json").write_text(json.dumps(whole, indent=1))
        _sync(aside / "state.json")
        _sync(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(aside, folder)
        shutil.rmtree(old)
    else:
        os.replace(aside, folder)
    _sync(folder.parent)


def read_folder(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """What `write_folder` wrote; Damaged if it is not whole, ValueError if it is newer than us."""
    from safetensors.torch import load_file

    try:
        state = json.loads((folder / "state.json").read_text())
        files = state["files"]
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"{folder}: state.json cannot be read ({error})") from error
    if state["format"] > FORMAT:
        raise ValueError(f"{folder} was written by a newer genkit; update genkit to go on with it")
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise Damaged(f"{folder}: {name} is missing")
        if file.stat().st_size != expected["bytes"]:
            raise Damaged(f"{folder}: {name} is cut short")
        if _fingerprint(file) != expected:
            raise Damaged(f"{folder}: {name} is not what was written")
    return {Path(name).stem: load_file(folder / name) for name in files}, state


class Checkpoints:
    """The checkpoints of one run: the last `keep`, the best students they name, extra weights.

    step-*: whole states. best-*: delivered weights of the best student. weights/step-*: weights,
    not averaged, of the student at the last `keep_weights` checkpoints. collapsed: the state a
    collapse was seen in.
    """

    def __init__(self, folder: Path, keep: int = 2, keep_weights: int = 0) -> None:
        self.folder, self.keep, self.keep_weights = folder, keep, keep_weights

    def steps(self) -> list[int]:
        """The steps of the whole states there are, ascending."""
        return sorted(int(each.name.removeprefix("step-")) for each in self.folder.glob("step-*"))

    def path(self, kind: str, step: int) -> Path:
        """Where the checkpoint of a kind ("step", "best") and step lies."""
        return self.folder / f"{kind}-{step:08d}"

    def save(
        self, step: int, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        """Write the state of `step`, then drop what is older than the last `keep`."""
        write_folder(self.path("step", step), groups, state)
        # A step above this one is a damaged checkpoint that resuming went back behind.
        kept = [other for other in self.steps() if other <= step][-self.keep :]
        for other in self.steps():
            if other not in kept:
                shutil.rmtree(self.path("step", other))
        self._drop_best()

    def _drop_best(self) -> None:
        named = {self._best_of(step) for step in self.steps()}
        for each in self.folder.glob("best-*"):
            if int(each.name.removeprefix("best-")) not in named:
                shutil.rmtree(each)

    def _best_of(self, step: int) -> int | None:
        try:
            best = json.loads((self.path("step", step) / "state.json").read_text())["best"]
        except (OSError, ValueError):
            # Damaged since it was written: `load` will say so, should it ever be needed.
            return None
        return None if best is None else best["step"]

    def load(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], list[str]] | None:
        """(tensors, state, what was found damaged on the way) of the newest whole state; None if
        there never was one. ValueError if all there are are damaged."""
        damage: list[str] = []
        for step in reversed(self.steps()):
            try:
                return *read_folder(self.path("step", step)), damage
            except Damaged as error:
                damage.append(str(error))
        if damage:
            raise ValueError(
                f"no checkpoint of this run is whole ({'; '.join(damage)}); start anew in another "
                "folder"
            )
        return None

    def save_best(self, step: int, tensors: Mapping[str, Tensor], distance: float) -> None:
        """Write the best student's weights; older ones go when no state names them any more."""
        write_folder(
            self.path("best", step), {"weights": tensors}, {"step": step, "distance": distance}
        )

    def save_collapsed(
        self, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        """Write the state a collapse was seen in; no resume reads it."""
        write_folder(self.folder / "collapsed", groups, state)

    def load_best(self, step: int) -> dict[str, Tensor]:
        """The weights of `save_best`."""
        return read_folder(self.path("best", step))[0]["weights"]

    def save_weights(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the student's weights of the last `keep_weights` checkpoints."""
        if not self.keep_weights:
            return
        home = self.folder / "weights"
        write_folder(home / f"step-{step:08d}", {"weights": tensors}, {"step": step})
        for each in sorted(home.glob("step-*"))[: -self.keep_weights]:
            shutil.rmtree(each)

    def kept_weights(self) -> dict[int, dict[str, Tensor]]:
        """{step: weights} of `save_weights`, ascending; Damaged for one that is not whole."""
        homes = sorted((self.folder / "weights").glob("step-*"))
        return {int(each.name[5:]): read_folder(each)[0]["weights"] for each in homes}
