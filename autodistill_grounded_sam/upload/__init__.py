"""Labels for review: to Roboflow, with a ledger of what went up."""
