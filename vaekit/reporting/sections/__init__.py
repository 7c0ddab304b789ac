"""The sections of a report, one file each: functions of a run's record that yield pieces of HTML."""
