"""Jobs, schedules, sensors, and the whole chain run by run. No stage imports this package."""
