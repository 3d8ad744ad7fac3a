"""Writes cron.json: what cron patterns do around daylight saving, told by croniter (patterns) and zoneinfo (zones).

For each pattern and zone every minute of a span is shown on the zone's wall clock by zoneinfo and matched by croniter. A
pattern with one fixed time of day runs once in a repeated hour (the first time), and at the first moment behind a gap that
swallowed its time; every other pattern runs whenever the wall clock shows a matching minute (the rules of Vixie's cron).

    python3 -m venv venv && venv/bin/pip install croniter && venv/bin/python cron_expectations.py > cron.json
"""

import json
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from croniter import croniter

SPANS = [
    ("Europe/Berlin", "2025-03-29", 3), ("Europe/Berlin", "2025-10-25", 3), ("America/New_York", "2025-03-08", 3),
    ("America/New_York", "2025-11-01", 3), ("Australia/Lord_Howe", "2025-04-05", 3), ("Australia/Lord_Howe", "2025-10-04", 3),
    ("Asia/Kathmandu", "2025-06-01", 2), ("UTC", "2024-02-28", 3), ("America/Sao_Paulo", "2018-11-03", 3),
]
PATTERNS = [
    "0 0 * * *", "30 2 * * *", "30 1 * * *", "15 2 * * sun", "0 * * * *", "*/30 * * * *", "0 */2 * * *", "10,50 1-3 * * *",
    "5 0 29 2 *", "45 1 1 * *", "20 12 * * mon-fri", "59 23 * * *",
]


def is_fixed(pattern):
    minute, hour = pattern.split()[:2]
    return minute.isdigit() and hour.isdigit()


def expectations(pattern, zone, start, days):
    local = ZoneInfo(zone)
    at = datetime.fromisoformat(start).replace(tzinfo=timezone.utc)
    end = at + timedelta(days=days)
    matches = lambda wall: croniter.match(pattern, wall)
    found, seen = [], set()
    before = (at - timedelta(minutes=1)).astimezone(local).replace(tzinfo=None)
    while at < end:
        wall = at.astimezone(local).replace(tzinfo=None)
        if is_fixed(pattern):
            skipped = before + timedelta(minutes=1)
            hit = False
            while skipped < wall:  # the wall clock jumped over these
                hit |= matches(skipped)
                skipped += timedelta(minutes=1)
            if (hit or matches(wall)) and wall not in seen:
                found.append(int(at.timestamp()))
            seen.add(wall)
        elif matches(wall):
            found.append(int(at.timestamp()))
        before, at = wall, at + timedelta(minutes=1)
    return found


cases = []
for zone, start, days in SPANS:
    first = int(datetime.fromisoformat(start).replace(tzinfo=timezone.utc).timestamp())
    for pattern in PATTERNS:
        cases.append({"zone": zone, "pattern": pattern, "from": first, "to": first + days * 86400,
                      "expect": expectations(pattern, zone, start, days)})
print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")
