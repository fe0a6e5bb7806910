"""The schedulers that set the rate of any optimizer, and the schedules on their own."""
