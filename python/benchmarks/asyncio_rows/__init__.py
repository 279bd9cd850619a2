"""The parts of bench_asyncio.py: the rows, the loops, the measured process and the load."""
