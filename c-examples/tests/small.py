"""The small programs, each of which prints a table and ends."""

import re

from tests.building import ENGINES, IO_URING
from tests.servers import STEP_SECONDS, run


class SmallPrograms:
    """Those that print a table and end."""

    def rows(self, program, columns):
        """The rows below the table's head, split at runs of two or more blanks."""
        table = [re.split(r" {2,}", line.strip()) for line in self.output(program)]
        head = next(i for i, row in enumerate(table) if row[0] == "engine")
        self.assertEqual(len(table[head]), columns)
        return table[head + 1 :]

    def output(self, program):
        return run([str(self.directory / program)], seconds=STEP_SECONDS).splitlines()

    def test_triggers(self):
        expected = [
            [engine, *row]
            for engine in ENGINES
            for row in (
                ("LEVEL", "READ", "READ", "READ"),
                ("EDGE", "READ", "nothing", "READ"),
                ("ONESHOT", "READ", "nothing", "READ"),
            )
        ]
        self.assertEqual(self.rows("triggers", 5), expected)

    def test_sleep(self):
        rows = self.rows("sleep", 3)
        self.assertEqual([row[0] for row in rows], [engine for engine in ENGINES for _ in range(9)])
        for row in rows:
            self.assertGreaterEqual(int(row[2]), 0, row)

    def test_bigfd(self):
        expected = [
            [engine, str(fd), f"READ on {fd}"] for engine in ENGINES for fd in (1023, 1024, 1500, 5000)
        ]
        self.assertEqual(self.rows("bigfd", 3), expected)

    def test_closed(self):
        expected = [
            ["select", "INVALID x 1", "READ x 1", "not registered"],
            ["poll", "INVALID x 1", "READ x 1", "not registered"],
            ["epoll", "INVALID x 0", "READ x 1", "done"],
            *([["io_uring", "INVALID x 0", "READ x 1", "done"]] if IO_URING else []),
        ]
        self.assertEqual(self.rows("closed", 4), expected)

    def test_timers(self):
        rows = self.rows("timers", 5)
        names = ["10 ms", "20 ms", "100 ms", "5 ms, moved to 120 ms", "15 ms, cancelled"]
        names += ["each 2 ms, five times", "each 2 ms, after 20 ms"]
        self.assertEqual([row[:2] for row in rows], [[engine, name] for engine in ENGINES for name in names])
        for _, name, *numbers in rows:
            events, periods, late_ns = map(int, numbers)
            self.assertGreaterEqual(late_ns, 0, name)
            if name == "each 2 ms, five times":
                self.assertTrue(1 <= events <= 5 <= periods, numbers)
            elif name == "each 2 ms, after 20 ms":
                self.assertTrue(events == 1 and periods >= 10, numbers)
            else:
                expected = 0 if name.endswith("cancelled") else 1
                self.assertEqual((events, periods), (expected, expected), name)

    def test_children(self):
        flaky = [
            ["1", "signal 9", "again after 5 ms"],
            ["2", "exit status 2", "again after 10 ms"],
            ["3", "exit status 3", "again after 20 ms"],
            ["4", "exit status 0", "done"],
        ]
        pauses = [f"again after {pause} ms" for pause in (5, 10, 20, 40)] + ["given up"]
        broken = [[str(run), "exit status 1", then] for run, then in enumerate(pauses, 1)]
        rows = self.rows("children", 5)
        for engine in ENGINES:
            for worker, expected in (("flaky", flaky), ("broken", broken)):
                self.assertEqual([row[2:] for row in rows if row[:2] == [engine, worker]], expected)
        self.assertEqual(len(rows), len(ENGINES) * len(flaky + broken))

    def test_threads(self):
        self.assertEqual(self.rows("threads", 4), [[engine, "200", "17984", "yes"] for engine in ENGINES])

    def test_strict(self):
        expected = {
            "blocking EDGE": "set O_NONBLOCK",
            "undrained EDGE": "read until EAGAIN, then rearm",
            "forgotten ONESHOT": "modify it when it is served",
            "closed": "remove it before it is closed",
            "number reused": "another file than the one registered",
            "busy writer": "ask for WRITE only while",
            "blocked loop": "give long work to another thread",
            "forked child": "call after_fork first",
            "leaked": "was still registered",
            "none": "nothing",
        }
        rows = self.rows("strict", 3)
        mistakes = [[engine, mistake] for engine in ENGINES for mistake in expected]
        self.assertEqual([row[:2] for row in rows], mistakes)
        for _, mistake, words in rows:
            self.assertIn(expected[mistake], words)
            if mistake not in ("forked child", "none"):
                self.assertRegex(words, r"^descriptor \d+ \(token 42\) ")
