"""What is made once is made whole, and once."""

import threading
from pathlib import Path

import pytest

from lab import cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARVE_LAB_CACHE", str(tmp_path / "cache"))


def test_an_interrupted_build_leaves_nothing_that_looks_finished() -> None:
    def interrupted(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.once("thing", "1", interrupted)
    assert [path.name for path in cache.cache_directory().iterdir()] == ["thing.lock"]

    def whole(directory: Path) -> None:
        assert not any(directory.iterdir())
        (directory / "all").write_text("all")

    assert (cache.once("thing", "1", whole) / "all").read_text() == "all"


def test_two_at_once_make_it_once() -> None:
    made: list[int] = []
    barrier = threading.Barrier(4)

    def make(directory: Path) -> None:
        made.append(1)
        (directory / "x").touch()

    def user() -> None:
        barrier.wait()
        assert (cache.once("thing", "1", make) / "x").exists()

    threads = [threading.Thread(target=user) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_another_key_is_another_thing() -> None:
    one = cache.once("thing", "1", lambda directory: (directory / "x").touch())
    other = cache.once("thing", "2", lambda directory: (directory / "y").touch())
    assert one != other
    assert (other / "y").exists()
