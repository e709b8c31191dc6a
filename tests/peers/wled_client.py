"""Somebody else's client of WLED (PyPI: wled) against the board at 127.0.0.1:PORT: what it sees, and one change."""

import asyncio
import json
import socket
import sys

import aiohttp
from aiohttp.abc import AbstractResolver
from wled import WLED


class OnPort(AbstractResolver):
    """That client knows port 80 only: every name leads to the port that was given."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [{
            "hostname": host, "host": "127.0.0.1", "port": self.port, "family": socket.AF_INET, "proto": 0, "flags": 0,
        }]

    async def close(self) -> None:
        pass


async def main(port: int) -> None:
    connector = aiohttp.TCPConnector(resolver=OnPort(port), use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        board = WLED("board.test", session=session)
        before = await board.update()
        effects = sorted(effect.name for effect in before.effects.values())
        await board.master(on=True, brightness=200, transition=0)
        await board.segment(segment_id=0, color_primary=(0, 0, 255), effect="Rainbow")
        after = await board.update()
        told = asyncio.get_running_loop().create_future()
        await board.connect()
        listening = asyncio.create_task(
            board.listen(callback=lambda device: told.done() or told.set_result(device.state.brightness))
        )
        pushed = await asyncio.wait_for(told, 10)
        listening.cancel()
        await board.disconnect()
        print(json.dumps({
            "name": before.info.name, "mac": before.info.mac_address, "version": str(before.info.version),
            "effects": effects, "brightness": after.state.brightness,
            "color": list(after.state.segments[0].color.primary)[:3], "effect": after.state.segments[0].effect_id,
            "pushed": pushed,
        }))


asyncio.run(main(int(sys.argv[1])))
