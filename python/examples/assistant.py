"""assistant.py FILE QUESTION... - a desktop assistant of several processes and one document.

An indexer adds the text; an asker for each question is started beside it, while the text is still read; the first
question is asked once more after that. What each prints shows that the text was read once.
"""

import asyncio
import os
import sys

import gistd

HERE = os.path.dirname(os.path.abspath(__file__))


async def run(program: str, *args: str) -> int:
    """A process; what it says is shown in one piece when it has ended."""
    process = await asyncio.create_subprocess_exec(sys.executable, os.path.join(HERE, program), *args,
                                                   stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await process.communicate()
    print(said.decode(errors="replace"), end="", flush=True)
    return process.returncode or 0


async def main() -> int:
    if len(sys.argv) < 3:
        print("usage: assistant.py FILE QUESTION...", file=sys.stderr)
        return 2
    file, *questions = sys.argv[1:]
    name = f"assistant.{os.getpid()}"
    async with await gistd.AsyncClient.connect(name="assistant") as client:
        codes = await asyncio.gather(run("indexer.py", name, file), *(run("asker.py", name, q) for q in questions))
        if any(codes):
            return 1
        try:
            print("assistant: once more, now that it was read")
            return await run("asker.py", name, questions[0])
        finally:
            await client.delete_document(name)


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except gistd.GistError as e:
        sys.exit(f"assistant: {e}")
