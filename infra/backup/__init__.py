"""Backups of the log and the vault as files, and back.

- ``tables``: what comes along and what is made anew
- ``copied``: PostgreSQL's binary COPY taken apart, events checked and hashed on the way
- ``manifest``: what a backup says of itself, and whether its files are what it says
- ``writing``, ``restoring``: from the database and into an empty one
"""
