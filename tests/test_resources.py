"""Run files and graphs are found by path, in a checkout, and in an installed package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from consensus import resources
from consensus.errors import ConfigError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the installed package, with one file in the wheel's place."""
    root = tmp_path / "root" / "consensus"
    write(root / "_files" / "launch" / "digits.toml", "from the wheel")
    write(root / "_files" / "launch" / "README.md", "not a run file")
    monkeypatch.setattr(resources, "_PACKAGE", root)
    monkeypatch.chdir(tmp_path)
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_name_is_found_in_the_wheel(package: Path) -> None:
    assert resources.find("launch", "digits").read_text() == "from the wheel"
    assert resources.find("launch", "digits.toml") == resources.find("launch", "digits")
    assert resources.names("launch") == ["digits"]


def test_checkout_comes_before_the_wheel(package: Path) -> None:
    write(package.parent / "pyproject.toml", "")
    mine = write(package.parent / "launch" / "digits.toml", "from the checkout")
    write(package.parent / "launch" / "mnist.toml", "")
    assert resources.find("launch", "digits") == mine
    assert resources.names("launch") == ["digits", "mnist"]


def test_folder_beside_an_installed_package_is_not_ours(package: Path) -> None:
    write(package.parent / "launch" / "digits.toml", "a stranger's")
    assert resources.find("launch", "digits").read_text() == "from the wheel"


def test_existing_path_comes_first(package: Path) -> None:
    write(Path("digits"), "mine")
    assert resources.find("launch", "digits") == Path("digits")
    graph = write(Path("graphs/other.txt"), "0 1")
    assert resources.find("topologies", str(graph)) == graph


def test_folder_of_the_same_name_is_not_a_file(package: Path) -> None:
    Path("digits").mkdir()
    assert resources.find("launch", "digits").read_text() == "from the wheel"


@pytest.mark.parametrize("name", ["digts", "digts.toml", "runs/digts.toml"])
def test_misspelt_name_gets_the_list_and_the_nearest(package: Path, name: str) -> None:
    write(package / "_files" / "launch" / "mnist.toml", "")
    with pytest.raises(ConfigError) as caught:
        resources.find("launch", name)
    assert str(caught.value) == (
        f"no file and no launch name {name!r}; give a path, or a name: did you mean 'digits'? Known: digits, mnist"
    )


def test_no_names_at_all_says_so(package: Path) -> None:
    with pytest.raises(ConfigError, match="none came with this installation"):
        resources.find("topologies", "ring")


def test_name_cannot_leave_the_folder(package: Path) -> None:
    write(package / "_files" / "secret.toml", "")
    with pytest.raises(ConfigError, match="no launch name '../secret'"):
        resources.find("launch", "../secret")


@pytest.mark.parametrize("ask", [lambda: resources.names("topology"), lambda: resources.find("topology", "ring")])
def test_unknown_kind(ask: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'topologies'"):
        ask()


@pytest.mark.parametrize("kind", ["launch", "topologies"])
def test_names_of_this_checkout_are_all_found(kind: str) -> None:
    known = resources.names(kind)
    assert known
    for name in known:
        assert resources.find(kind, name).stem == name


def test_a_file_of_another_kind_is_found_by_its_whole_name(package: Path) -> None:
    assert resources.shipped("launch", "README.md").read_text() == "not a run file"
    with pytest.raises(ConfigError, match=r"slurm.sbatch did not come with this installation, expected it at .*_files/launch"):
        resources.shipped("launch", "slurm.sbatch")
