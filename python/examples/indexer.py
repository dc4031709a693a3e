"""indexer.py NAME FILE - adds a text as a document, in the background, and shows how far it is.

Programs that begin with the document (asker.py) need not wait for the end: what is being read for one is not read
again for another.
"""

import sys

import gistd


def show(n_read: int, n_tokens: int) -> None:
    if sys.stderr.isatty() and n_tokens:
        print(f"\rindexer: {n_read} of {n_tokens} tokens", end="", file=sys.stderr, flush=True)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: indexer.py NAME FILE")
    name, file = sys.argv[1:]
    with open(file, encoding="utf-8", errors="replace") as f:
        text = f.read()
    with gistd.Client(name="indexer") as client:
        usage = client.add_document(name, text, priority=gistd.Priority.BACKGROUND, replace=True, progress=show)
    print(f"indexer: {usage.prompt_tokens} tokens; {usage.computed_tokens} computed, {usage.shared_tokens} shared, "
          f"{usage.restored_tokens} restored, in {usage.prompt_ns / 1e9:.2f} s")


if __name__ == "__main__":
    try:
        main()
    except (gistd.GistError, OSError) as e:
        sys.exit(f"indexer: {e}")
