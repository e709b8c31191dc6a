"""Another client's view of a LIFX bulb or switch: aiolifx finds it, changes it if asked to, and tells what it shows.

Usage: lifx.py PORT [CHANGE]

PORT is where it listens on 127.0.0.1. CHANGE is a JSON object of `power` (a truth value), `color`, `zones` (a
list of [first, last, color]), `tile` (a list of colors for the first zones of the first tile), `effect` (a name),
`infrared` (a brightness), `clean` (seconds of a cleaning cycle, 0 ends one) and `relay` ([index, truth value]); a
color is [hue, saturation, brightness, kelvin]. Prints one JSON object: `serial`, of a bulb `power`, `color`, `zones`,
`effect`, `infrared` and `clean` (seconds that remain), null where it has none, and of a switch `relays`.
"""

import asyncio
import functools
import json
import sys

from aiolifx import aiolifx
from aiolifx.msgtypes import TileGet64, TileState64

PATIENCE = 20


class Found:
    """Takes the first bulb."""

    def __init__(self):
        self.bulb = asyncio.get_running_loop().create_future()

    def register(self, bulb):
        if not self.bulb.done():
            self.bulb.set_result(bulb)

    def unregister(self, bulb):
        pass


async def answered(ask):
    """Calls `ask` with a callback, and waits for the answer."""
    done = asyncio.get_running_loop().create_future()

    def callback(_, answer):
        if not done.done():
            done.set_result(answer)

    ask(callback)
    answer = await asyncio.wait_for(done, PATIENCE)
    if answer is None:
        sys.exit("the bulb did not answer")
    return answer


async def change(bulb, wanted, features):
    if "color" in wanted:
        await answered(lambda done: bulb.set_color(wanted["color"], callb=done))
    for first, last, color in wanted.get("zones", []):
        await answered(lambda done: bulb.set_color_zones(first, last, color, callb=done))
    if "tile" in wanted:
        await answered(lambda done: bulb.get_device_chain(callb=done))
        colors = [tuple(color) for color in wanted["tile"]]
        width = bulb.tile_devices[0]["width"]
        await answered(lambda done: bulb.set64(width=width, colors=colors, callb=done))
    if "effect" in wanted and features.matrix:
        # A shorter palette makes a message that is too short.
        palette = [[hue * 4_000, 65_535, 65_535, 3_500] for hue in range(16)]
        await answered(lambda done: bulb.set_tile_effect(wanted["effect"], palette=palette, callb=done))
    elif "effect" in wanted:
        await answered(lambda done: bulb.set_multizone_effect(wanted["effect"], callb=done))
    if "infrared" in wanted:
        await answered(lambda done: bulb.set_infrared(wanted["infrared"], callb=done))
    if "clean" in wanted:
        seconds = wanted["clean"]
        await answered(lambda done: bulb.set_hev_cycle(enable=seconds > 0, duration=seconds, callb=done))
    if "relay" in wanted:
        await answered(lambda done: bulb.set_rpower(*wanted["relay"], callb=done))
    if "power" in wanted:
        await answered(lambda done: bulb.set_power(wanted["power"], callb=done))


async def tile_zones(bulb):
    """The zones of all tiles, each row by row."""
    chain = await answered(lambda done: bulb.get_device_chain(callb=done))
    told = []
    for index, tile in enumerate(chain.tile_devices[: chain.tile_devices_count]):
        width, height = tile["width"], tile["height"]
        rows = 64 // width
        for first in range(0, height, rows):
            ask = functools.partial(one_tile, bulb, index, first, width)
            answer = await answered(ask)
            told += answer.colors[: width * min(rows, height - first)]
    return told


def one_tile(bulb, index, first, width, done):
    """As the bulb's get64, which asks five tiles of a chain at once and tells of the first answer."""
    place = {"tile_index": index, "length": 1, "x": 0, "y": first, "width": width}
    bulb.req_with_resp(TileGet64, TileState64, payload=place, callb=done)


async def zones(bulb, features):
    if features.matrix:
        return await tile_zones(bulb)
    if not features.multizone:
        return None
    first = await answered(lambda done: bulb.get_color_zones(0, 7, callb=done))
    if features.extended_multizone or features.min_ext_mz_firmware:
        await answered(lambda done: bulb.get_extended_color_zones(callb=done))
    else:
        for start in range(0, first.count, 8):
            await answered(lambda done: bulb.get_color_zones(start, start + 7, callb=done))
    return bulb.color_zones


async def effect(bulb, features):
    if features.matrix:
        await answered(lambda done: bulb.get_tile_effect(callb=done))
    elif features.multizone:
        await answered(lambda done: bulb.get_multizone_effect(callb=done))
    else:
        return None
    return bulb.effect["effect"]


async def companions(bulb, features):
    """What a bulb has beside its light."""
    infrared = clean = None
    if features.infrared:
        infrared = (await answered(lambda done: bulb.get_infrared(callb=done))).infrared_brightness
    if features.hev:
        clean = (await answered(lambda done: bulb.get_hev_cycle(callb=done))).remaining
    return {"infrared": infrared, "clean": clean}


async def relays(switch):
    told = []
    for index in range(4):
        ask = functools.partial(switch.get_rpower, index)
        told.append((await answered(lambda done: ask(callb=done))).level > 0)
    return {"relays": told}


async def light(bulb, features):
    state = await answered(lambda done: bulb.get_color(callb=done))
    return {
        "power": state.power_level,
        "color": state.color,
        "zones": await zones(bulb, features),
        "effect": await effect(bulb, features),
        **await companions(bulb, features),
    }


async def main(port, wanted):
    aiolifx.UDP_BROADCAST_PORT = port
    found = Found()
    search = aiolifx.LifxDiscovery(
        asyncio.get_running_loop(), found, discovery_interval=1, discovery_step=1, broadcast_ip="127.0.0.1"
    )
    await search.start(listen_ip="127.0.0.1")
    bulb = await asyncio.wait_for(found.bulb, PATIENCE)
    version = await answered(lambda done: bulb.get_version(callb=done))
    features = aiolifx.products_dict[version.product]
    await change(bulb, wanted, features)
    told = await (relays(bulb) if features.relays else light(bulb, features))
    search.cleanup()
    print(json.dumps({"serial": bulb.mac_addr.replace(":", ""), **told}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
