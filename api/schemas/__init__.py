"""What requests may hold and what answers hold: strict types, bounded lengths, no unknown field."""
