"""One model of what a bucket holds of one database: names, facts, index, what is reachable.

Every other room asks this one. Only this room parses a key or lists a prefix.
"""
