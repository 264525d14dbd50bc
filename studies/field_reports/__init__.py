"""What strangers' image sets are like: situations from the issue trackers of other projects, each with its check."""
