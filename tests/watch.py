"""Prints what changes in a Hearth home: HEARTH_TOKEN=... python3 watch.py HOST:PORT CA.pem [PREFIX...]"""
import json, os, ssl, sys

from websockets.sync.client import connect

address, ca, *prefixes = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca)
headers = {"Authorization": f"Bearer {os.environ['HEARTH_TOKEN']}"}
with connect(f"wss://{address}/api/v1/watch", ssl=tls, additional_headers=headers, subprotocols=["hearth.v1"]) as hearth:
    hearth.send(json.dumps({"type": "subscribe", "prefixes": prefixes or [""]}))
    for message in map(json.loads, hearth):
        if message["type"] == "object":
            print(message["object"]["id"], json.dumps(message["object"]["fields"], sort_keys=True), flush=True)
        elif message["type"] == "gone":
            print(message["id"], "is gone", flush=True)
