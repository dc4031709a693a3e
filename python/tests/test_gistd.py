"""The Python package against the daemon at $GISTD_SOCKET, which serves a tiny model. tests/test_python.sh runs it."""

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

import gistd
from gistd._client import _Request
from gistd._lib import ffi

LONG = "\n".join(str(i) for i in range(400))

KILLED = """
import sys, gistd
client = gistd.Client()
session = client.open(realm=sys.argv[1] or None)
session.append("Once upon a time")
print(session.keep(60).token.hex(), flush=True)
pieces = iter(session.generate(max_tokens=20000, ignore_eog=True))
for _ in range(3):
    next(pieces)
print("it is said", flush=True)
sys.stdin.read()
"""


def killed(realm: str = "") -> str:
    """The token of a program that is killed while its answer is written; it holds no more than the model's window."""
    with subprocess.Popen([sys.executable, "-c", KILLED, realm], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as program:
        assert program.stdout
        token = program.stdout.readline().strip()
        assert program.stdout.readline() == "it is said\n"
        program.kill()
    return token


class Blocking(unittest.TestCase):
    def setUp(self) -> None:
        self.client = gistd.Client(name="test")
        self.addCleanup(self.client.close)

    def test_connects(self) -> None:
        info = self.client.info
        self.assertTrue(info.chat)
        self.assertGreater(info.n_vocab, 100)
        self.assertTrue(info.version and info.model and info.model_digest)
        self.client.ping()
        with self.assertRaisesRegex(gistd.TransportError, "no-such.sock"):
            gistd.Client("/tmp/no-such.sock")
        self.client.close()
        with self.assertRaisesRegex(ValueError, "closed"):
            self.client.ping()

    def test_unknown_reason(self) -> None:
        """Of a later library: whoever waits hears that it ended."""
        request, ended = _Request(self.client), []
        request.on_end = lambda: ended.append(True)
        request.on_done(0, ffi.new("struct gist_result *", {"reason": 99}))
        self.assertEqual(ended, [True])
        with self.assertRaises(ValueError):
            request.finish()

    def test_tokens(self) -> None:
        ids = self.client.tokenize("The sky is blue: \u00fcber \u2600.")
        self.assertGreater(len(ids), 3)
        self.assertEqual(self.client.detokenize(ids), "The sky is blue: \u00fcber \u2600.")
        self.assertEqual(self.client.tokenize(""), [])

    def test_streams_what_ask_says(self) -> None:
        """The same in pieces and as a whole, and both are what the tokens say."""
        with self.client.open() as session:
            asked = session.append([("user", "Count to ten.")], answer=True)
            self.assertEqual(asked.prompt_tokens, session.usage.prompt_tokens)
            stream = session.generate(max_tokens=12, ignore_eog=True)
            with self.assertRaisesRegex(ValueError, "has not ended"):
                stream.result
            pieces = list(stream)
        self.assertGreater(len(pieces), 1)
        self.assertEqual(stream.result.reason, gistd.Reason.LENGTH)
        self.assertEqual(stream.result.usage.generated_tokens, 12)
        self.assertEqual(len(stream.tokens), 12)
        self.assertEqual("".join(pieces), self.client.detokenize(stream.tokens))
        with self.client.open() as session:
            answer = session.ask("Count to ten.", max_tokens=12, ignore_eog=True)
        self.assertEqual(answer.text, "".join(pieces))
        self.assertGreater(answer.asked.shared_tokens + answer.asked.computed_tokens, 0)
        with self.client.open() as session:
            self.assertEqual(session.ask("Count to ten.", max_tokens=12, ignore_eog=True, draft=4).text, answer.text)
        with self.client.open() as session:
            dicts = [{"role": "user", "content": "Count to ten."}]
            self.assertEqual(session.append(dicts, answer=True).prompt_tokens, asked.prompt_tokens)

    def test_left_early(self) -> None:
        """The session is free at once, by close() or when nobody has the iterator any more."""
        with self.client.open() as session:
            session.append("Once upon a time")
            with session.generate(max_tokens=1000000, ignore_eog=True) as stream:
                next(stream)
            with self.assertRaises(gistd.Cancelled):
                stream.result
            session.append(" there was")
            for _ in session.generate(max_tokens=1000000, ignore_eog=True):
                break
            session.append(" a king.")
            self.assertEqual(len(list(session.generate(max_tokens=2, ignore_eog=True))) > 0, True)

    def test_forks_and_rewinds(self) -> None:
        with self.client.open() as session:
            start = session.append("The capital of France is").prompt_tokens
            with session.fork("other") as fork:
                self.assertEqual(fork.usage.prompt_tokens, start)
                said = "".join(fork.generate(max_tokens=8, ignore_eog=True))
                self.assertEqual("".join(session.generate(max_tokens=8, ignore_eog=True)), said)
                fork.rewind(start)
                self.assertEqual("".join(fork.generate(max_tokens=8, ignore_eog=True)), said)
                with self.assertRaisesRegex(gistd.BadRequest, "cannot rewind"):
                    fork.rewind(100000)

    def test_saves(self) -> None:
        with self.client.open() as session:
            tokens = session.append(LONG[:300]).prompt_tokens
            session.save("python")
            with self.assertRaises(gistd.NameExists):
                session.save("python")
            session.save("python", replace=True)
        rows = {row.name: row for row in self.client.sessions()}
        self.assertEqual(rows["python"].n_tokens, tokens)
        self.assertEqual(rows["python"].state, gistd.State.READY)
        with self.client.restore("python") as session:
            self.assertEqual(session.usage.prompt_tokens, tokens)
        self.client.delete_session("python")
        with self.assertRaises(gistd.NotFound) as caught:
            self.client.restore("python")
        self.assertIn("python", str(caught.exception))
        self.assertEqual(caught.exception.code, gistd.Code.NOT_FOUND)
        self.assertLess(caught.exception.errno, 0)

    def test_documents(self) -> None:
        """Read once: who begins with it computes next to nothing."""
        seen = []
        usage = self.client.add_document("book", LONG, progress=lambda n, of: seen.append((n, of)))
        self.addCleanup(self.client.delete_document, "book")
        self.assertGreater(usage.prompt_tokens, 500)
        self.assertEqual(seen[-1][0], seen[-1][1])
        self.assertEqual([row.name for row in self.client.documents()], ["book"])
        with gistd.Client() as other, other.open(documents=["book"]) as session:
            self.assertEqual(session.usage.prompt_tokens, usage.prompt_tokens)
            self.assertLess(session.usage.computed_tokens, 32)
        with self.assertRaises(gistd.NameExists):
            self.client.add_document("book", "other")

    def test_callback_that_raises(self) -> None:
        """Ends the request, and comes out where it is awaited."""
        def angry(n_read: int, n_tokens: int) -> None:
            raise KeyError("mine")

        with self.client.open() as session:
            with self.assertRaisesRegex(KeyError, "mine"):
                session.append(LONG, progress=angry)
            session.append("and it goes on")

    def test_form(self) -> None:
        with self.client.open() as session:
            session.append([("user", "A person.")], answer=True)
            schema = {"type": "object", "properties": {"old": {"type": "boolean"}}, "required": ["old"],
                      "additionalProperties": False}
            with session.fork() as fork:
                said = "".join(fork.generate(schema=json.dumps(schema), max_tokens=60))
                self.assertIsInstance(json.loads(said)["old"], bool)
            with session.fork() as fork:
                self.assertIn("".join(fork.generate(grammar='root ::= "yes" | "no"', max_tokens=20)), ("yes", "no"))
            with self.assertRaises(gistd.BadRequest):
                list(session.generate(grammar="root ::= nothing"))
            with self.assertRaisesRegex(ValueError, "not both"):
                session.generate(grammar="x", schema="{}")
            with self.assertRaisesRegex(TypeError, "not both"):
                session.generate(gistd.Sampling(), max_tokens=3)

    def test_memory(self) -> None:
        """Of a small budget a long text is kept as gists; without compression it is refused."""
        with self.client.open(memory=gistd.Memory("auto", budget=512), segment=128) as session:
            usage = session.append(LONG)
            self.assertGreater(usage.gist_tokens, 0)
            self.assertLess(usage.gists, usage.gist_tokens)
            self.assertEqual(sum(usage.at_ratio), usage.gist_tokens)
        with self.client.open(memory=gistd.Memory("full", budget=512), segment=128) as session:
            with self.assertRaises(gistd.ContextLengthExceeded):
                session.append(LONG)
        with self.assertRaisesRegex(ValueError, "no compressor 'nonsense'"):
            self.client.open(memory="nonsense")

    def test_stop_and_seed(self) -> None:
        with self.client.open() as session:
            session.append("One two three")
            with session.fork() as a, session.fork() as b:
                options = {"temperature": 1.0, "seed": 7, "max_tokens": 10, "ignore_eog": True}
                said = "".join(a.generate(**options))
                self.assertEqual("".join(b.generate(**options)), said)
            with session.fork() as c:
                stop = said[3:5]
                with c.generate(stop=[stop], **options) as stream:
                    self.assertEqual("".join(stream), said[:said.index(stop)])
                self.assertEqual(stream.result.reason, gistd.Reason.STOP)
                self.assertEqual(stream.result.stop, 0)

    def test_which_stop(self) -> None:
        """By a grammar, so that the answer is known."""
        ended = {"grammar": 'root ::= "one two three"', "stop": ["never", "two t", "two", "hree"]}
        with self.client.open() as session:
            answer = session.ask("Count", **ended)
            self.assertEqual((answer.text, answer.reason, answer.stop), ("one ", gistd.Reason.STOP, 2))
        with self.client.open() as session:
            session.append("Count")
            several = session.answers(2, **{**ended, "stop": ["\x01never", "three"]})
            self.assertEqual([(a.text, a.stop) for a in several], [("one two ", 1)] * 2)
            self.assertIsNone(session.ask("Count", grammar=ended["grammar"], stop=["never"]).stop)

    def test_logprobs(self) -> None:
        """Of a greedy answer each token is the likeliest, and as likely as a score says."""
        with self.client.open() as session:
            session.append("One two three")
            with session.fork() as fork:
                stream = fork.generate(max_tokens=6, ignore_eog=True, logprobs=3)
                said = "".join(stream)
            self.assertEqual([t.id for t in stream.logprobs], stream.tokens)
            for token in stream.logprobs:
                self.assertEqual(len(token.top), 3)
                self.assertEqual(token.top[0], (token.id, token.logprob))
                self.assertEqual(sorted(token.top, key=lambda t: -t[1]), list(token.top))
                self.assertLess(token.logprob, 0)
            with session.fork() as fork:
                own = fork.generate(max_tokens=6, ignore_eog=True, logprobs=0)
                self.assertEqual("".join(own), said)
            self.assertEqual([t.top for t in own.logprobs], [()] * 6)
            choice, other = session.score([stream.tokens, stream.tokens[:2]])
            self.assertEqual(choice.ids, tuple(stream.tokens))
            for token, logprob in zip(stream.logprobs, choice.logprobs):
                self.assertAlmostEqual(token.logprob, logprob, delta=1e-3)
            self.assertAlmostEqual(choice.sum, sum(choice.logprobs), delta=1e-4)
            self.assertAlmostEqual(other.mean, sum(choice.logprobs[:2]) / 2, delta=1e-4)

    def test_scores(self) -> None:
        ids = self.client.tokenize("The sky is blue.")
        score = self.client.score("The sky is blue.")
        self.assertEqual(list(score.ids), ids)
        self.assertTrue(math.isnan(score.logprobs[0]))
        with self.client.open() as session:
            session.append_tokens(ids[:1])
            behind = session.score([ids[1:]])[0]
        for a, b in zip(score.logprobs[1:], behind.logprobs):
            self.assertAlmostEqual(a, b, delta=1e-3)
        self.assertEqual([math.isnan(p) for p in self.client.score(ids, window=2).logprobs[:4]], [True, False] * 2)
        with self.assertRaises(gistd.BadRequest):
            self.client.score([10 ** 6])
        with self.client.open() as session, self.assertRaisesRegex(TypeError, "not both"):
            session.score(["a", [1]])
        with self.assertRaisesRegex(ValueError, "fixed memory"):
            self.client.score("a", memory="auto")

    def test_embeddings(self) -> None:
        one, other, again = self.client.embed(["a king", "the sky is blue", "a king"])
        self.assertEqual(one.vector, again.vector)
        self.assertNotEqual(one.vector, other.vector)
        self.assertEqual(other.n_tokens, len(self.client.tokenize("the sky is blue")))
        self.assertAlmostEqual(sum(x * x for x in one.vector), 1, delta=1e-4)
        by_ids = self.client.embed([self.client.tokenize("a king")], normalise=False)[0]
        length = math.sqrt(sum(x * x for x in by_ids.vector))
        self.assertAlmostEqual(by_ids.vector[0] / length, one.vector[0], delta=1e-4)
        self.assertNotEqual(self.client.embed(["a king"], pooling=gistd.Pooling.LAST)[0].vector, one.vector)
        with self.assertRaises(gistd.BadRequest):
            self.client.embed([""])

    def test_answers(self) -> None:
        """Several at once are what each is alone."""
        with self.client.open() as session:
            start = session.append("Once upon a time").prompt_tokens
            options = {"temperature": 1.0, "max_tokens": 8, "ignore_eog": True}
            answers = session.answers(3, seed=7, logprobs=0, **options)
            self.assertEqual(len(answers), 3)
            for i, answer in enumerate(answers):
                with session.fork() as fork, fork.generate(seed=7 + i, **options) as stream:
                    self.assertEqual("".join(stream), answer.text)
                self.assertEqual([t.id for t in answer.logprobs], stream.tokens)
                self.assertEqual(answer.reason, gistd.Reason.LENGTH)
                self.assertEqual(answer.usage.generated_tokens, 8)
            self.assertEqual(session.append(" there").prompt_tokens, start + len(self.client.tokenize(" there")))
            with self.assertRaises(gistd.BadRequest):
                session.answers(65)

    def test_deadline(self) -> None:
        with self.client.open() as session:
            session.append("Once upon a time")
            self.client.set_deadline(0.02)
            with self.assertRaises(gistd.DeadlineExceeded) as caught:
                list(session.generate(max_tokens=1000000, ignore_eog=True))
            self.assertIsInstance(caught.exception, TimeoutError)
            self.client.set_deadline(None)
            self.assertGreater(len(list(session.generate(max_tokens=4, ignore_eog=True))), 0)
        with self.assertRaisesRegex(ValueError, "over already"):
            self.client.set_deadline(0)

    def test_survives(self) -> None:
        """A program that is killed, and another one that goes on with its answer."""
        with self.client.open() as session:
            session.append("Once upon a time")
            with session.generate(max_tokens=20000, ignore_eog=True) as whole:
                text = "".join(whole)
        token = killed()
        session = self.client.attach(token)
        self.assertIs(self.client.attach(bytes.fromhex(token)), session)
        at = session.attached
        assert at
        self.assertEqual((at.answers, at.first, at.seconds), (1, 0, 60))
        self.assertGreaterEqual(at.unread, 3)
        self.assertGreaterEqual(at.written, at.unread)
        stream = session.resume()
        self.assertEqual("".join(stream), text)
        self.assertEqual(stream.tokens, whole.tokens)
        self.assertEqual((stream.first, stream.result.reason), (0, whole.result.reason))
        self.assertEqual(stream.result.usage.generated_tokens, len(whole.tokens))
        rest = session.resume(len(whole.tokens) - 5)
        self.assertTrue(text.endswith("".join(rest)))
        self.assertLessEqual(rest.first, len(whole.tokens) - 5)
        session.close()
        with self.assertRaises(gistd.NotFound):
            self.client.attach(token)
        with self.assertRaisesRegex(ValueError, "have 16"):
            self.client.attach(b"short")

    def test_survives_what_was_read(self) -> None:
        """Only what the connection before had not read; and of a realm with its name alone."""
        token = killed("mine")
        with self.assertRaises(gistd.NotFound):
            self.client.attach(token)
        with self.client.attach(token, realm="mine") as session:
            assert session.attached
            rest = session.resume(None)
            self.assertIn("".join(rest), self.client.detokenize(rest.tokens))
            self.assertLessEqual(rest.first, session.attached.unread)
            self.assertEqual(rest.first + len(rest.tokens), rest.result.usage.generated_tokens)

    def test_several_survive(self) -> None:
        """Of a connection that ends by itself; who has a token of before has none."""
        with self.client.open() as session:
            session.append("Once upon a time")
            stops = {"grammar": 'root ::= "one two three"', "stop": ["\x01never", " three"]}
            want = session.answers(3, **stops)
            self.assertEqual([(a.text, a.stop) for a in want], [("one two", 1)] * 3)
        before = gistd.Client()
        session = before.open()
        session.append("Once upon a time")
        first = session.keep().token
        ticket = session.keep(30)
        self.assertEqual(ticket.seconds, 30)
        self.assertGreater(ticket.max_bytes, 1000)
        session.answers(3, **stops)
        before.close()
        with self.assertRaises(gistd.NotFound):
            self.client.attach(first)
        with self.client.attach(ticket.token) as session:
            with self.assertRaisesRegex(ValueError, "resume_answers"):
                session.resume()
            several = session.resume_answers()
        self.assertEqual([(a.text, a.reason, a.stop) for a in several], [(a.text, a.reason, a.stop) for a in want])
        with self.client.open() as session, self.assertRaises(gistd.NotFound):
            session.keep()
            list(session.resume())

    def test_realms(self) -> None:
        """What one has read is taken over in it, and nowhere else."""
        said = "Of realms. " + LONG[:300]
        for realm, shared in (("a", False), ("b", False), ("a", True), (None, False)):
            with self.client.open(realm=realm) as session:
                self.assertEqual(session.append(said).shared_tokens > 0, shared, realm)


class Loop(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.client = await gistd.AsyncClient.connect(name="test")
        self.addAsyncCleanup(self.client.close)

    async def test_streams(self) -> None:
        """What the blocking client says, and the loop turns meanwhile."""
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(turn())
        async with await self.client.open() as session:
            answer = await session.ask("Count to ten.", max_tokens=12, ignore_eog=True)
        beside.cancel()
        self.assertGreater(turns, 2)  # once a wait at least, of which there are four; how often besides is the machine's
        with gistd.Client() as client, client.open() as session:
            self.assertEqual(session.ask("Count to ten.", max_tokens=12, ignore_eog=True).text, answer.text)
        self.assertEqual(threading.active_count(), 2)

    async def test_several_at_once(self) -> None:
        """On one connection, each its own."""
        async def one(i: int) -> str:
            async with await self.client.open() as session:
                await session.append(f"Number {i} is")
                return "".join([p async for p in session.generate(max_tokens=6, ignore_eog=True)])

        together = await asyncio.gather(*(one(i) for i in range(6)))
        self.assertEqual(together, [await one(i) for i in range(6)])

    async def test_numbers(self) -> None:
        """What the blocking client gives."""
        with gistd.Client() as client, client.open() as session:
            session.append("Once upon a time")
            choices, answers = session.score([" there", " never"]), session.answers(2, max_tokens=4, ignore_eog=True)
            score, vectors = client.score("The sky").logprobs[1:], client.embed(["a", "b"])
        async with await self.client.open() as again:
            await again.append("Once upon a time")
            self.assertEqual(await again.score([" there", " never"]), choices)
            several = await again.answers(2, max_tokens=4, ignore_eog=True)
            self.assertEqual([a.text for a in several], [a.text for a in answers])
            stream = again.generate(max_tokens=4, ignore_eog=True, logprobs=1)
            said = "".join([piece async for piece in stream])
            self.assertEqual(said, answers[0].text)
            self.assertEqual([t.id for t in stream.logprobs], stream.tokens)
            await self.client.set_deadline(0.02)
            with self.assertRaises(gistd.DeadlineExceeded):
                await again.answers(1, max_tokens=1000000, ignore_eog=True)
            await self.client.set_deadline(None)
        self.assertEqual((await self.client.score("The sky")).logprobs[1:], score)
        self.assertEqual(await self.client.embed(["a", "b"]), vectors)

    async def test_survives(self) -> None:
        """A client that ends in the middle of an answer, and one that goes on."""
        async with await self.client.open() as session:
            await session.append("Once upon a time")
            text = "".join([piece async for piece in session.generate(max_tokens=60, ignore_eog=True)])
        before = await gistd.AsyncClient.connect()
        session = await before.open()
        await session.append("Once upon a time")
        ticket = await session.keep()
        await session.generate(max_tokens=60, ignore_eog=True).__anext__()
        await before.close()
        session = await self.client.attach(ticket.token)
        assert session.attached
        self.assertEqual(session.attached.answers, 1)
        stream = session.resume()
        self.assertEqual("".join([piece async for piece in stream]), text)
        self.assertEqual((stream.first, stream.result.reason), (0, gistd.Reason.LENGTH))
        self.assertEqual([a.text for a in await session.answers(2, max_tokens=4, ignore_eog=True)],
                         [a.text for a in await session.resume_answers()])
        await session.close()
        with self.assertRaises(gistd.NotFound):
            await self.client.attach(ticket.token)

    async def test_cancelled(self) -> None:
        """Whose task is cancelled leaves a session that goes on."""
        async with await self.client.open() as session:
            await session.append("Once upon a time")
            got = asyncio.Event()

            async def read() -> None:
                async with session.generate(max_tokens=100000, ignore_eog=True) as stream:
                    async for _ in stream:
                        got.set()

            task = asyncio.create_task(read())
            await got.wait()
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            appending = asyncio.create_task(session.append(LONG))
            await asyncio.sleep(0)
            appending.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await appending
            await session.append(" there was")
            fork = await session.fork()
            await fork.close()

    async def test_left_before_it_begins(self) -> None:
        """A stream that is closed before its first piece came leaves no session at work, and an error of what was
        to begin is none of who left."""
        async with await self.client.open() as session:
            await session.append("Once upon a time")
            async with session.generate(max_tokens=100000, ignore_eog=True) as stream:
                first = asyncio.ensure_future(stream.__anext__())
                await asyncio.sleep(0)
                first.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await first
            await session.append(" there was")
            unheard = asyncio.create_task(session.append([("nobody", "?")]))
            await asyncio.sleep(0)
            unheard.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await unheard

    async def test_nobody_answers(self) -> None:
        """Who gives up to connect is free at once, though the thread goes on waiting."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute:
            mute.bind(folder + "/gistd.sock")
            mute.listen()
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(gistd.AsyncClient.connect(folder + "/gistd.sock", timeout=None), 0.2)
        for thread in threading.enumerate():
            if thread.name == "gistd" and thread is not self.client._thread:
                thread.join()

    async def test_errors(self) -> None:
        with self.assertRaises(gistd.NotFound):
            await self.client.restore("nothing of that name")
        with self.assertRaises(gistd.TransportError):
            await gistd.AsyncClient.connect("/tmp/no-such.sock")
        await self.client.close()
        with self.assertRaisesRegex(ValueError, "closed"):
            await self.client.ping()

    async def test_documents(self) -> None:
        seen = []
        usage = await self.client.add_document("async", LONG, progress=lambda n, of: seen.append(n))
        async with await self.client.open(documents=["async"]) as session:
            self.assertEqual(session.usage.prompt_tokens, usage.prompt_tokens)
            await session.save("async")
        self.assertTrue(seen)
        self.assertEqual([row.name for row in await self.client.sessions()], ["async"])
        await self.client.delete_session("async")
        await self.client.delete_document("async")
        self.assertEqual(await self.client.documents(), [])


@unittest.skipUnless(os.environ.get("GISTD_TEST_PID"), "of the last run")
class TheEnd(unittest.TestCase):
    """A daemon that dies: what waits for it ends with an error."""

    def test_dies(self) -> None:
        with gistd.Client() as client, client.open() as session:
            session.append("Once")
            stream = session.generate(max_tokens=100000, ignore_eog=True)
            next(stream)
            os.kill(int(os.environ["GISTD_TEST_PID"]), 9)
            with self.assertRaises(gistd.TransportError):
                for _ in stream:
                    pass
            with self.assertRaises(gistd.TransportError):
                client.ping()


if __name__ == "__main__":
    unittest.main()
