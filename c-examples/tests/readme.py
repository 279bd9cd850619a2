"""README.md of the examples."""

from tests.building import ALL_ADAPTERS, HERE, PROGRAMS, build_line, source
from tests.example import Example


class Readme(Example):
    def test_it_has_each_program_and_its_build_line(self):
        text = (HERE / "README.md").read_text()
        for program in (*PROGRAMS, *ALL_ADAPTERS):
            self.assertIn(f"`{source(program).relative_to(HERE)}`", text)
            self.assertIn(build_line(program), text)
        for script in (*(HERE / "ffi").glob("echo.*"), *(HERE / "ffi").glob("pulled.*")):
            self.assertIn(f"`ffi/{script.name}`", text)
