"""Asks a fake of Open-Meteo with the client `open-meteo` of PyPI, and prints what that understood.

Usage: weather_open_meteo.py URL
"""

import asyncio
import json
import sys

import aiohttp
from open_meteo import DailyParameters, HourlyParameters, OpenMeteo, OpenMeteoError
from yarl import URL

FAKE = URL(sys.argv[1])


class Elsewhere:
    """A session that finds the service, whose address is fixed in the client, on this machine."""

    def __init__(self, session):
        self.session = session

    def get(self, url, **options):
        here = url.with_scheme(FAKE.scheme).with_host(FAKE.host).with_port(FAKE.port)
        return self.session.get(here, **options)


async def main():
    async with aiohttp.ClientSession() as session:
        client = OpenMeteo(session=Elsewhere(session))
        weather = await client.forecast(
            latitude=52.52,
            longitude=13.405,
            timezone="Europe/Berlin",
            current=[
                HourlyParameters.TEMPERATURE_2M,
                HourlyParameters.WIND_SPEED_10M,
                HourlyParameters.UV_INDEX,
                HourlyParameters.WEATHER_CODE,
            ],
            hourly=[HourlyParameters.TEMPERATURE_2M, HourlyParameters.PRECIPITATION],
            daily=[DailyParameters.TEMPERATURE_2M_MAX, DailyParameters.WEATHER_CODE],
        )
        try:
            await client.forecast(latitude=99, longitude=13.405)
            refused = "nothing"
        except OpenMeteoError as error:
            refused = str(error)
    print(
        json.dumps(
            {
                "temperature": weather.current.temperature_2m,
                "wind": weather.current.wind_speed_10m,
                "uv_index": weather.current.uv_index,
                "hours": len(weather.hourly.time),
                "days": len(weather.daily.time),
                "first_day": weather.daily.time[0].isoformat(),
                "offset": weather.utc_offset_seconds,
                "zone": weather.timezone,
                "refused": refused,
            }
        )
    )


asyncio.run(main())
