"""Tables, in Markdown, of what was measured: docs/race.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Callable

from results import Race, Result

Column = tuple[str, Callable[[Result], str]]


def table(results: Iterable[Result], columns: list[Column]) -> str:
    """A row for each result; it can be read as it is, too."""
    lines = [["", *(name for name, _ in columns)]]
    lines += [[result.contender, *(cell(result) for _, cell in columns)] for result in results]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    align = [str.ljust] + [str.rjust] * len(columns)
    return "\n".join(
        "| " + " | ".join(put(cell, width) for put, cell, width in zip(align, line, widths)) + " |"
        for line in lines
    )


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def median(figure: str, scale: float = 1) -> Callable[[Result], str]:
    return lambda result: number(result.median(figure) / scale) if figure in result.figures else "-"


def ratio(race: Race, figure: str) -> Callable[[Result], str]:
    """The ratio to the base, with its quartiles."""

    def cell(result: Result) -> str:
        found = race.ratio(result, figure) if figure in result.figures else None
        return "{1:.2f} ({0:.2f} to {2:.2f})".format(*found) if found else "-"

    return cell


def grid(
    race: Race, results: list[Result], figure: str, label: Callable[[Result], str], scale: float = 1
) -> str:
    """A row for each contender, and a column for each discipline: the median, the ratio to the base
    and its quartiles."""
    labels = list(dict.fromkeys(map(label, results)))
    at = {(result.contender, label(result)): result for result in results}

    def column(name: str) -> Column:
        def cell(first: Result) -> str:
            result = at.get((first.contender, name))
            return f"{median(figure, scale)(result)}: {ratio(race, figure)(result)}" if result else "-"

        return name, cell

    firsts = {result.contender: result for result in reversed(results)}
    order = dict.fromkeys(result.contender for result in results)
    return table([firsts[name] for name in order], [column(name) for name in labels])


def echo_table(race: Race) -> str:
    columns: list[Column] = [
        ("CPU, us/message", median("cpu_ns", 1e3)),
        ("ratio to raw", ratio(race, "cpu_ns")),
        ("messages/s", median("per_second")),
        ("p50, us", median("p50_ns", 1e3)),
        ("p99, us", median("p99_ns", 1e3)),
    ]
    return table(race.results, columns)


def language(result: Result) -> str:
    return result.contender.rsplit(", ", 1)[-1]


def watched(result: Result) -> str:
    return "{pairs:,} / {ready:,}".format(**result.parameters)


def section_machine(race: Race) -> str:
    facts = "\n".join(f"- {name}: {fact}" for name, fact in race.machine.items())
    missing = "\n".join(f"- {name}: {reason}" for name, reason in race.missing.items()) or "None."
    return f"## Measured with\n\n{facts}\n\n## Missing\n\n{missing}\n"


def section_watch(race: Race) -> str:
    text = """## Readiness

One end each of N socket pairs is watched, and K of them are made readable, round after round: the time
of the wait and of reading one byte from each, in nanoseconds an event; the ratio to the loop written
straight on epoll in the same language, turn by turn, and its quartiles. That loop runs twice: how far
the second is from 1 is how far to trust the others. "Raw io_uring" asks for polls and believes what it
is reported: what the kernel's polls themselves cost.

![Readiness](figures/watch.svg)
"""
    for name in ("C", "Rust", "Python"):
        results = [result for result in race.of("watch") if language(result) == name]
        if not results:
            continue
        text += f"\n### {name}: watched / ready\n\n{grid(race, results, 'event_ns', watched)}\n"
        most = max(results, key=lambda result: int(result.parameters["pairs"])).parameters
        largest = [result for result in results if result.parameters == most]
        for result in largest:
            result.add_up("both_ns", ("add_ns", "remove_ns"))
        figures = [
            ("add", "add_ns"),
            ("remove", "remove_ns"),
            ("both", "both_ns"),
            ("change interest", "change_ns"),
        ]
        columns = [
            column
            for title, figure in figures
            for column in ((f"{title}, ns", median(figure)), ("ratio", ratio(race, figure)))
        ]
        columns.append(("bytes", median("bytes")))
        text += f"""
One of {most["pairs"]:,} registrations, counted when a wait has reported all of them; bytes are what the
process allocates for it:

{table(largest, columns)}
"""
    return text


def section_growth(race: Race) -> str:
    results = race.of("growth")
    return f"""## Growth

The same for one event, while so many descriptors are watched on which nothing happens; as far as the
descriptor limit lets one process go.

![Growth](figures/growth.svg)

{grid(race, results, "event_ns", lambda result: "{idle:,} idle".format(**result.parameters))}
"""


def section_timers(race: Race) -> str:
    text = """## Timers

Nanoseconds to arm one, to cancel one, to do both to one of those that stay armed, and for one to expire.
libuv and tokio count in milliseconds, libevent in microseconds, libev in what its clock said last; none
of these takes a lock here. omnipoll takes one, reads the clock, and counts in nanoseconds.

![Timers](figures/timers.svg)
"""
    columns: list[Column] = [(name, median(f"{name}_ns")) for name in ("arm", "cancel", "again", "expire")]
    for armed in dict.fromkeys(result.parameters["armed"] for result in race.of("timers")):
        text += f"\n{armed:,} others armed:\n\n{table(race.of('timers', armed=armed), columns)}\n"
    return text


def section_echo(race: Race) -> str:
    text = """## Echo

A server sends back what it gets, over loopback TCP. Each client sends a message, waits for all of it, and
sends the next. The server has a core of its own, and so has the load, and each turn starts the server
again. CPU is what the server's process spends on a message, user and system; raw epoll, for the ratio, runs
before and after every four of the others. Few turns fit into the time:
`crates/omnipoll-bench/race/echo.py` takes any number of clients and a choice of servers.

![Echo](figures/echo.svg)
"""
    results = race.of("echo")
    for size in dict.fromkeys(result.parameters["bytes"] for result in results):
        of_size = [result for result in results if result.parameters["bytes"] == size]
        label = lambda result: "{clients:,} clients".format(**result.parameters)  # noqa: E731
        text += f"""
### {size:,} bytes

CPU in us a message, the ratio to raw epoll and its quartiles:

{grid(race, of_size, "cpu_ns", label, 1e3)}
"""
        for clients in dict.fromkeys(result.parameters["clients"] for result in of_size):
            columns: list[Column] = [
                ("messages/s", median("per_second")),
                ("p50, us", median("p50_ns", 1e3)),
                ("p99, us", median("p99_ns", 1e3)),
            ]
            those = race.of("echo", bytes=size, clients=clients)
            turns = min(len(result.figures["cpu_ns"]) for result in those)
            text += f"\n{clients:,} clients, turns: {turns}\n\n{table(those, columns)}\n"
    return text


def section_connections(race: Race) -> str:
    text = """## Connections

The same echo of 64 bytes, with a connection of its own for each message: the client connects, sends,
receives the answer and resets. CPU is what the server's process spends on one.

![Connections](figures/connections.svg)
"""
    columns: list[Column] = [
        ("CPU, us/connection", median("cpu_ns", 1e3)),
        ("ratio to raw", ratio(race, "cpu_ns")),
        ("connections/s", median("per_second")),
        ("p50, us", median("p50_ns", 1e3)),
        ("p99, us", median("p99_ns", 1e3)),
    ]
    for clients in dict.fromkeys(result.parameters["clients"] for result in race.of("connections")):
        text += f"\n{clients:,} clients:\n\n{table(race.of('connections', clients=clients), columns)}\n"
    return text


# The most that we want our relay to take: CPU as a ratio to raw epoll, by engine and discipline.
CPU_GOALS = {
    "epoll": {"64 B x 50": 1.05, "16 KiB x 50": 1.05, "64 B x 1,000": 1.10, "connect, 64 B x 50": 1.10},
    "io_uring": {
        "64 B x 1,000": 0.90,
        "connect, 64 B x 50": 0.90,
        "64 KiB x 10": 0.80,
        "1 MiB x 10": 0.80,
    },
}
RESOURCE_GOALS = {"message_calls": 4.1, "connection_calls": 19.0, "bytes": 1024.0}


def proxy_goals(race: Race) -> str:
    """Of our relays: what was measured, and the most that it was to be."""
    names = {
        f"omnipoll relay, {engine}, {language}": goals
        for engine, goals in CPU_GOALS.items()
        for language in ("C", "Rust")
    }
    relays = {result.contender: result for result in race.of("proxy") if result.contender in names}
    tests = list(dict.fromkeys(test for goals in CPU_GOALS.values() for test in goals))

    def cpu(test: str) -> Column:
        def cell(relay: Result) -> str:
            most = names[relay.contender].get(test)
            own = [one for one in race.of("proxy", test=test) if one.contender == relay.contender]
            found = race.ratio(own[0], "cpu_ns") if own and most else None
            return f"{found[1]:.2f} of {most:.2f}" if found else "-"

        return test, cell

    if not relays:
        return ""
    return f"""
### Goals of our relay

Measured, and what was to be the most: the ratio of CPU to raw epoll.

{table(relays.values(), [cpu(test) for test in tests])}

What is missing is the kernel's: it takes 95 of 100 samples of `perf record -e cpu-clock` on a relay (98 on
raw epoll), and raw io_uring, which does less for each connection, does not reach these goals either. Tried,
and not kept, each beside the relay without it in one run of `proxy.py --bytes 64 --turns 9`:

- io_uring: sends that complete only when something is left (`MSG_DONTWAIT`, `IOSQE_CQE_SKIP_SUCCESS`), and
  so do not end the wait that submits them. For one client that is two system calls a message instead of
  four, but 1.04 and 1.04 of the CPU; 1.00 and 1.00 for 50, 0.94 and 0.95 for 1,000, 1.10 and 1.11 for
  connections. What is sent would count as waiting until the next event.
- epoll: no `EPOLL_CTL_DEL` before `close(2)`: 1.08 and 1.07 for connections. The close has that work then,
  and a socket that a forked child has as well would go on being reported.

Not built: buffers of io_uring sent on together by one `sendmsg(2)`, or by bundles. A flow is spliced after
four large pieces: 64 MiB written in pieces of 4 KiB are 521 calls of `splice(2)` and 28 of `send(2)`, by
`strace -c`.
"""


def section_proxy(race: Race) -> str:
    text = """## TCP proxy

Each connection is passed on to a connection of its own to a server that echoes: messages from so many
clients as for the echo, and "connect" with a connection for each message. The proxy has a core of its own,
the load and the server share the other. CPU is what the proxy's process spends on a message, there and back.
HAProxy and nginx are the system's packages, each with one process and one thread.

![TCP proxy](figures/proxy.svg)

CPU in us a message, the ratio to raw epoll and its quartiles:
"""
    timed = [result for result in race.of("proxy") if "cpu_ns" in result.figures]
    text += f"\n{grid(race, timed, 'cpu_ns', lambda result: str(result.parameters['test']), 1e3)}\n"
    if resources := race.of("proxy", test="resources"):
        columns: list[Column] = [
            ("calls/message", median("message_calls")),
            ("calls/connection", median("connection_calls")),
            ("bytes/connection", median("bytes")),
        ]
        most = dict(zip(("calls/message", "calls/connection", "bytes/connection"), RESOURCE_GOALS.values()))
        goals = ", ".join(f"{number(value)} {name}" for name, value in most.items())
        text += f"""
System calls (by strace, 64 B x 50) for a message and for a connection of one message; bytes of memory that
the process has for itself alone, for a connection on which nothing happens. We want ours to take at most
{goals}.

{table(resources, columns)}
"""
    return text + proxy_goals(race)


def instructions_table(race: Race) -> str:
    counted = race.of("protocols", counted="instructions")
    return grid(race, counted, "instructions", lambda result: str(result.parameters["test"]))


def section_protocols(race: Race) -> str:
    text = """## HTTP and the Redis protocol

wrk and redis-benchmark against small servers: a static answer, and a key-value store. The servers in C
have one file with the protocols, and so have those in Rust; an omnipoll example is a program of
`c-examples`, with a fuller parser, limits and more commands.

![HTTP and the Redis protocol](figures/protocols.svg)
"""
    timed = [result for result in race.of("protocols") if "counted" not in result.parameters]
    for name in dict.fromkeys(result.parameters["test"] for result in timed):
        results = [result for result in timed if result.parameters["test"] == name]
        columns: list[Column] = [
            ("requests/s", median("per_second")),
            ("ratio", ratio(race, "per_second")),
            ("CPU, us/request", median("cpu_ns", 1e3)),
            ("ratio", ratio(race, "cpu_ns")),
        ]
        text += f"\n### {name}\n\n{table(results, columns)}\n"
    if race.of("protocols", counted="instructions"):
        text += f"""
### Instructions

In user space, for a request of one client, by callgrind (`protocols.py --count`), and the ratio to raw
epoll.

{instructions_table(race)}
"""
    return text


def scale_table(race: Race) -> str:
    def spread(result: Result) -> str:
        return f"{result.median('fewest'):,.0f} to {result.median('most'):,.0f}"

    columns: list[Column] = [
        ("held", median("held")),
        ("connect, s", median("seconds")),
        ("CPU, us/connection", median("cpu_us")),
        ("library, bytes", median("library")),
        ("total, bytes", median("total")),
        ("a worker's share", spread),
        ("load", median("load")),
    ]
    return table(race.results, columns)


def section_scale(race: Race) -> str:
    text = """## Very many connections

Echo servers by PREFORK: clients in several processes and from several addresses connect one after
another, send one message on each connection, which comes back, and then nothing happens on any. "Connect"
is the time from the first connect to the last answer, with clients, kernel and server on one machine; CPU
is what the workers spend on accepting a connection and echoing its message. "Library" is the memory that
the workers have for themselves, "total" that and what the kernel's slabs grow by, for the sockets of both
ends and what watches one. A worker's share is how many the one with the fewest got and the one with the
most. Load is how many processes wanted a core in the last minute, others' too: the times depend on it.
select and poll look at every descriptor in every wait: they get as many as they can serve in the time.
"""
    for connections, workers in dict.fromkeys(
        (result.parameters["connections"], result.parameters["workers"]) for result in race.of("scale")
    ):
        those = race.of("scale", connections=connections, workers=workers)
        text += f"\n{connections:,} connections, {workers} workers:\n\n{scale_table(Race({}, {}, those))}\n"
    return text


def section_safety() -> str:
    return """## What safety costs

What the rows above contain that a loop written straight on a system call does without:

- C: each call counts itself as a user of its handle and of its thread, so that a handle which is freed
  meanwhile is an error, and a child forked inside a callback can leave: two atomic additions, most of the
  difference between the rows of C and Rust.
- Registering: the file behind a number is asked for by `fstat(2)` on the engines whose system call does not
  say that it is closed or can't be watched (all but epoll).
- io_uring under LEVEL: a poll reports edges, so what was reported before is looked at again by `poll(2)`.
- io_uring, `select` and `poll`: each wait is counted, so that a removal returns only when no wait holds the
  file any more.
- Servers on io_uring: a multishot receive ends when it has brought as much as one read of the other engines
  would, because one without a bound would receive megabytes for a paused connection. It shows where a
  message is as large as that: at 65,536 bytes.
- Servers: a write timeout by default, for which the clock is read only when bytes stay unsent; every byte
  that waits is counted against the limits of its connection and of the process.
- Datagrams on a wildcard address: each carries the local address it came to (`IP_PKTINFO`), so that the reply
  leaves from there. Receiving costs a tenth more by it, sending three percent: `target/bench/datagrams_c`.
"""


def section_earlier(race: Race, earlier: Race) -> str:
    """What became of our own ratios since an earlier commit."""
    text = f"""## Compared with commit {earlier.machine["commit"]}

The ratio to raw epoll in the same language, then and now: two runs of this program on the same kind of
machine. Of the time for an event, with so many watched and ready; of the CPU for an echoed message, with
so many clients and bytes.
"""
    for name, figure, title in (("watch", "event_ns", "Readiness"), ("echo", "cpu_ns", "Echo")):
        ours = [result for result in race.of(name) if result.contender.startswith("omnipoll")]
        cells = {
            (result.contender, discipline(result)): f"{then:.2f} to {now:.2f}"
            for result in ours
            for now, then in both(race, earlier, result, figure)
        }
        columns = [column(cells, label) for label in dict.fromkeys(label for _, label in cells)]
        rows = {
            result.contender: result for result in ours if (result.contender, discipline(result)) in cells
        }
        if cells:
            text += f"\n### {title}\n\n{table(rows.values(), columns)}\n"
    return text


def both(race: Race, earlier: Race, result: Result, figure: str) -> Iterable[tuple[float, float]]:
    """The median ratio now, and that of then if there is one."""
    now = race.ratio(result, figure)
    for other in earlier.of(result.race, **result.parameters):
        then = earlier.ratio(other, figure)
        if other.contender == result.contender and now and then:
            yield now[1], then[1]


def column(cells: dict[tuple[str, str], str], label: str) -> Column:
    return label, lambda result: cells.get((result.contender, label), "-")


def discipline(result: Result) -> str:
    return " / ".join(f"{value:,}" for value in result.parameters.values())


SECTIONS = {
    "watch": section_watch,
    "growth": section_growth,
    "timers": section_timers,
    "echo": section_echo,
    "connections": section_connections,
    "proxy": section_proxy,
    "protocols": section_protocols,
    "scale": section_scale,
}


def write(race: Race, earlier: Race | None, path: Path) -> None:
    sections = [section(race) for name, section in SECTIONS.items() if race.of(name)]
    sections.append(section_safety())
    if earlier:
        sections.append(section_earlier(race, earlier))
    head = """# The race

Made by `make bench`, which builds everything, runs all programs in turns, and writes this page, `race.json`
and the figures: no number here was copied by hand. Each is the median of the turns.
"""
    path.write_text("\n".join([head, section_machine(race), *sections]))
