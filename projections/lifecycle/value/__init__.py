"""What customers are worth: models of buying and spending, scores, lifetime value."""
