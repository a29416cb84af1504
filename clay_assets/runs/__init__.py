"""What starts runs: jobs, schedules, sensors, and the whole chain run by run. It stands above the stages."""
