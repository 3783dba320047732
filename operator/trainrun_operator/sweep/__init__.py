"""One manifest as several runs that differ in a few fields, and their results side by side."""
