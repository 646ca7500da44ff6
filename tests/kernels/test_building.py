"""Tests of kernels/genkit_kernels/building.py."""

import subprocess

import pytest

from genkit_kernels import building


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A library that is not there yet, in a folder of the test's own."""
    monkeypatch.setenv("GENKIT_KERNELS_CACHE", str(tmp_path))
    building.library.cache_clear()
    yield tmp_path
    building.library.cache_clear()


def test_no_compiler_is_one_sentence(fresh, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    found, why = building.library()
    assert found is None and "\n" not in why
    assert not list(fresh.iterdir())


def test_a_compiler_that_fails_is_one_sentence(fresh, monkeypatch):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="note\nx.h:1: error: bad\nmore")

    monkeypatch.setattr(building, "find_compiler", lambda: "c++")
    monkeypatch.setattr(building.sys, "platform", "linux")
    monkeypatch.setattr(building.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(building.subprocess, "run", fail)
    assert building.library() == (
        None,
        "the compiled kernel could not be built or opened: x.h:1: error: bad",
    )
    assert not list(fresh.iterdir())


def test_other_machines_are_refused(fresh, monkeypatch):
    monkeypatch.setattr(building.platform, "machine", lambda: "arm64")
    assert "x86-64" in building.library()[1]


def test_the_key_follows_sources_and_flags(monkeypatch, tmp_path):
    (tmp_path / "a.h").write_text("int a;")
    monkeypatch.setattr(building, "SOURCES", tmp_path)
    monkeypatch.setattr(building, "cpuinfo", lambda: ["flags: avx2"])
    first = building.key("c++")
    assert building.key("c++") == first != building.key("g++")
    monkeypatch.setenv("GENKIT_KERNELS_FLAGS", "-DX=1")
    assert building.key("c++") != first
    monkeypatch.delenv("GENKIT_KERNELS_FLAGS")
    (tmp_path / "a.h").write_text("int b;")
    assert building.key("c++") != first


def test_a_built_library_is_not_built_again(monkeypatch):
    found, why = building.library()
    if found is None:
        pytest.skip(f"the compiled kernel cannot run here: {why}")
    monkeypatch.setattr(building.subprocess, "run", None)
    building.library.cache_clear()
    assert building.library()[0] is not None
