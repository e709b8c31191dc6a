"""Talks to a fake Hue bridge with the client `aiohue` of PyPI, and prints what that understood.

Usage: hue.py HOST:PORT BUTTON

BUTTON is a file that appears when somebody pressed the button of the bridge.
"""

import asyncio
import json
import sys
from pathlib import Path

from aiohue import HueBridgeV2, LinkButtonNotPressed, create_app_key
from aiohue.util import normalize_bridge_id
from aiohue.v2.controllers.events import EventType

HOST, BUTTON = sys.argv[1], Path(sys.argv[2])
LAMP = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f281"
GROUP = "3f4ac4e9-d67a-4dbd-8a16-5ea7e373f284"


async def pair():
    """The key, and how often the button was not pressed yet."""
    refused = 0
    while True:
        try:
            return await create_app_key(HOST, "aiohue#tests"), refused
        except LinkButtonNotPressed:
            refused += 1
            print(json.dumps({"refused": refused}), flush=True)
        while not BUTTON.exists():
            await asyncio.sleep(0.02)


async def main():
    key, refused = await pair()
    seen = set()
    async with asyncio.timeout(60):
        bridge = HueBridgeV2(HOST, key)
        await bridge.initialize()
        bridge.events.subscribe(lambda _, data: seen.add(data["type"]), EventType.RESOURCE_UPDATED)
        while not bridge.events.connected:
            await asyncio.sleep(0.02)
        lamp = bridge.lights[LAMP]
        before = lamp.is_on
        await bridge.lights.set_state(LAMP, on=True, brightness=80.0, color_xy=(0.3, 0.3))
        while not (lamp.is_on and abs(lamp.brightness - 80) < 1 and bridge.groups.grouped_light[GROUP].on.on):
            await asyncio.sleep(0.02)
        result = {
            "refused": refused,
            "bridge": normalize_bridge_id(bridge.bridge_id),
            "lights": sorted(light.metadata.name for light in bridge.lights),
            "rooms": [room.metadata.name for room in bridge.groups.room],
            "buttons": len(bridge.sensors.button.items),
            "motion": [sensor.motion.value for sensor in bridge.sensors.motion],
            "temperature": [sensor.temperature.value for sensor in bridge.sensors.temperature],
            "battery": sorted(power.power_state.battery_level for power in bridge.sensors.device_power),
            "connected": sorted({one.status.value for one in bridge.sensors.zigbee_connectivity}),
            "before": before,
            "after": lamp.is_on,
            "xy": [lamp.color.xy.x, lamp.color.xy.y],
            "mirek_valid": lamp.color_temperature.mirek_valid,
            "events": sorted(seen),
        }
        await bridge.close()
    print(json.dumps(result), flush=True)


asyncio.run(main())
