"""Prints what changes in a Hearth home: HEARTH_TOKEN=... python3 watch.py HOST:PORT CA.pem [PREFIX...]"""
import asyncio, json, os, ssl, sys

from websockets.asyncio.client import connect

async def watch(address, ca, *prefixes):
    tls = ssl.create_default_context(cafile=ca)
    headers = {"Authorization": f"Bearer {os.environ['HEARTH_TOKEN']}"}
    async with connect(f"wss://{address}/api/v1/watch", ssl=tls, additional_headers=headers, subprotocols=["hearth.v1"]) as hearth:
        await hearth.send(json.dumps({"type": "subscribe", "prefixes": prefixes or [""]}))
        async for message in hearth:
            message = json.loads(message)
            if message["type"] == "object":
                print(message["object"]["id"], json.dumps(message["object"]["fields"], sort_keys=True), flush=True)
            elif message["type"] == "gone":
                print(message["id"], "is gone", flush=True)

asyncio.run(watch(*sys.argv[1:]))
