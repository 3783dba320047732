"""Models merged by their weights: linear, slerp, TIES, DARE; and a sweep over how much of each."""
