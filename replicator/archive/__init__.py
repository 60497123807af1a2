"""One model of a database's objects in a bucket: names, facts, index, reachability, records.

Every other room asks this one. Only this room parses a key or lists a prefix.
"""
