"""supervise.c: a supervisor of programs."""

import collections
import os
import signal
import subprocess

from tests.servers import STEP_SECONDS, environment, run


class Supervisor:
    def env(self, **others):
        return dict(others, OMNIPOLL_ENGINE=self.engine)

    def test_what_programs_write_has_their_names_and_they_are_started_again(self):
        words = ["sh", "-c", "echo one; echo two >&2; exit 3"]
        words += ["--", "/bin/sh", "-c", "printf no-newline; kill -9 $$"]
        printed = run([*self.command, *words], env=self.env(TIMES="2"), seconds=STEP_SECONDS)
        lines = collections.Counter(printed.splitlines())
        expected = {"sh: one", "sh: two", "sh: ended with status 3", "/bin/sh: ended by signal 9"}
        self.assertEqual(dict(lines), dict.fromkeys([*expected, "/bin/sh: no-newline"], 2))

    def test_a_program_that_is_not_there_is_said(self):
        printed = run([*self.command, "/no/such/program"], env=self.env(TIMES="1"), seconds=STEP_SECONDS)
        self.assertIn("/no/such/program", printed)
        self.assertIn("ENOENT", printed)

    def test_a_stop_ends_the_programs(self):
        sleeping = ["sh", "-c", "echo $$; exec sleep 1000"]
        command = [*self.command, *sleeping, "--", *sleeping]
        env = environment(self.env())
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as running:
            pids = [int(running.stdout.readline().split()[1]) for _ in range(2)]
            running.send_signal(signal.SIGTERM)
            rest, _ = running.communicate(timeout=STEP_SECONDS)
        self.assertEqual(running.returncode, 0)
        self.assertEqual(rest, "sh: ended by signal 15\n" * 2)
        for pid in pids:
            with self.assertRaises(ProcessLookupError):
                os.kill(pid, 0)
