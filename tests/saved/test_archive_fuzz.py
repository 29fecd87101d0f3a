"""Hostile files by the thousand: whatever the bytes are, an ArchiveError or a correct result."""

import json
import warnings
import zipfile

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from graphwd.errors import ArchiveError, PolicyError
from graphwd.plans.plan import UnmatchedRuleWarning
from graphwd.saved.archive import Archive
from graphwd.saved.rewriting import rewrite_file
from tests.support.processes import run
from tests.support.saved_models import POLICY, model_config, write_h5, write_keras

MORE = settings(
    max_examples=max(300, settings().max_examples),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def attempt(source, target):
    """Rewrites a file of any content; what is written must be the source plus the edits."""
    target.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnmatchedRuleWarning)
        try:
            plan = rewrite_file(source, target, POLICY)
        except (ArchiveError, PolicyError) as error:
            message = str(error)
        else:
            message = ""
    if message:
        assert "\n" not in message
        assert len(message) < 1500
        assert not target.exists()
        return None
    assert not list(source.parent.glob(".graphwd*"))
    with Archive(target) as written:
        assert {edit.path for edit in plan} <= {slot.path for slot in written.slots()}
    return plan


@st.composite
def mutations(draw, data):
    """The bytes of a file with a few of them changed, cut out, repeated or moved."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        if draw(st.booleans()):  # the index at the end has most of what can go wrong
            place = max(0, len(data) - 1 - draw(st.integers(0, 400)))
        length = draw(st.integers(1, 40))
        action = draw(st.sampled_from(["byte", "number", "cut", "repeat", "insert", "end"]))
        if action == "byte":
            data[place] = draw(st.integers(0, 255))
        elif action == "number":
            value = draw(st.sampled_from([0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 31]))
            size = min(4, len(data) - place)
            data[place : place + size] = value.to_bytes(4, "little")[:size]
        elif action == "cut":
            del data[place : place + length]
        elif action == "repeat":
            data[place:place] = data[place : place + length]
        elif action == "insert":
            data[place:place] = draw(st.binary(max_size=40))
        else:
            del data[place:]
    return bytes(data)


def seeds(folder):
    names = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = write_keras(
            folder / f"seed_{method}.keras", method=method, more=[("assets/x", b"x")]
        )
        names.append(path.read_bytes())
    with zipfile.ZipFile(folder / "wide.keras", "w") as made:
        for name, content in [
            ("config.json", json.dumps(model_config()).encode()),
            ("model.weights.h5", b""),
        ]:
            with made.open(name, "w", force_zip64=True) as member:
                member.write(content)
    names.append((folder / "wide.keras").read_bytes())
    return names


@MORE
@given(data=st.data())
def test_mutated_zip_files(folder, data):
    seed = data.draw(st.sampled_from(seeds(folder)).flatmap(mutations))
    source = folder / "mutated.keras"
    source.write_bytes(seed)
    attempt(source, folder / "target.keras")


@MORE
@given(st.binary(max_size=200))
def test_any_bytes(folder, content):
    source = folder / "any.keras"
    for start in (b"", b"PK\3\4", b"\x89HDF\r\n\x1a\n"):
        source.write_bytes(start + content)
        assert attempt(source, folder / "target.keras") is None


KEYS = st.sampled_from(
    [
        "class_name", "config", "module", "registered_name", "name", "layers", "layer", "cell",
        "kernel_regularizer", "bias_regularizer", "activity_regularizer", "_regularizer",
        "use_bias", "scale", "trainable", "dtype", "shared_object_id", "backward_layer",
        "forward_layer", "graphwd", "penalties", "names", "role", "shape", "regularizer",
        "inbound_nodes", "input_layers", "compile_config",
    ]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["Dense", "Bidirectional", "Functional", "Sequential", "L2", "keras", "one"]),
    st.text(max_size=5),
)
REGULARIZERS = st.fixed_dictionaries(
    {"class_name": st.just("L2") | LEAVES, "config": st.fixed_dictionaries({"l2": LEAVES}) | LEAVES}
)


def objects(children):
    return st.one_of(
        st.lists(children, max_size=4),
        st.dictionaries(KEYS | st.text(max_size=3), children, max_size=5),
        st.fixed_dictionaries(
            {
                "class_name": st.sampled_from(["Dense", "Bidirectional", "Sequential", "My>Own"]),
                "config": st.dictionaries(KEYS, children | REGULARIZERS, max_size=5),
            }
        ),
    )


JSON = st.recursive(LEAVES | REGULARIZERS, objects, max_leaves=30)
MODELS = st.fixed_dictionaries(
    {
        "class_name": st.sampled_from(["Functional", "Sequential", "Own", ""]),
        "config": st.fixed_dictionaries({"layers": st.lists(JSON, max_size=4) | JSON})
        | st.dictionaries(KEYS, JSON, max_size=5),
    }
)


LONE_LAYER = {
    "class_name": "Dense",
    "config": {"layers": {"class_name": "Dense", "config": {"kernel_regularizer": None}}},
}


@MORE
@given(JSON | MODELS)
@example(LONE_LAYER)  # where a list is usual
def test_any_json(folder, config):
    source = write_keras(folder / "json.keras", text=json.dumps(config))
    attempt(source, folder / "target.keras")


@MORE
@given(MODELS)
def test_any_serialized_model_in_h5(folder, config):
    source = write_h5(folder / "json.h5", config)
    attempt(source, folder / "target.h5")


@MORE
@given(mutations(json.dumps(model_config()).encode()))
def test_mutated_json(folder, text):
    attempt(write_keras(folder / "text.keras", text=text), folder / "target.keras")


# HDF5 is a library in C that has crashed on damaged files before: in a process of its own.
HDF5 = """
    import random, sys, warnings
    from pathlib import Path
    from graphwd.saved.rewriting import rewrite_file
    from graphwd.errors import ArchiveError
    from tests.support.saved_models import (
        POLICY, compare_weights, weights_bytes, write_h5, write_keras
    )
    warnings.simplefilter("ignore")
    folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    whole = write_h5(folder / "whole.h5").read_bytes()
    weights = weights_bytes()
    keras = write_keras(folder / "whole.keras")
    random = random.Random(seed)
    results = {"written": 0, "refused": 0, "compared": 0}

    def mutated(data):
        data = bytearray(data)
        marks = [data.find(mark) for mark in (b"GCOL", b"OHDR", b"TREE", b"SNOD", b"HEAP")]
        for _ in range(random.randint(1, 8)):
            base = random.choice([0, *(mark for mark in marks if mark >= 0)])
            place = base + random.randrange(random.choice([48, 96, 2000, len(data)]))
            size = random.choice([1, 1, 2, 8])
            value = random.choice([0, 0, 1, 255, 2**31, 2**32 - 1, random.randrange(256)])
            if place + size <= len(data):
                data[place : place + size] = value.to_bytes(8, "little")[:size]
        if random.random() < 0.1:
            del data[random.randrange(len(data)) :]
        return bytes(data)

    for number in range(count):
        source = folder / "a.h5"
        source.write_bytes(mutated(whole))
        try:
            rewrite_file(source, folder / "b.h5", POLICY, overwrite=True)
            results["written"] += 1
        except ArchiveError as error:
            assert "\\n" not in str(error), error
            results["refused"] += 1
        try:
            other = write_keras(folder / "other.keras", weights=mutated(weights))
            compare_weights(keras, other)
            results["compared"] += 1
        except ArchiveError as error:
            assert "\\n" not in str(error), error
    print(results)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_hdf5_files(tmp_path, seed):
    assert "refused" in run(HDF5, tmp_path, seed, 150)
