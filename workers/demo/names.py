"""What the demo company sells, to whom, by whom and against whom. All invented."""

from __future__ import annotations

from typing import Final

REGIONS: Final = ("north", "east", "south", "west")
INDUSTRIES: Final = ("chemicals", "food", "paper", "pharmaceuticals", "textiles", "utilities")
FIRST: Final = (
    "Amber", "Birch", "Cobalt", "Delta", "Ember", "Falcon", "Granite", "Harbour", "Iris", "Juniper",
    "Kestrel", "Linden", "Meadow", "Nimbus", "Orchard", "Pioneer", "Quarry", "Ridge", "Summit",
    "Tamarind", "Union", "Valley", "Willow", "Zenith",
)  # fmt: skip
SECOND: Final = {
    "chemicals": "Chemicals",
    "food": "Foods",
    "paper": "Paper Mills",
    "pharmaceuticals": "Pharma",
    "textiles": "Textiles",
    "utilities": "Waterworks",
}
GIVEN: Final = (
    "Anna", "Bo", "Carla", "Dmitri", "Elif", "Farid", "Grace", "Hao", "Ines", "Jonas", "Kamala",
    "Li", "Mateo", "Nadia", "Oskar", "Priya", "Ruth", "Sofia", "Tariq", "Wei",
)  # fmt: skip
FAMILY: Final = (
    "Almeida", "Bauer", "Chen", "Dubois", "Eriksen", "Fischer", "Garcia", "Hansen", "Ito", "Jansen",
    "Kaya", "Liu", "Moreau", "Novak", "Okafor", "Petrov", "Rossi", "Singh", "Tanaka", "Wang",
)  # fmt: skip
DEPARTMENTS: Final = ("engineering", "purchasing", "production", "management")
LEVELS: Final = ("operation", "management", "decision")
ROLES: Final = ("most interested", "owner of the problem", "holder of the budget")
SOURCES: Final = ("campaign", "referral", "trade register", "website")
PRODUCTS: Final = (
    "filtration line", "membrane plant", "dosing station", "pump retrofit", "control upgrade",
    "sludge press", "softening unit", "service contract",
)  # fmt: skip
COMPETITORS: Final = ("Aquatron", "Bluewell", "Clearstream", "none", "unknown")
LOSSES: Final = ("price", "product", "budget withdrawn", "delivery time", "relationship")
TEAMS: Final = ("key accounts", "plants", "service")
SIGNALS: Final = ("orders falling", "complaint unanswered", "contact has left", "competitor seen")
ACTIVITIES: Final = {
    "visit": ("needs understood", "decider met", "second meeting agreed"),
    "call": ("questions answered", "budget confirmed", "asked to call later"),
    "demonstration": ("product checked", "effective", "rehearsal wanted"),
}
RESPONSES: Final = {
    "visit": "asked for an offer",
    "conference": "came to the stand",
    "web": "filled in the form",
    "letter": "sent the card back",
    "phone": "agreed to a meeting",
}
CAMPAIGNS: Final = (
    ("Plant tour", "visit"),
    ("Water congress", "conference"),
    ("Online calculator", "web"),
    ("Saving water letter", "letter"),
    ("Spring calls", "phone"),
    ("Open house", "visit"),
    ("Process days", "conference"),
    ("Webinar series", "web"),
    ("Retrofit letter", "letter"),
    ("Service calls", "phone"),
    ("Reference visits", "visit"),
    ("Industry fair", "conference"),
    ("Membrane guide", "web"),
    ("Autumn letter", "letter"),
    ("Budget season calls", "phone"),
    ("Pilot plant days", "visit"),
)
REVIEWS: Final = (
    "The decider was met late; next time begin with production.",
    "Our price held because the running costs were shown early.",
    "The offer came a week after the competitor's.",
    "A reference visit decided it.",
    "The budget was never confirmed in writing.",
)
