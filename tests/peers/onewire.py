"""Prints every 1-Wire thermometer of a folder, as the library w1thermsensor reads it: model, number, °C."""

import os
import sys
from pathlib import Path

os.environ["W1THERMSENSOR_NO_KERNEL_MODULE"] = "1"  # the folder is all there is

from w1thermsensor import W1ThermSensor  # noqa: E402

W1ThermSensor.BASE_DIRECTORY = Path(sys.argv[1])
for sensor in W1ThermSensor.get_available_sensors():
    print(sensor.name, sensor.id, sensor.get_temperature())
