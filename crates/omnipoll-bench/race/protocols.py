from results import Result
from typing import Iterator
def race(turns: int, missing: dict[str, str]) -> Iterator[Result]:
    return iter(())
