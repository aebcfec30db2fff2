"""The calendar of reports: ISO 8601 weeks, English names, no holidays."""

from __future__ import annotations

from projections.projection import View

DIM_DATE = View(
    "dim_date",
    "The calendar, one row a day from 1990 to 2050.",
    {
        "date": "The day.",
        "year": "Its year.",
        "quarter": "Its quarter, 1 to 4.",
        "month": "Its month, 1 to 12.",
        "day": "Its number in the month, from 1.",
        "year_month": "Year and month, as 2026-03.",
        "month_name": "English name of the month.",
        "day_of_year": "Its number in the year, from 1.",
        "iso_year": "Year that its week belongs to, by ISO 8601.",
        "iso_week": "Its week by ISO 8601, 1 to 53.",
        "weekday": "Day of the week by ISO 8601: 1 Monday to 7 Sunday.",
        "weekday_name": "English name of the day of the week.",
        "weekend": "Whether it is a Saturday or Sunday.",
        "month_start": "First day of its month.",
        "month_end": "Last day of its month.",
    },
    """SELECT day::date, extract(year FROM day)::int, extract(quarter FROM day)::int,
        extract(month FROM day)::int, extract(day FROM day)::int, to_char(day, 'YYYY-MM'),
        to_char(day, 'FMMonth'), extract(doy FROM day)::int, extract(isoyear FROM day)::int,
        extract(week FROM day)::int, extract(isodow FROM day)::int, to_char(day, 'FMDay'),
        extract(isodow FROM day) >= 6, date_trunc('month', day)::date,
        (date_trunc('month', day) + interval '1 month - 1 day')::date
        FROM generate_series(timestamp '1990-01-01', timestamp '2050-12-31', interval '1 day')
        AS day""",
)
