"""The fact table of Tidewell, the small harbor town that the embedded world plays in.

Everything the front desk can be right or wrong about is a row here: when a house opens and closes, what a visit costs,
where it stands, who keeps it, whether dogs may come in and whether it stays open in the rain. Two small rule tables
follow: which office keeps which lost goods, and which remedy the town owes for which fault.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """One house, ferry or office. Hours are whole hours of a 24-hour day, the price is in crowns."""

    name: str
    opens: int
    closes: int
    price: int
    where: str
    keeper: str
    dogs: bool
    rain: bool

    @property
    def opening_verb(self) -> str:
        """Ferries start, houses open."""
        return "starts" if self.name.endswith("ferry") else "opens"

    @property
    def closing_verb(self) -> str:
        """Ferries stop, houses close."""
        return "stops" if self.name.endswith("ferry") else "closes"

    def is_open(self, hour: int) -> bool:
        """Whether a visitor who arrives at `hour` finds the door open."""
        return self.opens <= hour < self.closes


_HOUSES = (
    Place("bakery", 6, 14, 2, "on Rope Lane", "Maud", False, True),
    Place("fish hall", 5, 11, 6, "on North Pier", "Otto", False, True),
    Place("lighthouse", 10, 17, 4, "on Gull Rock", "Wren", True, False),
    Place("tea house", 11, 19, 3, "by the old pump", "Greta", True, True),
    Place("bath house", 7, 21, 5, "on Kettle Street", "Silas", False, True),
    Place("pottery", 9, 16, 8, "on Mill Steps", "Ines", True, True),
    Place("sail loft", 8, 17, 9, "in Cooper Yard", "Hugo", True, False),
    Place("clock mender", 10, 18, 7, "under the town clock", "Basil", False, True),
    Place("bookshop", 9, 20, 3, "on Pepper Square", "Nell", True, True),
    Place("candle shop", 8, 15, 4, "in Weaver Court", "Edda", False, True),
    Place("boat shed", 7, 18, 12, "on South Pier", "Jonah", True, False),
    Place("glass works", 11, 16, 10, "by the west gate", "Petra", False, True),
    Place("map room", 9, 13, 2, "on Chapel Hill", "Linus", False, True),
    Place("music hall", 18, 23, 11, "on Pepper Square", "Cora", False, True),
    Place("night market", 17, 22, 2, "by the sea wall", "Bram", True, False),
    Place("flower market", 6, 12, 3, "by the stone bridge", "Hazel", True, False),
    Place("cheese market", 8, 13, 5, "on Herring Row", "Felix", False, False),
    Place("seal garden", 10, 16, 6, "on Gull Rock", "June", False, False),
    Place("Anchor Inn", 12, 22, 14, "on Kettle Street", "Agnes", True, True),
    Place("Heron Inn", 13, 21, 18, "on Mill Steps", "Ivo", False, True),
    Place("Lantern Inn", 14, 23, 16, "on Rope Lane", "Lottie", True, True),
    Place("Skell ferry", 7, 18, 4, "on South Pier", "Kaspar", True, True),
    Place("Marrow ferry", 8, 20, 7, "on North Pier", "Odette", True, False),
    Place("Oddney ferry", 6, 15, 5, "by the sea wall", "Milo", False, False),
)

_OFFICES = (
    Place("wash house", 8, 16, 2, "by the old pump", "Runa", False, True),
    Place("harbor office", 9, 17, 2, "on North Pier", "Perrin", False, True),
    Place("customs hut", 7, 15, 2, "in Weaver Court", "Tobias", False, True),
)

HOUSES: dict[str, Place] = {place.name: place for place in _HOUSES}
OFFICES: dict[str, Place] = {place.name: place for place in _OFFICES}
PLACES: dict[str, Place] = HOUSES | OFFICES

WHERES: tuple[str, ...] = tuple(sorted({place.where for place in PLACES.values()}))
KEEPERS: tuple[str, ...] = tuple(sorted(place.keeper for place in PLACES.values()))

# Lost goods by the office that keeps them: clothing, valuables, everything else.
GOODS: dict[str, str] = {
    **dict.fromkeys(("umbrella", "coat", "scarf", "hat", "shawl"), "wash house"),
    **dict.fromkeys(("purse", "ring", "watch", "key", "letter"), "harbor office"),
    **dict.fromkeys(("basket", "lantern", "kite", "book", "violin"), "customs hut"),
}
COLORS = ("green", "red", "blue", "brown", "gray", "yellow", "striped", "silver")


@dataclass(frozen=True)
class Fault:
    """A thing that can go wrong: how a guest says it, how the desk names it, and what the town owes for it."""

    phrases: tuple[str, ...]
    noun: str
    remedy: str


FAULTS: dict[str, Fault] = {
    "late": Fault(("kept us waiting for an hour", "was two hours late"), "delay", "half your money back"),
    "early": Fault(("closed before its hour", "turned us away too early"), "early closing", "a free second visit"),
    "cold": Fault(("was freezing cold", "had no heating at all"), "cold", "a pot of hot tea"),
    "noise": Fault(("was terribly noisy", "was far too loud"), "noise", "a quieter seat"),
    "rude": Fault(("was rude to my family", "treated us with bad manners"), "rudeness", "a word with the keeper"),
    "broken": Fault(("sold me a broken cup", "gave me damaged goods"), "damage", "a full refund"),
    "dirty": Fault(("was dirty all over", "had mud on every chair"), "mess", "a clean table by the window"),
    "charge": Fault(("charged us twice", "asked us to pay two times"), "double charge", "the second charge back"),
}


def clock(hour: int) -> str:
    """Write an hour the way the desk does: `clock(14)` is "2 pm"."""
    return f"{(hour - 1) % 12 + 1} {'am' if hour < 12 else 'pm'}"


def hour_of(number: str, half: str) -> int:
    """Read it back: `hour_of("2", "pm")` is 14."""
    return int(number) % 12 + (12 if half.lower() == "pm" else 0)
