"""Speed for any code: nothing here knows a cell."""
