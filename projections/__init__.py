"""Read models: what the facts say was true when, as known when, and the questions to them."""
