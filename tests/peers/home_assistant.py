"""Home Assistant at a broker: its own core and MQTT integration, and nothing else of it. Prints a line of JSON for each
entity that it has, whenever one changes, and for each word of complaint. Lines of JSON on its input are services to call.

Usage: home_assistant.py PORT    (in the Debian that tests/setup makes for it)

    {"units": {"power": ["W", …], …}, "truths": ["door", …]}               the classes that it knows, at the start
    {"accepted": TOPIC}                                                    an announcement without a fault
    {"refused": WHY}                                                       all that it warns of
    {"entity": UNIQUE_ID, "state": …, "attributes": {…}, "device": {…}}    as people see it
    {"gone": UNIQUE_ID}
    {"service": "light.turn_on", "entity": UNIQUE_ID, "data": {…}}         on the input
"""

import asyncio
import importlib
import json
import logging
import sys
import tempfile
from pathlib import Path
from types import MappingProxyType

import probatio
from homeassistant import config_entries, loader
from homeassistant.components import mqtt
from homeassistant.components.binary_sensor import BinarySensorDeviceClass
from homeassistant.components.mqtt.schemas import DEVICE_DISCOVERY_SCHEMA, SHARED_OPTIONS
from homeassistant.components.sensor import DEVICE_CLASS_UNITS
from homeassistant.const import EVENT_STATE_CHANGED
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import (
    area_registry, category_registry, device_registry, entity, entity_registry, floor_registry, frame, issue_registry,
    label_registry, restore_state, template, translation,
)

REGISTRIES = [
    area_registry, category_registry, device_registry, entity_registry, floor_registry, issue_registry, label_registry,
    restore_state,
]


def say(**line):
    """One line of output."""
    print(json.dumps(line, default=str), flush=True)


class Complaints(logging.Handler):
    """Tells of each warning and error that Home Assistant logs, the refusal of an announcement among them, but not of how busy this
    machine is."""

    def emit(self, record):
        if str(record.msg).startswith("Updating state for"):
            return
        say(refused=self.format(record))


async def home_assistant(folder):
    """Home Assistant without any integration. It hears a broker without its web server, which is said to be there."""
    (folder / "configuration.yaml").touch()
    hass = HomeAssistant(str(folder))
    hass.config.skip_pip = True
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    for part in (loader, entity, frame, template, translation, device_registry):
        part.async_setup(hass)
    await hass.config_entries.async_initialize()
    for registry in REGISTRIES:
        await registry.async_load(hass, load_empty=True)
    hass.config.components |= {"file_upload", "http"}
    await hass.async_start()
    return hass


async def connect(hass, port):
    """Sets up the MQTT integration, as its dialogue for people does."""
    entry = config_entries.ConfigEntry(
        domain=mqtt.DOMAIN, title="broker", data={"broker": "127.0.0.1", "port": port, "protocol": "5"}, options={},
        source=config_entries.SOURCE_USER, unique_id=None, version=2, minor_version=1, subentries_data=None,
        discovery_keys=MappingProxyType({}),
    )
    await hass.config_entries.async_add(entry)
    if entry.state is not config_entries.ConfigEntryState.LOADED:
        sys.exit(f"the MQTT integration is {entry.state}: {entry.reason}")


class Entities:
    """Tells of the entities, by the ids that their announcements give them."""

    def __init__(self, hass):
        self.hass, self.unique = hass, {}
        hass.bus.async_listen(EVENT_STATE_CHANGED, self.changed)

    def known_as(self, unique):
        """What Home Assistant calls an entity."""
        return next(name for name, known in self.unique.items() if known == unique)

    @callback
    def changed(self, event):
        """An entity is there, has another state, or is gone."""
        name, state = event.data["entity_id"], event.data["new_state"]
        if state is None:
            return say(gone=self.unique.pop(name))
        entry = entity_registry.async_get(self.hass).async_get(name)
        self.unique[name] = entry.unique_id
        attributes = dict(state.attributes, entity_category=entry.entity_category)
        say(entity=entry.unique_id, state=state.state, attributes=attributes, device=self.device(entry.device_id))

    def device(self, id_):
        """The device of an entity, as people see it."""
        device = device_registry.async_get(self.hass).async_get(id_)
        area = area_registry.async_get(self.hass).async_get_area(device.area_id) if device.area_id else None
        return {
            "name": device.name, "manufacturer": device.manufacturer, "model": device.model,
            "sw_version": device.sw_version, "area": area and area.name,
        }


@callback
def read_strictly(message):
    """Checks an announcement once more as if a person had written it into the configuration: from a broker Home
    Assistant takes it also with keys that it does not know, and leaves them out without a word."""
    if not message.payload:
        return
    try:
        device = DEVICE_DISCOVERY_SCHEMA(json.loads(message.payload))
        shared = {key: device[key] for key in SHARED_OPTIONS if key in device}
        for component in device["components"].values():
            platform = importlib.import_module(f"homeassistant.components.mqtt.{component.pop('platform')}")
            platform.PLATFORM_SCHEMA_MODERN(shared | component)
    except (probatio.Invalid, ValueError) as error:
        return say(refused=f"{message.topic}: {error}")
    say(accepted=message.topic)


async def main():
    """Starts, and goes on until the input ends."""
    logging.getLogger().addHandler(Complaints(logging.WARNING))
    with tempfile.TemporaryDirectory() as folder:
        units = {kind: [unit or "" for unit in units] for kind, units in DEVICE_CLASS_UNITS.items()}
        say(units=units, truths=list(BinarySensorDeviceClass))
        hass = await home_assistant(Path(folder))
        entities = Entities(hass)
        await connect(hass, int(sys.argv[1]))
        await mqtt.async_subscribe(hass, f"{mqtt.DEFAULT_PREFIX}/device/+/config", read_strictly)
        lines = asyncio.StreamReader()
        await hass.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            asked = json.loads(line)
            target = {"entity_id": entities.known_as(asked["entity"])}
            await hass.services.async_call(*asked["service"].split("."), asked["data"], blocking=True, target=target)
        await hass.async_stop(force=True)


if __name__ == "__main__":
    asyncio.run(main())
