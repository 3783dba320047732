"""The rules of `decide`, by what they look at: the run itself, an attempt's end, an open attempt, the next one."""
