"""A book with two lines put into it that are not its own, for who shows what is found in a long text. Numbers in prose are
what the default model can read off."""
import collections
import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEXT, BYTES = "tests/data/score.txt", 20000  # the first part of Alice in Wonderland

Line = collections.namedtuple("Line", "text says question")
PHONE = Line("The telephone number of the harbour office in Port Annis is 5518230.", "5518230",
             "What is the telephone number of the harbour office in Port Annis?")
TICKET = Line("The ticket number of Mr. Barlow is 802536.", "802536", "What is the ticket number of Mr. Barlow?")
PLACES = ((0.6, TICKET), (0.3, PHONE))  # how far behind the beginning; the last one first


def book():
    """Whole paragraphs, with the lines at their places."""
    with open(os.path.join(ROOT, TEXT), encoding="utf-8") as f:
        paragraphs = f.read(BYTES).split("\n\n")[:-1]
    for at, line in PLACES:
        paragraphs.insert(int(len(paragraphs) * at), line.text)
    return "\n\n".join(paragraphs) + "\n"
