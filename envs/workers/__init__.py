"""Worker processes that step shards of the tasks."""
