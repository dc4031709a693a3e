#!/usr/bin/env python3
"""Generated recall tasks: facts in a long text, questions about them behind it.

    recall.py FOLDER [TOKENS]

FOLDER is what train/data/extract.py wrote. Adds FOLDER/train/recall-KIND.jsonl, about TOKENS tokens in all (3.6
million), and FOLDER/heldout/recall-KIND.jsonl, some tasks of each kind made of other random numbers and
held-out text. The same folder gives the same files.

Ordinary text seldom asks for what stood a thousand tokens before. Here every answer is in the text, and
nowhere else: several segments behind the question for most. Only answers carry loss. Half of the tasks are
conversations, half plain text; three of four fit in 2,048 tokens with SmolLM2's tokenizer.

Kinds: needle (facts in filler), json (keys and values), uuid (long random strings), list (numbered lists
and tables), labels (examples of classes with names that mean nothing), track (values that are passed on
and things that are moved), quote (passages of the text itself).
"""

import json
import os
import random
import re
import sys
import uuid

SHARES = {"needle": 0.26, "json": 0.2, "uuid": 0.1, "list": 0.14, "labels": 0.1, "track": 0.06, "quote": 0.14}
HELD_OUT = 60  # tasks of a kind
SHORT = (950, 1880)  # tokens of a task, three of four times
LONG = (1900, 3900)

ADJECTIVES = (
    """able amber ancient arctic awake bitter blank bold brave brief bright brisk broken bronze busy calm
careful cheap clever clumsy coastal cold copper cosmic crisp curious damp daring dim distant double dusty eager
early elastic empty fair famous fancy fast fierce final flat fluffy foggy formal fresh frosty gentle giant gilded
glad golden grand gray great green grim hasty heavy hidden hollow humble icy idle ivory jolly keen kind large late
lazy lively lonely loose loud lucky lunar mellow merry mild misty modern muddy narrow neat nervous nimble noble
northern odd old orange pale patient plain polite proud purple quick quiet rapid rare red remote rich rigid ripe
rough round royal rural rusty salty scarlet secret sharp shiny short silent silver simple sleepy slim slow small
smooth snowy soft solar solid sour southern spare steady steep stiff strange strict strong sudden sunny swift tall
tame tender thick thin tidy timid tiny tough urban vague vast velvet violet warm weary wide wild windy wise wooden
yellow young zesty""".split()
)
NOUNS = (
    """acorn actor airport almond anchor ankle apple apron arrow artist aunt badge baker balcony banjo barn
basket beach bear bell bench berry bishop blanket boat bottle bridge brook broom bucket butter button cabin camel
candle canyon captain carpet carrot castle cat cellar chair cherry chess circle clock cloud coat cobbler comet
compass coral cork cottage cousin crane crown cup curtain daisy dancer desert diamond doctor dolphin door dragon
drum eagle engine envelope falcon farmer feather fence ferry fiddle field finger fisher flag flute forest fork
fountain fox garden gate ghost giraffe glacier glove goat grape guitar hammer harbor hat hawk hedge helmet heron
hill honey horse hotel house island jacket jar jungle kettle key king kitchen kite ladder lake lamp lantern lemon
letter library lighthouse lion lizard lock magnet mango map maple market meadow melon mill mirror monkey moon moth
mountain museum needle nephew nest noodle notebook nurse oak ocean olive onion orchard otter oven owl oyster
painter palace panda parade parrot peach pearl pebble pencil pepper piano pilot pine planet plum poet pond pony
potato prince pumpkin puzzle queen rabbit radio raven ribbon rice river robin rocket roof rope rose saddle sailor
salmon sandal scarf school scooter seed shark sheep shell ship shoe singer sister spider spoon squirrel stable
star statue stone stool street student sugar sword table tailor teacher temple tent thunder tiger tower train
tree trumpet tulip tunnel turtle uncle valley vase village violin wagon walnut watch well whale wheel willow
window wizard wolf zebra""".split()
)
NAMES = """Ada Agnes Albert Alice Amir Anna Anton Aylin Barbara Bela Bruno Carla Carmen Cedric Chen Clara Cyril Dalia
David Diego Dora Edith Edwin Elena Emil Esther Farid Felix Fiona Frank Gerda Gita Greta Hana Harold Hugo Ida Igor
Ingrid Iris Ivan Jana Jasper Joan Jonas Judith Karim Kate Klara Lars Laura Leo Lin Lucy Mabel Magnus Marta Mei Milan
Mira Nadia Nora Olga Omar Oscar Otto Paula Pavel Petra Quinn Rafael Rita Rosa Ruben Sam Sara Selma Simon Sonia Stella
Tariq Tessa Theo Tomas Ulla Uma Viktor Vera Walter Wanda Xenia Yara Yusuf Zelda Zora""".split()
TOWNS = """Aldbrook Ashford Barrow Bexhill Birchwood Bramley Caldwell Carnforth Cliffside Coldharbor Dunmore Eastwick
Elmhurst Fairhaven Fernley Foxton Glenrock Greystone Halden Harrowgate Highfield Holmwood Kelby Kingsmead Lakeport
Larkhill Lindale Longmere Marwick Millbrook Moorgate Netherby Northam Oakridge Oldcastle Penfield Quarry Ravenna
Redcliff Rivermouth Rosedale Saltmarsh Sandholm Southgate Stonebury Summerton Thornbury Upton Wexley Whitby Windmere
Woodvale Yarrow""".split()
THINGS = """access code, locker number, phone number, room number, serial number, password, account number,
invoice number, badge number, ticket number, license plate, library card number, tracking number, order number,
membership number, safe combination, customer number, extension, reference number, bus pass number""".replace(
    "\n", " "
).split(", ")
NOISE = [
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.",
    "The river runs north. The wind is cold. The road is long. We walk on. Then we rest.",
    "It rained in the morning. It was dry at noon. The evening was clear. Nothing else happened that day.",
]


def tokens(text):
    """About how many: letters in words of some five, digits and signs one by one."""
    return (
        sum(1 + len(w) // 8 for w in re.findall(r"[^\W\d_]+", text))
        + len(re.findall(r"\d", text))
        + int(0.75 * len(re.findall(r"[^\w\s]", text)))
        + text.count("\n")
    )


class Fillers:
    """Text to hide facts in: lists of sentences or paragraphs."""

    def __init__(self, folder, rng):
        self.rng, self.paths = rng, []
        for source in ("prose", "guides", "manuals"):
            path = os.path.join(folder, source)
            self.paths += (
                [os.path.join(path, n) for n in sorted(os.listdir(path))] if os.path.isdir(path) else []
            )
        self.paragraphs, self.left = [], 0

    def real(self, budget):
        """Paragraphs that follow each other in one document."""
        if self.left == 0:
            with open(self.rng.choice(self.paths), encoding="utf-8") as f:
                text = f.read()
            self.paragraphs = [p for p in re.split(r"\n\s*\n", text) if 40 < len(p) < 1200 and good_prose(p)]
            self.left = 4
        self.left -= 1
        at = self.rng.randrange(max(1, len(self.paragraphs)))
        out, size = [], 0
        for p in self.paragraphs[at:] + self.paragraphs[:at]:
            if size >= budget:
                break
            out.append(p)
            size += tokens(p) + 2
        return out

    def noise(self, budget):
        text = self.rng.choice(NOISE)
        return [text] * (1 + budget // tokens(text))

    def simple(self, budget):
        r, out, size = self.rng, [], 0
        while size < budget:
            out.append(
                r.choice(
                    [
                        f"{r.choice(NAMES)} saw a {r.choice(ADJECTIVES)} {r.choice(NOUNS)} near {r.choice(TOWNS)}.",
                        f"The {r.choice(NOUNS)} of {r.choice(TOWNS)} is {r.choice(ADJECTIVES)} and {r.choice(ADJECTIVES)}.",
                        f"In {r.choice(TOWNS)} people like the {r.choice(ADJECTIVES)} {r.choice(NOUNS)}.",
                        f"{r.choice(NAMES)} and {r.choice(NAMES)} went to {r.choice(TOWNS)} by {r.choice(['train', 'bus', 'boat'])}.",
                        f"Nobody knew why {r.choice(NAMES)} had left the {r.choice(NOUNS)} by the {r.choice(NOUNS)}.",
                    ]
                )
            )
            size += tokens(out[-1])
        return out

    def any(self, budget):
        kind = self.rng.choices([self.real, self.noise, self.simple], [5, 3, 2])[0]
        units = kind(budget)
        if len(units) < 3:
            kind, units = self.noise, self.noise(budget)
        return units, "\n\n" if kind == self.real else self.rng.choice([" ", "\n"])


def good_prose(p):
    return sum(c.isalpha() or c.isspace() for c in p) > 0.9 * len(p)


def hide(rng, units, facts, joint):
    """The facts in their order, at random places of the text."""
    places = sorted(rng.randrange(len(units) + 1) for _ in facts)
    out, at = [], 0
    for place, fact in zip(places, facts):
        out += units[at:place] + [fact]
        at = place
    return joint.join(out + units[at:])


# --- values and keys ----------------------------------------------------------------------------------


def digits(rng, n):
    return str(rng.randrange(10 ** (n - 1), 10**n))


def new_uuid(rng):
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


VALUES = {
    "number": lambda r: digits(r, 7),
    "long number": lambda r: digits(r, 8),
    "short number": lambda r: digits(r, r.choice([3, 4, 5])),
    "word": lambda r: r.choice(NOUNS),
    "phrase": lambda r: f"{r.choice(ADJECTIVES)} {r.choice(NOUNS)}",
    "code": lambda r: "".join(r.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(2)) + "-" + digits(r, 4),
    "name": lambda r: f"{r.choice(NAMES)} {r.choice(TOWNS)}",
    "date": lambda r: f"{r.randrange(1, 29)} {r.choice('January March April June August October December'.split())} {r.randrange(1700, 2030)}",
}


def keys(rng, n):
    """Different ones of one sort."""
    sort = rng.choice(
        [
            lambda: f"{rng.choice(ADJECTIVES)}-{rng.choice(NOUNS)}",
            lambda: f"{rng.choice(ADJECTIVES)}_{rng.choice(NOUNS)}",
            lambda: f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}",
            lambda: f"{rng.choice(NAMES)} from {rng.choice(TOWNS)}",
            lambda: f"{rng.choice(NOUNS)}{rng.randrange(10, 100)}",
        ]
    )
    found = {}
    while len(found) < n:
        found[sort()] = None
    return list(found)


# --- tasks: (text, [(question, answer)]) ---------------------------------------------------------------

# What is said, what is asked, and how a plain text would begin to say it again. {k} key, {v} value, {s} its
# sort, {t} a thing that has it. The first is RULER's.
SAID = [
    (
        "One of the special magic {s}s for {k} is: {v}.",
        "What is the special magic {s} for {k} mentioned in the provided text?",
        "The special magic {s} for {k} mentioned in the provided text is",
    ),
    ("The {t} of {k} is {v}.", "What is the {t} of {k}?", "The {t} of {k} is"),
    (
        "Remember that the {t} for {k} is {v}.",
        "Which {t} was to be remembered for {k}?",
        "The {t} for {k} is",
    ),
    ("Note: {k} has the {t} {v}.", "Which {t} does {k} have?", "{k} has the {t}"),
    (
        "For {k}, the {t} was changed to {v}.",
        "To what was the {t} of {k} changed?",
        "For {k}, the {t} was changed to",
    ),
    ("{v} is the {t} that belongs to {k}.", "Which {t} belongs to {k}?", "The {t} that belongs to {k} is"),
    (
        "When you are asked for the {t} of {k}, say {v}.",
        "I need the {t} of {k}, please.",
        "Asked for the {t} of {k}, say",
    ),
    ("(The {t} of {k}: {v})", "Give me the {t} of {k}.", "The {t} of {k}:"),
    (
        "It was decided that {k} gets the {t} {v}.",
        "Which {t} does {k} get?",
        "It was decided that {k} gets the {t}",
    ),
    ("{k} - {t}: {v}", "Look up the {t} of {k}.", "{k} - {t}:"),
    (
        "By the way, {k} wrote down {v} as the {t}.",
        "What did {k} write down as the {t}?",
        "{k} wrote down, as the {t},",
    ),
    ('The secret word of {k} is "{v}".', "What is the secret word of {k}?", "The secret word of {k} is"),
    (
        "The best thing to do in {k} is to look for {v}.",
        "What should one look for in {k}?",
        "The best thing to do in {k} is to look for",
    ),
    ("Please keep in mind: {k} means {v}.", "What does {k} mean here?", "Keep in mind that {k} means"),
    (
        "In the register, {k} is listed under {v}.",
        "Under what is {k} listed in the register?",
        "In the register, {k} is listed under",
    ),
]


def needle(rng, fill, budget, values=VALUES, weights=(5, 4, 1, 1, 1, 1, 1, 1)):
    n = rng.choice([1, 1, 2, 4, 4, 6, 8])
    sort = rng.choices(list(values), weights)[0]
    said = (
        [rng.choice(SAID[:1] * 8 + SAID)] * n if rng.random() < 0.6 else [rng.choice(SAID) for _ in range(n)]
    )
    words = [
        {"k": k, "v": values[sort](rng), "s": sort.split()[-1], "t": rng.choice(THINGS)} for k in keys(rng, n)
    ]
    facts = [s[0].format(**w) for s, w in zip(said, words)]
    size = sum(map(tokens, facts))
    units, joint = fill.any(budget - 2 * size - 30 * n)
    asked = [(s[1].format(**w), w["v"], s[2].format(**w)) for s, w in zip(said, words)]
    rng.shuffle(asked)
    return hide(rng, units, facts, joint), asked[: rng.choice([1, 4, 6, 8])]


LONG_VALUES = {
    "uuid": new_uuid,
    "hex": lambda r: f"{r.getrandbits(128):032x}",
    "half": lambda r: f"{r.getrandbits(64):016x}",
    "card": lambda r: " ".join(digits(r, 4) for _ in range(4)),
}


def uuids(rng, fill, budget):
    return needle(rng, fill, budget, LONG_VALUES, (3, 1, 1, 1))


def pairs_text(rng, pairs):
    """The same pairs in one of the formats that machines write."""
    return rng.choice(
        [
            lambda: json.dumps(dict(pairs)),
            lambda: json.dumps(dict(pairs), indent=rng.choice([0, 1, 2, 4])),
            lambda: json.dumps(dict(pairs), indent=1),
            lambda: "\n".join(json.dumps({"key": k, "value": v}) for k, v in pairs),
            lambda: "\n".join(f"{k}: {v}" for k, v in pairs),
            lambda: "\n".join(f"{k} = {v}" for k, v in pairs),
            lambda: "\n".join(f"{k},{v}" for k, v in pairs),
        ]
    )()


def key_values(rng, fill, budget):
    sort = rng.choice(["number", "number", "uuid", "word", "phrase", "code"])
    value = {"number": lambda r: digits(r, 8), "uuid": new_uuid}.get(sort) or VALUES[sort]
    n_asked = rng.choice([1, 4, 6, 8])
    pairs, size = [], 0
    for key in keys(rng, 160):
        if rng.random() < 0.15 and sort == "uuid":
            key = new_uuid(rng)
        pairs.append((key, value(rng)))
        size += tokens(": ".join(pairs[-1])) + 4
        if size > budget - n_asked * (80 if sort == "uuid" else 35):
            break
    text = pairs_text(rng, pairs)
    asked = rng.sample(pairs, min(len(pairs), n_asked))
    shape = rng.choice(
        [
            ('What is the value of "{k}"?', '"{k}":'),
            ("Key: {k}\nCorresponding value:", "{k}:"),
            ("Which value does the key {k} have?", "The value of {k} is"),
            ("Look up {k}.", "{k} ->"),
        ]
    )
    head = rng.choice(
        ["", "", "Extract the value corresponding to the specified key in the data below.\n\n", "Data:\n"]
    )
    return head + text, [(shape[0].format(k=k), v, shape[1].format(k=k)) for k, v in asked]


def numbered(rng, fill, budget):
    items, size = [], 0
    sort = rng.choice(
        [
            lambda: f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}",
            lambda: f"{rng.choice(NAMES)} of {rng.choice(TOWNS)}",
            lambda: f"{rng.choice(NAMES)} brings a {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}",
            lambda: f"{rng.choice(NOUNS)} ({digits(rng, 3)})",
        ]
    )
    while size < budget - 260:
        item = sort()
        if item not in items:
            items.append(item)
            size += tokens(item) + 5
    mark = rng.choice(["{i}. {x}", "{i}) {x}", "#{i}: {x}", "Item {i}: {x}"])
    text = "\n".join(mark.format(i=i + 1, x=x) for i, x in enumerate(items))
    asked = []
    for i in rng.sample(range(len(items) - 3), min(len(items) - 3, rng.choice([2, 5, 7]))):
        asked.append(
            rng.choice(
                [
                    (f"What is number {i + 1} on the list?", items[i], mark.format(i=i + 1, x="").rstrip()),
                    (
                        f"Which number on the list is {items[i]}?",
                        str(i + 1),
                        f"On the list, {items[i]} has the number",
                    ),
                    (
                        f"What comes right after {items[i]} on the list?",
                        items[i + 1],
                        f"On the list, {items[i]} is followed by",
                    ),
                    (
                        f"Repeat numbers {i + 1} to {i + 3} of the list.",
                        "\n".join(items[i : i + 3]),
                        f"Numbers {i + 1} to {i + 3} of the list are:",
                    ),
                ]
            )
        )
    return text, asked


def table(rng, fill, budget):
    columns = {
        "town": lambda: rng.choice(TOWNS),
        "age": lambda: str(rng.randrange(18, 90)),
        "job": lambda: rng.choice(NOUNS[:80]),
        "number": lambda: digits(rng, 5),
        "color": lambda: rng.choice("red green blue white black yellow brown pink".split()),
    }
    picked = rng.sample(list(columns), 3)
    sep = rng.choice([" | ", ", ", "\t", "; "])
    names, rows, size = {}, [], 0
    while size < budget - 240:
        name = f"{rng.choice(NAMES)} {rng.choice(NOUNS).capitalize()}"
        if name in names:
            continue
        names[name] = [columns[c]() for c in picked]
        rows.append(sep.join([name] + names[name]))
        size += tokens(rows[-1]) + 1
    asked = []
    for name in rng.sample(list(names), min(len(names), rng.choice([2, 5, 8]))):
        c = rng.randrange(3)
        asked.append((f"What is the {picked[c]} of {name}?", names[name][c], f"The {picked[c]} of {name} is"))
    return sep.join(["name"] + picked) + "\n" + "\n".join(rows), asked


def lists(rng, fill, budget):
    return rng.choice([numbered, table])(rng, fill, budget)


CLASSES = {
    "weather": [
        "Will it rain in {t} tomorrow?",
        "How cold is it in {t} now?",
        "Do I need an umbrella in {t}?",
        "Is there a storm coming to {t}?",
    ],
    "travel": [
        "When does the next train to {t} leave?",
        "Book me a seat on the bus to {t}.",
        "How far is it from {t} to {u}?",
        "Which platform is the train from {t} on?",
    ],
    "food": [
        "How long do I cook a {n} pie?",
        "Is there a good place to eat in {t}?",
        "What goes well with {n} soup?",
        "Order two pizzas to {t}, please.",
    ],
    "music": [
        "Play something with a {n} in it.",
        "Turn the {n} song up.",
        "Who sings about the {a} {n}?",
        "Skip this tune.",
    ],
    "money": [
        "How much is in my account?",
        "Send twenty to {p}.",
        "Why was my card refused in {t}?",
        "What does the {a} {n} cost?",
    ],
    "health": [
        "My {n} hurts since yesterday.",
        "Is there a doctor in {t}?",
        "How many pills may {p} take?",
        "{p} has a fever again.",
    ],
    "time": [
        "What time is it in {t}?",
        "Wake me at six.",
        "How many days until {p} has a birthday?",
        "Set a timer for the {n}.",
    ],
    "sport": [
        "Who won the match in {t}?",
        "When does {p} run the race?",
        "How many goals did {t} score?",
        "Is the {a} team playing today?",
    ],
    "home": [
        "Turn off the light by the {n}.",
        "Is the door of the {n} locked?",
        "Make the room warmer.",
        "Close the {a} curtain.",
    ],
    "work": [
        "Move my meeting with {p} to noon.",
        "Write to {p} about the {n}.",
        "Who is in the office in {t}?",
        "Print the {a} report.",
    ],
}


def labels(rng, fill, budget):
    """Which class a name stands for can only be learnt from the examples."""
    names = {
        c: n
        for c, n in zip(
            rng.sample(list(CLASSES), rng.choice([4, 6, 8, 10])),
            rng.choice(
                [
                    rng.sample(NOUNS, 10),
                    [str(i) for i in rng.sample(range(10, 100), 10)],
                    [f"label {x}" for x in rng.sample("ABCDEFGHIJKLM", 10)],
                ]
            ),
        )
    }

    def example():
        c = rng.choice(list(names))
        text = rng.choice(CLASSES[c]).format(
            t=rng.choice(TOWNS),
            u=rng.choice(TOWNS),
            n=rng.choice(NOUNS),
            a=rng.choice(ADJECTIVES),
            p=rng.choice(NAMES),
        )
        return text, names[c]

    first, second = rng.choice(
        [("Text", "Label"), ("Input", "Output"), ("Question", "Type"), ("Sentence", "Class")]
    )
    shots, size = [], 0
    while size < budget - 250:
        shots.append("{}: {}\n{}: {}".format(first, (e := example())[0], second, e[1]))
        size += tokens(shots[-1]) + 2
    asked = []
    for _ in range(rng.choice([4, 6, 9])):
        text, name = example()
        asked.append((f"{first}: {text}\n{second}:", name, f"{first}: {text}\n{second}:"))
    return "\n\n".join(shots), asked


def variables(rng, fill, budget):
    n = rng.choice([2, 3, 4])
    chains, facts = [], []
    for _ in range(n):
        names = [
            "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(5))
            for _ in range(rng.choice([2, 3]))
        ]
        chains.append((digits(rng, 5), names))
        value = chains[-1][0]
        facts.append([f"VAR {a} = {b}" for a, b in zip(names, [value] + [f"VAR {x}" for x in names])])
    order = [i for i, f in enumerate(facts) for _ in f]
    rng.shuffle(order)
    units, joint = fill.any(budget - 260)
    asked = []
    for value, names in chains:
        asked.append(
            rng.choice(
                [
                    (f"What is the value of {names[-1]}?", value, f"The value of {names[-1]} is"),
                    (
                        f"Which variables have the value {value}?",
                        ", ".join(names),
                        f"The variables with the value {value} are:",
                    ),
                ]
            )
        )
    return hide(rng, units, [facts[i].pop(0) for i in order], joint), asked


PLACES = "box drawer shelf bag cupboard basket room car".split()
MOVES = [
    "{p} put the {x} into {w}.",
    "{p} took the {x} and left it in {w}.",
    "Then {p} moved the {x} to {w}.",
]


def moves(rng, fill, budget):
    things = rng.sample(NOUNS, 3)
    where, facts = {}, []
    for thing in things * rng.choice([1, 2, 3]):
        where[thing] = f"the {rng.choice(ADJECTIVES)} {rng.choice(PLACES)}"
        facts.append(rng.choice(MOVES).format(p=rng.choice(NAMES), x=thing, w=where[thing]))
    units, joint = fill.any(budget - 250)
    asked = [(f"Where is the {x} now?", where[x], f"In the end the {x} is in") for x in things]
    return hide(rng, units, facts, joint), asked


def track(rng, fill, budget):
    return rng.choice([variables, moves])(rng, fill, budget)


def quote(rng, fill, budget):
    paragraphs = fill.real(budget - 320)
    sentences = [
        s
        for p in paragraphs
        for s in re.findall(r"[A-Z][^.!?\n]{50,220}[.!?]", re.sub(r"\s+", " ", p))
        if len(s.split()) > 9
    ]
    if len(sentences) < 6:
        return None
    text, asked, flat = "\n\n".join(paragraphs), [], re.sub(r"\s+", " ", " ".join(paragraphs))
    for s in rng.sample(sentences[: max(6, len(sentences) * 3 // 4)], rng.choice([2, 4, 6])):
        words = s.split()
        head = " ".join(words[: rng.choice([4, 5, 6])])
        if flat.count(head) != 1:
            continue
        rest = s[len(head) :].strip()
        asked.append(
            rng.choice(
                [
                    (f'How does the sentence that begins with "{head}" go on?', rest, head),
                    (
                        f'Repeat the sentence of the text that begins with "{head}".',
                        s,
                        f'The sentence that begins with "{head}" is:',
                    ),
                ]
            )
        )
    return (text, asked) if asked else None


KINDS = {
    "needle": needle,
    "json": key_values,
    "uuid": uuids,
    "list": lists,
    "labels": labels,
    "track": track,
    "quote": quote,
}

# --- forms --------------------------------------------------------------------------------------------

BEFORE = [
    "",
    "",
    "Read the text. Questions about it follow.\n\n",
    "Here is some material. Remember it.\n\n",
    "Some special facts are hidden within the following text. Make sure to memorize them.\n\n",
    "Text:\n",
    "Use only what stands below.\n\n",
]
ANSWERS = ["{v}", "{v}", "{v}", "{v}", "It is {v}.", "{v}."]
SYSTEM = [
    "Answer with what stands in the text, in as few words as possible.",
    "You answer questions about a text. Be brief and exact.",
    "You are a careful reader.",
]


def conversation(rng, text, asked):
    messages = [{"role": "system", "content": rng.choice(SYSTEM)}] if rng.random() < 0.3 else []
    first = rng.choice(BEFORE) + text
    if rng.random() < 0.25:
        messages += [{"role": "user", "content": first}, {"role": "assistant", "content": "I have read it."}]
        first = ""
    shape = rng.choice(ANSWERS)
    for question, answer, _ in asked:
        mark = "Question: " if rng.random() < 0.5 and not question.endswith(":") else ""
        messages += [
            {"role": "user", "content": f"{first}\n\n{mark}{question}" if first else question},
            {"role": "assistant", "content": answer if question.endswith(":") else shape.format(v=answer)},
        ]
        first = ""
    return {"messages": messages}


def plain(rng, text, asked):
    parts = [(False, rng.choice(BEFORE) + text)]
    form = rng.choice(["say", "say", "ask", "short"])
    for question, answer, again in asked:
        if question.endswith(":"):
            parts += [(False, "\n\n" + question), (True, " " + answer)]
        elif form == "say":
            parts += [(False, "\n\n" + again), (True, f" {answer}" + ("" if answer[-1] in ".!?" else "."))]
        else:
            head = "\n\nQuestion: {}\nAnswer:" if form == "ask" else "\n\nQ: {}\nA:"
            parts += [(False, head.format(question)), (True, " " + answer)]
    return {"segments": [{"label": l, "text": t} for l, t in parts]}


def task(rng, kind, fill):
    while True:
        low, high = SHORT if rng.random() < 0.78 else LONG
        made = KINDS[kind](rng, fill, rng.randrange(low, high))
        if made:
            break
    line = rng.choice([conversation, plain])(rng, *made)
    return json.dumps(line, ensure_ascii=False)


def generate(folder, kind, seed, n_tokens, n_tasks):
    """To a file; about n_tokens, or n_tasks."""
    rng = random.Random(f"{seed} {kind}")
    fill = Fillers(folder, rng)
    size = count = 0
    with open(os.path.join(folder, f"recall-{kind}.jsonl"), "w", encoding="utf-8") as f:
        while size < n_tokens and count < n_tasks:
            line = task(rng, kind, fill)
            size += tokens(line)
            count += 1
            f.write(line + "\n")
    print(f"  recall-{kind:<10}{count:>6} tasks {size:>9} tokens, estimated", file=sys.stderr)


def main():
    folder = sys.argv[1]
    total = int(sys.argv[2]) if len(sys.argv) > 2 else 3600000
    for kind, share in SHARES.items():
        generate(os.path.join(folder, "train"), kind, "train", total * share, 1 << 30)
        generate(os.path.join(folder, "heldout"), kind, "heldout", 1 << 30, HELD_OUT)


if __name__ == "__main__":
    main()
