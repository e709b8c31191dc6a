"""lifx-emulator, whose switches get relays, which it lacks.

Usage: as lifx-emulator.

The messages are those of https://lan.developer.lifx.com/docs/the-lifx-switch: GetRPower (816), SetRPower (817) and
StateRPower (818). A switch has four relays, all off at first; one that it does not have it does not answer for.
"""

from dataclasses import dataclass
from typing import ClassVar

from lifx_emulator.handlers import ALL_DEVICE_HANDLERS
from lifx_emulator.handlers.base import PacketHandler
from lifx_emulator.protocol.base import Packet
from lifx_emulator.protocol.packets import PACKET_REGISTRY
from lifx_emulator_app.__main__ import main

RELAYS = 4
INDEX = {"name": "RelayIndex", "type": "uint8", "size_bytes": 1}
LEVEL = {"name": "Level", "type": "uint16", "size_bytes": 2}

levels = {}


@dataclass
class GetRPower(Packet):
    PKT_TYPE: ClassVar[int] = 816
    _fields: ClassVar[list] = [INDEX]
    relay_index: int


@dataclass
class SetRPower(Packet):
    PKT_TYPE: ClassVar[int] = 817
    _fields: ClassVar[list] = [INDEX, LEVEL]
    relay_index: int
    level: int


@dataclass
class StateRPower(Packet):
    PKT_TYPE: ClassVar[int] = 818
    _fields: ClassVar[list] = [INDEX, LEVEL]
    relay_index: int
    level: int


class Relays(PacketHandler):
    """Answers for the relays of a switch."""

    def __init__(self, message):
        self.PKT_TYPE = message.PKT_TYPE

    def handle(self, device_state, packet, res_required):
        if not device_state.has_relays or packet is None or packet.relay_index >= RELAYS:
            return []
        relay = (device_state.serial, packet.relay_index)
        before = levels.get(relay, 0)
        if isinstance(packet, SetRPower):
            levels[relay] = packet.level
            # As lights do: what was before.
            return [StateRPower(packet.relay_index, before)] if res_required else []
        return [StateRPower(packet.relay_index, before)]


for message in (GetRPower, SetRPower, StateRPower):
    PACKET_REGISTRY[message.PKT_TYPE] = message
ALL_DEVICE_HANDLERS += [Relays(GetRPower), Relays(SetRPower)]

if __name__ == "__main__":
    main()
