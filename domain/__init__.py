"""What the business decides: aggregates, their events and rules, and the application over them."""
