"""A declared class is filled from a mapping that knows its lines, part within part."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sagescale.declare import Located, check, fill, setting
from sagescale.errors import InputError
from sagescale.key_file import read_key_tree


@dataclass(frozen=True, slots=True)
class Wheel:
    """A part that there may be any number of."""

    size_cm: float = setting(60.0, doc="Diameter.", unit="cm", above=0, needed=True)
    name: str = setting("", doc="Where it is.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Cart:
    """A whole with parts."""

    load_kg: int = setting(0, doc="What it carries.", unit="kg", at_least=0)
    spare: Wheel | None = None
    wheels: tuple[Wheel, ...] = ()

    def __post_init__(self) -> None:
        if self.load_kg > 100 and not self.wheels:
            raise InputError(f"load_kg is {self.load_kg}; expected wheels")


@pytest.fixture
def filled(tmp_path):
    def fill_cart(text):
        path = tmp_path / "cart.yaml"
        path.write_text(text)
        return fill(Cart, read_key_tree(path))

    return fill_cart


def test_parts_are_of_their_classes_and_what_is_left_out_or_null_has_its_default(filled):
    assert filled("") == filled("spare: null\n") == Cart()
    assert filled("spare: {size_cm: 50}\nwheels:\n- {size_cm: 70, name: front}\n") == Cart(
        spare=Wheel(50.0), wheels=(Wheel(70.0, "front"),)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("load_kg: 1\nspare:\n  size_cm: 0\n", r"cart.yaml:3: size_cm is 0; expected a number > 0$"),
        (
            "wheels:\n- {size_cm: 1}\n- {name: x}\n",
            r"cart.yaml:3: size_cm is missing; expected a number > 0$",
        ),
        (
            "wheels:\n- {size: 1}\n",
            r"cart.yaml:2: size_cm is missing; .* is it what is called 'size' here\?$",
        ),
        ("wheels: 3\n", r"cart.yaml:1: wheels is 3; expected a list of mappings$"),
        ("spare: [1]\n", r"cart.yaml:1: spare: expected `key: value` pairs$"),
        ("wheels: [1]\n", r"cart.yaml:1: wheels\[0\]: expected `key: value` pairs$"),
        ("'{name}': 3\n", r"cart.yaml:1: unknown key '{name}'; expected one of load_kg, spare, wheels$"),
        ("lod_kg: 3\n", r"cart.yaml:1: unknown key 'lod_kg'; did you mean 'load_kg'\?$"),
        ("spare: null\nload_kg: 101\n", r"cart.yaml:2: load_kg is 101; expected wheels$"),
    ],
)
def test_a_mistake_is_one_line_with_the_place_of_the_key(filled, text, message):
    with pytest.raises(InputError, match=message):
        filled(text)


def test_what_is_located_is_plain_without_its_places():
    tree = Located(
        {"a": Located([Located(1, "f:1"), Located({"b": Located(None, "f:2")}, "f:2")], "f:1")}, "f"
    )
    assert tree.plain == {"a": [1, {"b": None}]}
