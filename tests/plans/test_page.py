"""The HTML report: what it says is the plan's, it asks no network, and a browser shows it."""

import dataclasses
import html
import html.parser
import json
import re
import struct
import zlib

import keras
import numpy as np
import pytest
from keras import layers, regularizers

import graphwd
from graphwd.plans import page
from graphwd.plans.drawing import common_name
from tests.support.browser import BROWSER, browse, make_picture, screenshot
from tests.support.layers import Composite
from tests.support.processes import run
from tests.support.sample_models import sample_models

SAMPLES = sample_models()
POLICY = graphwd.Policy(
    [
        graphwd.Rule(regularizers.L2(1e-4), roles=["kernel", "depthwise", "scale"]),
        graphwd.Rule(regularizers.L1(1e-5), roles="bias"),
    ]
)
NASTY = "a'b\"&<script>alert(1)</script>"


def rich_model():
    """A model with every kind of slot: frozen, carried, unreached, with and without penalty."""
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="deep")], name="encoder")
    inputs = keras.Input((4,), name="features")
    x = encoder(inputs)
    y = layers.Dense(4, activation="relu", name="left", kernel_regularizer="l2")(x)
    x = layers.Add(name="join")([x, y])
    x = layers.BatchNormalization(name="norm")(x)
    x = Composite(name="own")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x), name="rich")
    model.get_layer("left").trainable = False
    return model


class Reader(html.parser.HTMLParser):
    """Collects what a page refers to, its ids, and whether its tags match."""

    VOID = ("meta", "link", "br", "rect", "path")

    def __init__(self, text):
        super().__init__()
        self.references, self.ids, self.open, self.text = [], [], [], []
        self.tags = set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for key, value in attributes:
            if key in ("href", "src", "srcset", "data", "action", "xlink:href", "poster"):
                self.references.append(value)
            if key == "id":
                self.ids.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def saved(plan, path, **options):
    plan.save_html(path, **options)
    return path.read_text("utf-8")


def assert_offline(text):
    reader = Reader(text)
    assert all(reference.startswith(("#", "data:")) for reference in reader.references)
    assert "script" not in reader.tags
    assert not re.search(r"url\(|@import|https?:", text)
    assert {r[1:] for r in reader.references if r[0] == "#"} <= set(reader.ids)
    assert len(set(reader.ids)) == len(reader.ids)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_has_a_page_without_references(name, tmp_path):
    model = SAMPLES[name]()
    for plan in (graphwd.plan(model, regularizers.L2(1e-4)), graphwd.inspect(model)):
        text = saved(plan, tmp_path / "page.html")
        assert_offline(text)
        for edit in plan.slots:
            assert html.escape(edit.path) in text


def test_page_tells_what_each_slot_gets(tmp_path):
    model = rich_model()
    plan = graphwd.plan(model, POLICY)
    text = saved(plan, tmp_path / "page.html")
    assert_offline(text)
    for word in ("dormant: frozen", "carried: by graphwd", "unreached: no config", "rule 1: L2"):
        assert word in text
    rows = dict(re.findall(r'id="slot-\d+"><td><span class="swatch ([^"]*)"></span>([^<]*)', text))
    marks = {path: mark for mark, path in rows.items()}
    assert marks["left/kernel"] == "p0 dormant"
    assert marks["own/inner/kernel"] == "p0 carried"
    assert marks["own/shift"] == "unreached"
    assert "Within encoder" in text
    assert "L2(0.01)" in text  # what left/kernel has now
    boxes = dict(re.findall(r'class="box ([^"]*)" .*?<title>([^<,\n]*)', text.replace("\n", " ")))
    assert {"p0 dormant", "p0 carried"} <= set(boxes)


def test_penalties_are_those_of_the_weights():
    model = rich_model()
    plan = graphwd.plan(model, POLICY)
    measured = plan.measured().slots
    values = {e.path: (e.penalty, e.planned_penalty) for e in measured if e.penalised}
    assert None not in {number for pair in values.values() for number in pair}
    left = np.sum(model.get_layer("left").get_weights()[0] ** 2)
    now, planned = values["left/kernel"]
    assert now == pytest.approx(0.01 * left, rel=1e-5)
    assert planned == pytest.approx(1e-4 * left, rel=1e-5)
    own = model.get_layer("own").inner.get_weights()[0]
    assert values["own/inner/kernel"] == pytest.approx((0, 1e-4 * np.sum(own**2)), rel=1e-5)
    total = sum(planned for _, planned in values.values())
    rewritten = graphwd.rewrite(model, POLICY)
    rewritten.get_layer("left").trainable = True
    assert total == pytest.approx(float(sum(rewritten.losses)), rel=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_models_page_needs_no_keras(suffix, tmp_path):
    model = SAMPLES["nested_backbone"]()
    model.save(tmp_path / f"model{suffix}")
    POLICY.save(tmp_path / "policy.json")
    code = (
        "import sys, graphwd\n"
        "model, policy, target = sys.argv[1:]\n"
        "graphwd.plan(model, graphwd.Policy.load(policy)).save_html(target)\n"
        "assert not {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)\n"
    )
    arguments = [tmp_path / n for n in (f"model{suffix}", "policy.json", "page.html")]
    run(code, *arguments)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert_offline(text)
    assert "Within backbone" in text
    assert "Parameters by layer" in text
    head = model.get_layer("head").count_params()
    assert re.search(rf'aria-label="head: {head:,} \(', text)


def test_names_are_escaped(tmp_path):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(2, name="plain")(inputs), name="model")
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    text = json.dumps(serialized).replace("plain", json.dumps(NASTY)[1:-1])
    serialized = json.loads(text)
    from graphwd.graph.slots import find_slots
    from graphwd.plans.plan import make_plan

    plan = make_plan(find_slots(serialized), POLICY, source=NASTY, serialized=serialized)
    page.save_html(dataclasses.replace(plan, sizes={NASTY: 4}), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert_offline(text)
    assert NASTY not in text
    assert html.escape(NASTY).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text


def test_a_damaged_graph_is_a_note_and_the_rest_a_page(tmp_path):
    model = rich_model()
    plan = graphwd.plan(model, POLICY)
    broken = json.loads(json.dumps(plan.serialized))
    broken["config"]["layers"][-1]["inbound_nodes"][0]["args"][0]["config"]["keras_history"][0] = (
        "x"
    )
    text = page.render(dataclasses.replace(plan, serialized=broken))
    assert_offline(text)
    assert "The graph can&#39;t be drawn" in text


def test_a_failed_page_leaves_the_target_as_it_was(tmp_path, monkeypatch):
    target = tmp_path / "page.html"
    target.write_text("before")
    plan = graphwd.plan(rich_model(), POLICY)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(graphwd.ArchiveError, match="full; what was there is unchanged"):
        plan.save_html(target)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_plan_stays_a_value():
    model = SAMPLES["siamese"]()
    one, two = graphwd.plan(model, POLICY), graphwd.plan(model, POLICY)
    assert one == two
    assert "serialized" not in repr(one)


def pixels(path):
    """The rows of an 8-bit PNG, as tuples of its first three channels at every 8th pixel."""
    data, place, chunks = path.read_bytes(), 8, {}
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        chunks.setdefault(kind, b"")
        chunks[kind] += data[place + 8 : place + 8 + length]
        place += length + 12
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    size = {2: 3, 6: 4}[colour]
    assert depth == 8
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    rows, above = [], np.zeros(width * size, np.int64)
    for kind, *line in raw.tolist():
        row = line
        for i in range(len(row)):
            a = row[i - size] if i >= size else 0
            b = int(above[i])
            c = int(above[i - size]) if i >= size else 0
            p = a + b - c
            near = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row[i] = (row[i] + (0, a, b, (a + b) // 2, near)[kind]) & 255
        above = row
        rows.append([tuple(row[i : i + 3]) for i in range(0, len(row), size * 8)])
    return rows


needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt install chromium")


@needs_browser
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("dark", [True, False])
def test_a_browser_shows_it_in_both_themes_and_any_width(width, dark, tmp_path):
    target = tmp_path / "page.html"
    graphwd.plan(rich_model(), POLICY).save_html(target)
    shot = tmp_path / "shot.png"
    done = screenshot(
        target,
        shot,
        (width, 480),
        dark,
        f"--log-net-log={tmp_path / 'net.json'}",
        "--enable-logging=stderr",
    )
    assert "CONSOLE" not in done.stderr  # such as a violation of the page's own policy
    colours = [colour for row in pixels(shot) for colour in row]
    assert len(pixels(shot)[0]) == -(-width // 8)
    ground = max(set(colours), key=colours.count)
    assert (max(ground) < 80) == dark
    assert len(set(colours)) > 20
    assert not requests(tmp_path / "net.json")


def requests(log):
    """The addresses that a page asked for, by the browser's own record."""
    asked = [event.get("params", {}) for event in json.loads(log.read_text("utf-8"))["events"]]
    return {
        one["url"]
        for one in asked
        if "url" in one and one.get("initiator", "not an origin") != "not an origin"
    }


@needs_browser
def test_the_browsers_record_would_tell_of_a_request(tmp_path):
    (tmp_path / "page.html").write_text('<img src="http://example.test/a.png">')
    log = tmp_path / "net.json"
    browse(f"--log-net-log={log}", "--dump-dom", (tmp_path / "page.html").as_uri())
    assert requests(log) == {"http://example.test/a.png"}


def shown(text, width, folder):
    """What a script measures in a page: its width, how many boxes lead on, and cut-off texts."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)  # so that a script can measure
    outer = (
        f'<body style="margin:0"><iframe style="border:0;width:{width}px;height:600px" '
        f'srcdoc="{html.escape(text)}"></iframe><script>const frame = document.querySelector('
        '"iframe"); frame.onload = () => {const root = frame.contentDocument.documentElement; '
        "root.querySelectorAll('details').forEach(d => d.open = true); document.title = "
        "`${root.scrollWidth} ${root.querySelectorAll('svg.picture a').length}`;}</script>"
    )
    (folder / "outer.html").write_text(outer, "utf-8")
    address = (folder / "outer.html").as_uri()
    done = browse("--window-size=1500,900", "--virtual-time-budget=4000", "--dump-dom", address)
    found = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    return int(found[1]), int(found[2])


def deep_model():
    """Blocks within blocks, with names that are longer than a narrow window."""
    x = inputs = keras.Input((4,))
    for number in range(4):
        inner = keras.Input((4,))
        y = layers.Dense(4, name="feedforward_intermediate_dense_projection_layer")(inner)
        y = layers.Add()([layers.Dense(4, name="feedforward_output_dense_projection")(y), inner])
        x = keras.Model(inner, y, name=f"transformer_encoder_block_number_{number}")(x)
    encoder = keras.Model(inputs, x, name="encoder_of_the_whole_model")
    return keras.Sequential([keras.Input((4,)), encoder, layers.Dense(2)])


@needs_browser
@pytest.mark.parametrize("width", [320, 390, 1400])
@pytest.mark.parametrize("make", [SAMPLES["multi_input_dict"], rich_model, deep_model])
def test_the_page_is_never_wider_than_the_window(width, make, tmp_path):
    across, boxes = shown(page.render(graphwd.plan(make(), POLICY)), width, tmp_path)
    assert across <= width
    assert boxes > 3


def seen(text, width, folder, selector):
    """Whether what a selector finds is shown in a window of a width."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)  # so that a script can look
    outer = (
        f'<body style="margin:0"><iframe style="border:0;width:{width}px;height:600px" '
        f'srcdoc="{html.escape(text)}"></iframe><script>const frame = document.querySelector('
        '"iframe"); frame.onload = () => {const found = frame.contentDocument.querySelector('
        f"'{selector}'); document.title = 'seen ' + (found !== null && found.offsetWidth > 0);}}"
        "</script>"
    )
    (folder / "outer.html").write_text(outer, "utf-8")
    address = (folder / "outer.html").as_uri()
    done = browse("--window-size=1500,900", "--virtual-time-budget=4000", "--dump-dom", address)
    return re.search(r"<title>seen (\w+)</title>", done.stdout)[1] == "true"


@needs_browser
def test_a_hint_names_only_what_is_there(tmp_path):
    x = inputs = keras.Input((4,))
    for number in range(30):
        x = layers.Dense(4 + number % 5, name=f"layer{chr(97 + number % 26)}{number}")(x)
    text = page.render(graphwd.plan(keras.Model(inputs, x), POLICY))
    assert seen(text, 1400, tmp_path, ".next-column")
    assert not seen(text, 390, tmp_path, ".next-column")
    single = page.render(
        graphwd.plan(keras.Sequential([keras.Input((4,)), layers.Dense(2)]), POLICY)
    )
    assert "next column" not in single
    # Without a screen the browser has no mouse either, as a phone.
    assert seen(text, 390, tmp_path, ".touched")
    assert not seen(text, 390, tmp_path, ".pointed")


def test_no_box_is_called_by_a_star():
    names = [["add", "normal_add_1"], ["a", "b"], ["conv_1", "conv_2"], ["block", "block_2"]]
    assert [common_name(each) for each in names] == [
        "add, \N{HORIZONTAL ELLIPSIS}",
        "a, \N{HORIZONTAL ELLIPSIS}",
        "conv_*",
        "block*",
    ]


@needs_browser
def test_the_readmes_picture_can_be_made_again(tmp_path):
    make_picture(tmp_path / "picture.png")
    assert len(pixels(tmp_path / "picture.png")) > 500


def test_the_page_of_what_is_penalised_now_has_what_the_optimizer_decays():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.AdamW(weight_decay=0.004), "mse")
    plan = graphwd.inspect(model)
    (table,) = plan.tables()[-1:]
    assert table.title in page.render(plan)
