"""What everything stands on: settings, the database, the event store, the vault of keys."""
