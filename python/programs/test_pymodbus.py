"""pymodbus: its server and its client over TCP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import HOST

client = pytest.importorskip("pymodbus.client")
datastore = pytest.importorskip("pymodbus.datastore")
server = pytest.importorskip("pymodbus.server")


def test_pymodbus(run: Any) -> None:
    async def main() -> None:
        block = datastore.ModbusSequentialDataBlock(1, list(range(100)))
        context = datastore.ModbusServerContext(devices=datastore.ModbusDeviceContext(hr=block), single=True)
        serving = server.ModbusTcpServer(context, address=(HOST, 0))
        assert await serving.listen()
        port = serving.transport.sockets[0].getsockname()[1]
        async with client.AsyncModbusTcpClient(HOST, port=port) as asking:
            for start in range(50):
                answer = await asking.read_holding_registers(start, count=10)
                assert answer.registers == list(range(start, start + 10))
            await asking.write_register(7, 77)
            assert (await asking.read_holding_registers(7)).registers == [77]
        await serving.shutdown()
        await asyncio.sleep(0)

    run(main())
