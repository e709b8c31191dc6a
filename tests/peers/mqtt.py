"""Somebody else's view of a home: reads every device that is announced below PREFIX, checks it against what Home
Assistant takes, and prints a line of JSON for all that it sees. Lines of JSON on its input are published.

Usage: mqtt.py PORT [PREFIX]

The rules are those of the public documentation (https://www.home-assistant.io/integrations/mqtt/ and the pages of
light.mqtt, switch.mqtt, sensor.mqtt, binary_sensor.mqtt, button.mqtt and event.mqtt), written down here anew. What is
not in them is refused, so that a misspelt key is found.
"""

import json
import re
import sys

import paho.mqtt.client as mqtt
from voluptuous import All, Any, In, Invalid, Length, Optional, Range, Required, Schema, Unique

NAME = All(str, Length(min=1))


def topic(value):
    """A topic to publish at, or to listen to without wildcards (OASIS MQTT 5.0, 4.7)."""
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= 65535 or set(value) & set("+#\0"):
        raise Invalid(f"no topic: {value!r}")
    return value


def template(value):
    """What the announcements of Hearth use of Jinja: one value of the message."""
    if not re.fullmatch(r"\{\{ value_json\.[a-z0-9_]+ \}\}", value):
        raise Invalid(f"no template: {value!r}")
    return value


ENTITY = {
    Required("platform"): str,
    Required("unique_id"): NAME,
    Required("name"): Any(None, NAME),
    Optional("entity_category"): In(["diagnostic", "config"]),
}
COLOR_MODES = ["onoff", "brightness", "color_temp", "hs", "xy", "rgb", "rgbw", "rgbww", "white"]


def modes_go_together(modes):
    """On and off alone, and brightness alone, cannot be combined with another mode."""
    if len(modes) > 1 and set(modes) & {"onoff", "brightness"}:
        raise Invalid(f"{modes} do not go together")
    return modes


LIGHT = Schema({
    **ENTITY,
    Required("schema"): "json",
    Required("command_topic"): topic,
    Required("state_topic"): topic,
    Required("supported_color_modes"): All([In(COLOR_MODES)], Length(min=1), Unique(), modes_go_together),
    Optional("brightness"): bool,
    Optional("brightness_scale"): All(int, Range(min=1)),
    Optional("color_temp_kelvin"): bool,
    Optional("min_kelvin"): All(int, Range(min=1)),
    Optional("max_kelvin"): All(int, Range(min=1)),
    Optional("effect"): bool,
    Optional("effect_list"): [NAME],
    Optional("flash"): bool,
    Optional("transition"): bool,
})
SWITCH = Schema({**ENTITY, Required("command_topic"): topic, Required("state_topic"): topic})
BUTTON = Schema({**ENTITY, Required("command_topic"): topic})
EVENT = Schema({
    **ENTITY,
    Required("state_topic"): topic,
    Required("event_types"): All([NAME], Length(min=1)),
    Optional("device_class"): In(["button", "doorbell", "motion"]),
})
BINARY = Schema({
    **ENTITY,
    Required("state_topic"): topic,
    Optional("value_template"): template,
    Optional("device_class"): In(["battery", "door", "motion", "moisture", "occupancy", "opening", "smoke", "window"]),
})
# As many as the tests show: the class, the units it may have, and the state classes.
UNITS = {
    "temperature": {"°C", "°F", "K"}, "humidity": {"%"}, "battery": {"%"}, "power": {"mW", "W", "kW", "MW", "GW", "TW"},
    "energy": {"Wh", "kWh", "MWh", "GWh", "TWh", "J", "kJ", "MJ", "GJ"}, "voltage": {"V", "mV", "μV", "kV", "MV"},
    "current": {"A", "mA"}, "signal_strength": {"dB", "dBm"}, "illuminance": {"lx"}, "wind_speed": {"m/s", "km/h", "kn"},
    "precipitation": {"mm", "cm", "in"}, "atmospheric_pressure": {"hPa", "Pa", "bar", "mbar"}, "pm25": {"μg/m³"},
}
RISING = {"energy", "gas", "water"}


def units_fit(sensor):
    """A unit that its class does not have makes Home Assistant refuse the sensor."""
    kind, unit = sensor.get("device_class"), sensor.get("unit_of_measurement")
    if kind is not None and unit not in UNITS[kind]:
        raise Invalid(f"{kind} is not measured in {unit!r}")
    if kind in RISING and sensor.get("state_class") == "measurement":
        raise Invalid(f"{kind} is a total")
    return sensor


SENSOR = Schema(All({
    **ENTITY,
    Required("state_topic"): topic,
    Optional("value_template"): template,
    Optional("device_class"): In(list(UNITS)),
    Optional("state_class"): In(["measurement", "total", "total_increasing"]),
    Optional("unit_of_measurement"): NAME,
    Optional("suggested_display_precision"): All(int, Range(min=0)),
}, units_fit))
PLATFORMS = {
    "light": LIGHT, "switch": SWITCH, "button": BUTTON, "event": EVENT, "binary_sensor": BINARY, "sensor": SENSOR,
}


def component(value):
    """One component, by the rules of its platform."""
    platform = value.get("platform") if isinstance(value, dict) else None
    if platform not in PLATFORMS:
        raise Invalid(f"no platform: {platform!r}")
    return PLATFORMS[platform](value)


DEVICE = Schema({
    Required("device"): {
        Required("identifiers"): All([NAME], Length(min=1)),
        Required("name"): NAME,
        Optional("manufacturer"): NAME,
        Optional("model"): NAME,
        Optional("sw_version"): NAME,
        Optional("suggested_area"): NAME,
    },
    Required("origin"): {Required("name"): NAME, Optional("sw_version"): NAME, Optional("support_url"): NAME},
    Required("components"): All({All(str, Length(min=1)): component}, Length(min=1)),
    Required("availability"): All([{Required("topic"): topic}], Length(min=1)),
    Required("availability_mode"): In(["all", "any", "latest"]),
    Optional("qos"): In([0, 1, 2]),
})
PLACE = re.compile(r"(\w+)/(?:([a-zA-Z0-9_-]+)/)?([a-zA-Z0-9_-]+)/config")


def say(**line):
    """One line of output."""
    print(json.dumps(line), flush=True)


def announced(place, payload):
    """What a device announces, or why Home Assistant would refuse it."""
    if not payload:
        return say(gone=place)
    try:
        if not PLACE.fullmatch(place):
            raise Invalid(f"no topic of discovery: {place!r}")
        config = DEVICE(json.loads(payload))
    except (Invalid, ValueError) as error:
        return say(refused=place, why=str(error))
    return say(device=place, config=config)


def main():
    """Connects, and goes on until its input ends."""
    port, prefix = int(sys.argv[1]), (sys.argv[2:] or ["homeassistant"])[0]
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="somebody-else", protocol=mqtt.MQTTv5)

    def connected(client, *_):
        client.subscribe([(f"{prefix}/device/+/config", 1), ("hearth/#", 1)])
        say(connected=True)

    def message(_client, _data, message):
        if message.topic.startswith(f"{prefix}/"):
            announced(message.topic[len(prefix) + 1:], message.payload)
        else:
            say(topic=message.topic, payload=message.payload.decode(), retained=bool(message.retain))

    client.on_connect, client.on_message = connected, message
    client.connect("127.0.0.1", port)
    client.loop_start()
    for line in sys.stdin:
        asked = json.loads(line)
        client.publish(asked["topic"], asked["payload"], qos=1).wait_for_publish(10)
    client.disconnect()


if __name__ == "__main__":
    main()
