"""README.md of the examples."""

from tests.building import HERE, PROGRAMS, build_line
from tests.example import Example


class Readme(Example):
    def test_it_has_each_program_and_its_build_line(self):
        text = (HERE / "README.md").read_text()
        for program in PROGRAMS:
            self.assertIn(f"`{program}.c`", text)
            self.assertIn(build_line(program), text)
        for script in (*(HERE / "ffi").glob("echo.*"), *(HERE / "ffi").glob("pulled.*")):
            self.assertIn(f"`ffi/{script.name}`", text)
