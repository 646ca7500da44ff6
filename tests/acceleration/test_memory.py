"""Tests of genkit/acceleration/memory.py."""

import ctypes

import pytest

from genkit.acceleration import memory


def test_freed_memory_is_kept_where_the_library_can():
    glibc = b"glibc" in _name_of_libc()
    assert memory.keep_freed_memory() is glibc


def _name_of_libc() -> bytes:
    try:
        version = ctypes.CDLL(None).gnu_get_libc_version
    except (AttributeError, OSError, TypeError):
        return b""
    version.restype = ctypes.c_char_p
    return b"glibc " + version()


@pytest.mark.parametrize(("system", "library"), [("darwin", None), ("linux", object())])
def test_elsewhere_nothing_is_asked_for(monkeypatch, system, library):
    def opened(name):
        assert system == "linux", "no library is opened on another system"
        return library

    monkeypatch.setattr(memory.sys, "platform", system)
    monkeypatch.setattr(memory.ctypes, "CDLL", opened)
    assert memory.keep_freed_memory() is False
