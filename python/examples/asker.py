"""asker.py NAME QUESTION - asks about a document that another program has added, or is still adding.

The session begins with the document, which costs what nobody has computed yet: nothing but the last few tokens when
it was read before, and a wait when it is just being read.
"""

import sys
import time

import gistd


def begin_with(client: gistd.Client, name: str) -> gistd.Session:
    """The name is there when its indexer's request has arrived: whoever is started beside it may be quicker."""
    give_up = time.monotonic() + 60
    while True:
        try:
            return client.open(documents=[name], label="asker")
        except gistd.NotFound:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: asker.py NAME QUESTION")
    name, question = sys.argv[1:]
    with gistd.Client(name="asker") as client, begin_with(client, name) as session:
        began = session.usage
        print(f"asker: began with {began.prompt_tokens} tokens; {began.computed_tokens} computed, "
              f"{began.shared_tokens} shared, {began.restored_tokens} restored, in {began.prompt_ns / 1e9:.2f} s")
        answer = session.ask(question, max_tokens=40, repeat_penalty=1.1, repeat_last_n=256)
        first = (answer.asked.prompt_ns + answer.usage.first_token_ns) / 1e9
        print(answer)
        print(f"asker: {answer.usage.generated_tokens} tokens written, the first after {first:.2f} s")


if __name__ == "__main__":
    try:
        main()
    except gistd.GistError as e:
        sys.exit(f"asker: {e}")
