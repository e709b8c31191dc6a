"""Asks a fake of MET Norway with the client `metno-locationforecast` of PyPI, and prints what that understood.

Usage: weather_met_norway.py URL FOLDER
"""

import json
import sys

import requests
from metno_locationforecast import Forecast, Place

BASE, CACHE = sys.argv[1] + "/locationforecast/2.0/", sys.argv[2]
PLACE = Place("Oslo", 59.9139, 10.7522, 23)


def main():
    forecast = Forecast(PLACE, "hearth-tests/1 tests@hearth.example", "complete", CACHE, BASE)
    # The answer of the fake expires at once, so the second time it asks whether there is anything new.
    states = [forecast.update(), forecast.update()]
    try:
        Forecast(PLACE, "python", "compact", CACHE, BASE).update()
        refused = 0
    except requests.HTTPError as error:
        refused = error.response.status_code
    first, last = forecast.data.intervals[0], forecast.data.intervals[-1]
    print(
        json.dumps(
            {
                "states": states,
                "temperature": first.variables["air_temperature"].value,
                "symbol": first.symbol_code,
                "precipitation": first.variables["precipitation_amount"].value,
                "unit": first.variables["precipitation_amount"].units,
                "first_hours": first.duration.total_seconds() / 3600,
                "last_hours": last.duration.total_seconds() / 3600,
                "refused": refused,
            }
        )
    )


main()
