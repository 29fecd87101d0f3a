"""Policy files: what is wrong is named, and a file is whole or what it was."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given

from graphwd.errors import PolicyError
from graphwd.policy.policies import Policy, Rule
from tests.support.policies import CUSTOM, L2, policies


@pytest.mark.parametrize("suffix", [".json", ".toml", ".JSON"])
def test_file_round_trip(suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("policies") / f"policy{suffix}"

    @given(policies)
    @example(Policy([]))
    @example(Policy([Rule(None), Rule(CUSTOM, paths="a\r\n\t\"'\\\x00é/*")]))
    def check(policy: Policy) -> None:
        policy.save(path, overwrite=True)
        again = Policy.load(path)
        assert again == policy
        assert hash(again) == hash(policy)
        assert again.to_dict() == policy.to_dict(), "factors survive to the last bit"

    check()
    parse = tomllib.loads if suffix == ".toml" else json.loads
    assert "rules" in parse(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("p.json", b'{"rules": [\n{"l2" 1}]}', ["not JSON", "line 2", "column 7"]),
        ("p.json", b"", ["not JSON", "line 1"]),
        ("p.toml", b"[[rules]]\nl2 = = 1\n", ["not TOML", "line 2"]),
        ("p.toml", b'[[rules]]\nl2 = 1\nroles = "\xff"\n', ["UTF-8", "line 3"]),
        ("p.json", b"\xff\xfe", ["UTF-8", "line 1"]),
        ("p.json", b'{"rules": ' + b"[" * 200_000, ["nested too deep"]),
        ("p.toml", b"rules = " + b"[" * 200_000, ["nested too deep"]),
        ("p.json", b'{"rules": [{"l2": ' + b"9" * 5000 + b"}]}", ["number"]),
        ("p.json", b'{"rules": [{"l2": 1e999}]}', ["Rule 1", "`l2`"]),
        ("p.json", b'{"rules": [{"l2": NaN}]}', ["Rule 1", "`l2`"]),
        ("p.json", b'{"rules": [{"l2": 1, "l2": 2}]}', ["'l2'", "twice"]),
        ("p.toml", b"[[rules]]\nl2 = 1\nl2 = 2\n", ["not TOML", "line 3"]),
        ("p.toml", b"[[rules]]\nl2 = 1\n[[rules]]\nl2 = 2020-01-01\n", ["Rule 2", "`l2`"]),
        ("p.toml", b"l2 = 1\n", ["'l2'"]),
        ("p.json", b"[]", ["a list"]),
        ("p.json", b'{"rules": [{"l2": 1}, {"rols": "kernel"}]}', ["Rule 2", "'roles'"]),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, parts: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    message = str(caught.value)
    for part in [str(path), *parts]:
        assert part in message
    assert message.count("\n") == 0
    assert message.endswith(".")


def test_files_that_can_not_be_read_or_written(tmp_path: Path) -> None:
    policy = Policy([Rule(L2)])
    for path, part in [
        (tmp_path / "none.json", "No such file"),
        (tmp_path / "policy.yaml", ".json or .toml"),
        (tmp_path / "policy", ".json or .toml"),
    ]:
        with pytest.raises(PolicyError) as caught:
            Policy.load(path)
        assert str(path) in str(caught.value)
        assert part in str(caught.value)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(PolicyError, match="can't be read"):
        Policy.load(tmp_path / "folder.json")
    with pytest.raises(PolicyError, match="can't be written"):
        policy.save(tmp_path / "folder.json")
    with pytest.raises(PolicyError, match="can't be written"):
        policy.save(tmp_path / "nowhere" / "policy.json")
    with pytest.raises(PolicyError, match=r"\.json or \.toml"):
        policy.save(tmp_path / "policy.txt")
    with pytest.raises(PolicyError, match="UTF-8"):
        Policy([Rule(L2, paths="\ud800")]).save(tmp_path / "policy.toml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.json"]


def test_none_is_the_same_in_both_kinds_of_file(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"rules": [{"regularizer": "none"}]}')
    (tmp_path / "q.json").write_text('\ufeff{"rules": [{"regularizer": null}]}', "utf-8")
    (tmp_path / "p.toml").write_text('rules = [{regularizer = "none"}]\n')
    loaded = {Policy.load(path) for path in tmp_path.iterdir()}
    assert loaded == {Policy([Rule(None)])}


def test_toml_has_no_null_inside_a_config(tmp_path: Path) -> None:
    policy = Policy([Rule(L2), Rule({"class_name": "X", "config": {"a": [{"b": None}]}})])
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy
    with pytest.raises(PolicyError, match=r"Rule 2.*null.*\.json"):
        policy.save(tmp_path / "policy.toml")
    assert not (tmp_path / "policy.toml").exists()


def test_save_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.json"
    link = tmp_path / "link.json"
    first, second = Policy([Rule(L2)]), Policy([Rule(None)])
    first.save(path)
    path.chmod(0o640)
    link.symlink_to(path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(PolicyError, match="No space left"):
            second.save(path, overwrite=True)
        with pytest.raises(PolicyError, match=r"exists; .*overwrite=True\.$"):
            second.save(path)
    assert Policy.load(path) == first
    assert sorted(os.listdir(tmp_path)) == ["link.json", "policy.json"]

    second.save(link, overwrite=True)
    assert link.is_symlink()
    assert Policy.load(path) == second
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.json", "policy.json"]
