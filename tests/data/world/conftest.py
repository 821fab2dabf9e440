import pytest


@pytest.fixture
def npm_script(tmp_path, monkeypatch):
    """npm_script(text) puts a program of that name, alone, on the path; the cache is a new one."""
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()

    def make(text):
        (tmp_path / "bin" / "npm").write_text("#!/bin/sh\nPATH=/usr/bin:/bin\n" + text)
        (tmp_path / "bin" / "npm").chmod(0o755)

    return make
