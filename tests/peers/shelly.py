"""Somebody else's client of Shelly (PyPI: aioshelly) against the device at 127.0.0.1:PORT, with or without a password:
what it sees, one switch, and what it is told."""

import asyncio
import json
import sys

import aiohttp
from aioshelly.common import ConnectionOptions
from aioshelly.exceptions import InvalidAuthError
from aioshelly.rpc_device import RpcDevice, RpcUpdateType


async def over_http(port: int, password: str | None) -> bool:
    """The same switch by HTTP, with the digest authentication of aiohttp."""
    digest = (aiohttp.DigestAuthMiddleware("admin", password),) if password else ()
    call = {"id": 1, "method": "Shelly.GetStatus"}
    async with aiohttp.ClientSession(middlewares=digest) as session:
        async with session.post(f"http://127.0.0.1:{port}/rpc", json=call) as answer:
            answer.raise_for_status()
            return (await answer.json())["result"]["switch:0"]["output"]


async def main(port: int, password: str | None) -> None:
    user = "admin" if password else None
    options = ConnectionOptions("127.0.0.1", user, password, port=port)
    async with aiohttp.ClientSession() as session:
        device = await RpcDevice.create(session, None, options)
        told = asyncio.Event()

        def listen(_, kind: RpcUpdateType) -> None:
            if kind is RpcUpdateType.STATUS and device.status["switch:0"]["output"]:
                told.set()

        device.subscribe_updates(listen)
        try:
            await device.initialize()
        except InvalidAuthError:
            print(json.dumps({"refused": True}))
            return
        was = device.status["switch:0"]["output"]
        await device.call_rpc("Switch.Set", {"id": 0, "on": True})
        await asyncio.wait_for(told.wait(), 10)
        print(json.dumps({
            "name": device.name, "model": device.model, "gen": device.gen, "protected": device.requires_auth,
            "over_http": await over_http(port, password), "was": was, "is": device.status["switch:0"]["output"], "power": device.status["switch:0"]["apower"],
        }))
        await device.shutdown()


asyncio.run(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
