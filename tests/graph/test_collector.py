"""The garbage collector is paused while much is made, and is what it was afterwards."""

import gc

import pytest

from graphwd.graph import collector, equivalence, pairing
from tests.support.serialized import chain


@pytest.fixture(autouse=True)
def enabled():
    """Whatever a test leaves, the collector is on again."""
    gc.enable()
    yield
    gc.enable()


def test_it_is_paused_within_and_on_again_after_an_error():
    def twice():
        with collector.paused():
            with collector.paused():
                assert not gc.isenabled()
            assert not gc.isenabled(), "the outer pause goes on"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        twice()
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off():
    gc.disable()
    with collector.paused():
        pass
    assert not gc.isenabled()


def test_a_comparison_is_made_while_it_is_paused(monkeypatch):
    seen = []
    made = pairing.Pair.__init__

    def watched(*arguments, **keywords):
        seen.append(gc.isenabled())
        made(*arguments, **keywords)

    monkeypatch.setattr(pairing.Pair, "__init__", watched)
    assert equivalence.compare(chain(3, "d"), chain(3, "d")).ok
    assert seen
    assert not any(seen)
    assert gc.isenabled()
